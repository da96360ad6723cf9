"""The log of a training: one line of JSON per epoch, and TensorBoard's events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from deepbedmap import files
from deepbedmap.files.atomic import room_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor

Row = dict[str, Any]


class Log:
    """The metrics of a training, in ``metrics.jsonl`` of a folder.

    With TensorBoard installed they are also written as its events, into ``events/``.

    Parameters
    ----------
    folder
        Where to.
    rows
        The metrics up to the state from which the training resumes. An earlier file keeps only
        these: epochs logged after that state are trained and logged again.
    """

    def __init__(self, folder: Path, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.path = folder / "metrics.jsonl"
        rows = list(rows)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        with room_for(self.path, len(text)), files.beside(self.path) as part:
            part.write_text(text, encoding="utf-8")
        self._events: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._events = SummaryWriter(
            str(folder / "events"), purge_step=rows[-1]["step"] + 1 if rows else 0
        )

    def add(self, row: Row) -> None:
        """Write the metrics of an epoch.

        Raises
        ------
        InvalidDataError
            The disk is full.
        """
        line = json.dumps(row) + "\n"
        with room_for(self.path, len(line)), self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        if self._events is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._events.add_scalar(name, value, row["step"])

    def add_beds(self, step: int, **beds: Tensor) -> None:
        """Show beds (n, 1, h, w) side by side in TensorBoard, all on the scale of the first."""
        if self._events is None:
            return
        first = next(iter(beds.values()))
        low, high = first.min(), first.max()
        for name, bed in beds.items():
            scaled = ((bed - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
            self._events.add_images(f"validation/{name}", scaled.cpu(), step)

    def close(self) -> None:
        """Write what is left."""
        if self._events is not None:
            self._events.close()
