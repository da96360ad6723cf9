"""A progress bar for steps, and the type of the functions that report progress."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator


class StepProgress(Protocol):
    """A function that takes the steps done, their total and, optionally, a message."""

    def __call__(self, done: int, total: int, message: str = "", /) -> None:
        """Report ``done`` of ``total`` steps."""
        ...


def shows_bars(console: Console) -> bool:
    """Return whether bars are shown: on a terminal, unless the package's warnings are silenced."""
    return console.is_terminal and logging.getLogger("deepbedmap").isEnabledFor(logging.WARNING)


@contextlib.contextmanager
def steps(label: str) -> Iterator[StepProgress]:
    """Show a progress bar on a terminal and yield the function that updates it.

    Parameters
    ----------
    label
        Text to the left of the bar.

    Examples
    --------
    >>> with steps("Gridding") as report:
    ...     report(1, 4, "first block")
    """
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

        def report(done: int, total: int, message: str = "", /) -> None:
            bar.update(task, completed=done, total=total, description=message)

        yield report
