"""A progress bar of steps, and the type of the functions that report progress."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator


class Tell(Protocol):
    """Takes how many steps are done, of how many, and perhaps what is new."""

    def __call__(self, done: int, total: int, said: str = "", /) -> None:
        """Show it."""
        ...


def shows_bars(console: Console) -> bool:
    """Return whether bars are shown: on a terminal, unless the package's warnings are silenced."""
    return console.is_terminal and logging.getLogger("deepbedmap").isEnabledFor(logging.WARNING)


@contextlib.contextmanager
def steps(label: str) -> Iterator[Tell]:
    """Show a bar on a terminal; give what is to be told how many steps are done, of how many."""
    console = Console(stderr=True)
    columns = (
        TextColumn(label),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not shows_bars(console)
    ) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int, total: int, said: str = "", /) -> None:
            bar.update(task, completed=done, total=total, description=said)

        yield tell
