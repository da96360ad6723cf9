"""Rows of refined beds, kept in plain files on disk while a prediction runs.

Several processes may write to them, and a stopped prediction resumes from them.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.tiles.inputs import RESOLUTION

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    import numpy.typing as npt
    from torch import nn

    from deepbedmap.model.prediction.refining import Block
    from deepbedmap.places import Bounds
    from deepbedmap.tiles.inputs import Inputs

CHUNK = 1024
"""Width (cells) of the square chunks that are read, checked and written at once."""


@dataclass(frozen=True)
class Refinement:
    """Everything a process needs to refine a band."""

    networks: list[nn.Module]
    inputs: Inputs
    bounds: Bounds
    memory: int | None
    autocast: list[bool]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the bed, in cells of 250 m."""
        xmin, ymin, xmax, ymax = self.bounds
        return round((ymax - ymin) / RESOLUTION), round((xmax - xmin) / RESOLUTION)


class BedStore:
    """Refined beds in plain files, to which several processes may write rows."""

    def __init__(self, folder: Path, work: Refinement) -> None:
        self.shape = work.shape
        self.beds = [folder / f"bed{member}.float32" for member in range(len(work.networks))]
        self.quality = folder / "quality.uint8"

    @property
    def sizes(self) -> dict[Path, int]:
        """Size of each file in bytes."""
        cells = math.prod(self.shape)
        return dict.fromkeys(self.beds, 4 * cells) | {self.quality: cells}

    def require_room(self, paths: Sequence[Path]) -> None:
        """Check the disk space for the rest of the rows, and for the cells of a GeoTIFF."""
        parent = paths[0].parent
        held = sum(file.stat().st_blocks * 512 for file in self.sizes if file.exists())
        needed, free = sum(self.sizes.values()) - held, shutil.disk_usage(parent).free
        if any(path.suffix == ".tif" and path.parent == parent for path in paths):
            needed += 4 * math.prod(-(-cells // 512) * 512 for cells in self.shape)
        if needed > free:
            raise InvalidDataError(
                Fault(
                    str(parent),
                    expected=f"room for {needed / 1e6:.1f} MB of work",
                    found=f"{free / 1e6:.1f} MB",
                    remedy="make room, or choose another place",
                )
            )

    def make(self) -> None:
        """Create the missing files."""
        for file, size in self.sizes.items():
            with file.open("ab") as opened:
                opened.truncate(size)

    def write(self, member: int, block: Block) -> None:
        """Write a block of a bed, and for the first network also its quality."""
        self._write(self.beds[member], block.bed, block)
        if member == 0:
            self._write(self.quality, block.quality, block)

    def _write(self, path: Path, values: npt.NDArray[Any], block: Block) -> None:
        values = np.ascontiguousarray(values)
        try:
            with path.open("r+b") as file:
                for number, row in enumerate(values):
                    first = (block.top + number) * self.shape[1] + block.left
                    file.seek(first * values.itemsize)
                    file.write(row.data)
        except OSError as error:
            raise InvalidDataError(
                Fault(
                    str(path),
                    expected="a file that can be written",
                    found=f"{error.strerror}; finished rows are kept",
                    remedy="make room, then start the same again",
                )
            ) from error

    def read(self, path: Path) -> Any:
        """Return the values of a file as a lazy dask array."""
        from dask import array

        rows = _Rows(path, self.shape)
        empty, name = np.empty((0, 0), rows.dtype), f"{path.name}-{path}"
        return array.from_array(  # type: ignore[no-untyped-call]
            rows, (CHUNK, CHUNK), name=name, asarray=False, meta=empty
        )


@dataclass(frozen=True)
class _Rows:
    """A plain file of rows; only the requested part is in memory."""

    path: Path
    shape: tuple[int, int]
    ndim: int = 2

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.path.suffix[1:])

    def __getitem__(self, part: Any) -> npt.NDArray[Any]:
        return np.array(np.memmap(self.path, self.dtype, "r", shape=self.shape)[part])
