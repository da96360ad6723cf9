"""Progress bars of files that are downloaded or read: one for each file and one for all of them."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from deepbedmap.errors import DownloadError
from deepbedmap.progress import shows_bars

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Bars:
    """A bar for every file on its way, and one for all; none where there is no terminal."""

    def __init__(self, progress: bool, stop: threading.Event) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not (progress and shows_bars(console)),
        )
        self._stop = stop
        self._guard = threading.Lock()
        self._all = TaskID(-1)

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def expect(self, count: int, total: int) -> None:
        """Show a bar for all files, if there are several, of so many bytes in all."""
        if count > 1:
            self._all = self._progress.add_task(f"all {count} files", total=total)

    @contextlib.contextmanager
    def of(self, names: Sequence[str], size: int | None) -> Iterator[Bar]:
        """Show a bar for files that come together, as long as they do."""
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        with self.bar(", ".join(names[:2]) + more, size) as bar:
            try:
                yield bar
            except BaseException:
                self.move(-bar.done, (size or 0) - bar.expected)
                raise

    @contextlib.contextmanager
    def bar(self, name: str, size: int | None) -> Iterator[Bar]:
        """Show a bar as long as something lasts."""
        task = self._progress.add_task(name, total=size, visible=size != 0)
        try:
            yield Bar(self, task, size or 0)
        finally:
            self._progress.remove_task(task)

    def show(self, task: TaskID, done: int, total: int | None) -> None:
        """Say that so many bytes of so many are there of one file."""
        self._progress.update(task, completed=done, total=total)

    def advance(self, task: TaskID, count: int) -> None:
        """Say that so many bytes more are there of one file."""
        self._progress.advance(task, count)

    def move(self, done: int, total: int) -> None:
        """Count more bytes in the bar for all files."""
        with self._guard:
            for task in self._progress.tasks:
                if task.id == self._all:
                    all_of_it = (task.total or 0) + total
                    self._progress.update(task.id, advance=done, total=all_of_it)

    def check_stop(self) -> None:
        """Raise DownloadError if the work is to end."""
        if self._stop.is_set():
            raise DownloadError("stopped")


@dataclass
class Bar:
    """The progress of one file."""

    _bars: Bars
    _task: TaskID
    expected: int
    done: int = 0
    resumed: bool = False

    def start(self, done: int, total: int | None) -> None:
        """Say that so many bytes of so many are there; said anew by every attempt."""
        self.resumed |= done > 0
        self._bars.move(done - self.done, (total or self.expected) - self.expected)
        self.done, self.expected = done, total or self.expected
        self._bars.show(self._task, done, total)

    def advance(self, count: int) -> None:
        """Say that so many bytes more are there."""
        self._bars.check_stop()
        self.done += count
        self._bars.move(count, 0)
        self._bars.advance(self._task, count)
