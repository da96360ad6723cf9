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
    """One bar for each file in transfer, and one for all; none without a terminal."""

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
        """Show a bar for all files, if there are several, with their bytes in all."""
        if count > 1:
            self._all = self._progress.add_task(f"all {count} files", total=total)

    @contextlib.contextmanager
    def of(self, names: Sequence[str], size: int | None) -> Iterator[Bar]:
        """Show one bar for files that arrive together, until the context ends."""
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        with self.bar(", ".join(names[:2]) + more, size) as bar:
            try:
                yield bar
            except BaseException:
                self.move(-bar.done, (size or 0) - bar.expected)
                raise

    @contextlib.contextmanager
    def bar(self, name: str, size: int | None) -> Iterator[Bar]:
        """Show a bar until the context ends."""
        task = self._progress.add_task(name, total=size, visible=size != 0)
        try:
            yield Bar(self, task, size or 0)
        finally:
            self._progress.remove_task(task)

    def show(self, task: TaskID, done: int, total: int | None) -> None:
        """Set the bytes of one file that have arrived, and its bytes in all."""
        self._progress.update(task, completed=done, total=total)

    def advance(self, task: TaskID, count: int) -> None:
        """Add bytes of one file that have arrived."""
        self._progress.advance(task, count)

    def move(self, done: int, total: int) -> None:
        """Add bytes to the bar for all files."""
        with self._guard:
            for task in self._progress.tasks:
                if task.id == self._all:
                    expected = (task.total or 0) + total
                    self._progress.update(task.id, advance=done, total=expected)

    def check_stop(self) -> None:
        """Raise DownloadError if the downloads are to end."""
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
        """Set the bytes that have arrived and the bytes in all; called by every attempt."""
        self.resumed |= done > 0
        self._bars.move(done - self.done, (total or self.expected) - self.expected)
        self.done, self.expected = done, total or self.expected
        self._bars.show(self._task, done, total)

    def advance(self, count: int) -> None:
        """Add bytes that have arrived."""
        self._bars.check_stop()
        self.done += count
        self._bars.move(count, 0)
        self._bars.advance(self._task, count)
