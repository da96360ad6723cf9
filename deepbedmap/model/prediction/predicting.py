"""Predict the bed of one window with a trained network, in memory."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from deepbedmap.errors import WrongCallError
from deepbedmap.model.prediction import domain
from deepbedmap.model.prediction.refining import ZOOM
from deepbedmap.places import checked_bounds
from deepbedmap.tiles.inputs import PADDING, RESOLUTION, RESOLUTIONS, cut_inputs

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt
    import xarray as xr
    from torch import nn

    from deepbedmap.places import Bounds
    from deepbedmap.tiles.inputs import Inputs

Precision = Literal["float32", "bfloat16"]


def predict(
    network: nn.Module,
    inputs: Inputs,
    bounds: Bounds | None = None,
    *,
    memory: int | None = None,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
    batch_size: int = 32,
    provenance: dict[str, Any] | None = None,
) -> xr.DataArray:
    """Predict the bed of a window, in memory.

    See :func:`deepbedmap.model.prediction.refine_band` for the method and the effect of gaps.

    Parameters
    ----------
    network
        Accepts x, w1, w2, w3 as :class:`deepbedmap.model.networks.Generator` does.
    inputs
        Prior, surface, velocity and accumulation.
    bounds
        Whole kilometres on the prior's cell edges; by default the extent of the prior without
        the 1 km margin that the inputs must cover around the bed.
    memory
        Bytes that may be used in addition to the result, as
        :func:`deepbedmap.model.prediction.bands` takes them.
    device
        Where to compute; by default where the network is.
    precision
        As :func:`autocasts` takes it.
    batch_size
        Tiles computed at once, for networks that see tiles.
    provenance
        Written into the attribute of that name, as JSON. Its ``sources`` are the inputs, each
        described by :func:`deepbedmap.provenance.describe_file`, and the checkpoint, described by
        :func:`deepbedmap.model.checkpoints.describe`.

    Returns
    -------
    DataArray
        ``z`` (y, x): bed elevation, float32 metres at 250 m, y ascending, in the CRS and on the
        vertical datum of the prior. NaN where the prior has no value.

    Raises
    ------
    InvalidDataError
        The window with its margin reaches beyond an input; inputs differ in CRS or datum; the
        memory is too small.
    ValueError
        The window is not made of whole kilometres.
    """
    import xarray as xr

    from deepbedmap import rasters

    bounds = window(inputs, bounds)
    read, shape = reader(inputs, bounds)
    place = torch.device(next(network.parameters()).device if device is None else device)
    options: dict[str, Any] = {
        "device": place,
        "autocast": autocasts(network, place, precision),
        "memory": memory,
        "batch_size": batch_size,
    }
    rows, columns = (ZOOM * (cells - 2) for cells in shape)
    bed = np.empty((rows, columns), np.float32)
    for band in domain.bands(network, shape, **options):
        for block in domain.refine_band(network, read, shape, band, **options):
            height, width = block.bed.shape
            place_in_bed = np.s_[block.top : block.top + height, block.left : block.left + width]
            bed[place_in_bed] = block.bed
    xmin, ymin, _, _ = bounds
    z = xr.DataArray(
        bed[::-1],
        {
            "y": ymin + RESOLUTION * (np.arange(rows) + 0.5),
            "x": xmin + RESOLUTION * (np.arange(columns) + 0.5),
        },
        ("y", "x"),
        name="z",
        attrs={
            "standard_name": "bedrock_altitude",
            "long_name": "bed elevation",
            "units": "m",
            "vertical_datum": inputs.prior.attrs.get("vertical_datum") or "unknown",
            "provenance": json.dumps(provenance or {}),
        },
    )
    placed: xr.DataArray = z.rio.write_crs(rasters.require_crs(inputs.prior))
    return placed


def autocasts(network: nn.Module, device: torch.device, precision: Precision | None = None) -> bool:
    """Return whether a network computes in bfloat16.

    Parameters
    ----------
    network
        From :func:`deepbedmap.model.checkpoints.load`, which records the precision of the training;
        others count as trained in float32.
    device
        On a CPU all is float32.
    precision
        By default the precision of the training.
    """
    wanted = precision or getattr(network, "trained_in", "float32")
    return device.type == "cuda" and wanted == "bfloat16"


def reader(inputs: Inputs, bounds: Bounds) -> tuple[Reader, tuple[int, int]]:
    """Return the reader of a window for :func:`deepbedmap.model.prediction.refine_band`.

    Parameters
    ----------
    inputs
        Prior, surface, velocity and accumulation.
    bounds
        Bounds of the bed, as :func:`window` returns them.

    Returns
    -------
    Reader, tuple
        The function, and rows and columns of the input lattice in cells of 1 km, margin included.

    Raises
    ------
    InvalidDataError
        The window with its margin reaches beyond an input; inputs differ in CRS or datum.
    """
    xmin, ymin, xmax, ymax = bounds
    cell = RESOLUTIONS["x"]
    # Reading the corners shows whether the inputs cover the window, before a long run begins.
    corners = [(xmin, ymax - cell, xmin + cell, ymax), (xmax - cell, ymin, xmax, ymin + cell)]
    cut_inputs(np.array(corners), inputs)
    rows, columns = (round((high - low) / cell) for low, high in ((ymin, ymax), (xmin, xmax)))
    return Reader(inputs, bounds), (rows + 2, columns + 2)


@dataclass(frozen=True)
class Reader:
    """Inputs of a window, by rows and columns of its input lattice."""

    inputs: Inputs
    bounds: Bounds

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the bed's first km, counted southward and eastward from (0, 0)."""
        xmin, _, _, ymax = self.bounds
        # Rounded, with halves upwards: the prior's cells may be offset by half a kilometre.
        south, east = (math.floor(edge / RESOLUTIONS["x"] + 0.5) for edge in (ymax, xmin))
        return -south, east

    def __call__(
        self, top: int, bottom: int, left: int, right: int
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Read a box of at least 3 x 3 cells of 1 km.

        The arrays are those of :data:`deepbedmap.model.prediction.refining.Read`.
        """
        xmin, _, _, ymax = self.bounds
        # The box without the margin of a cell that is read around it.
        cell = RESOLUTIONS["x"]
        box = (
            xmin + cell * left,
            ymax - cell * (bottom - 2),
            xmin + cell * (right - 2),
            ymax - cell * top,
        )
        return {name: grid[0] for name, grid in cut_inputs([box], self.inputs).items()}


def window(inputs: Inputs, bounds: Bounds | None = None) -> Bounds:
    """Return the bounds of the bed: checked, or by default the prior's less a margin of 1 km.

    Raises
    ------
    ValueError
        The bounds are not made of whole cells of the prior.
    """
    from deepbedmap import rasters

    covered = rasters.bounds_of(inputs.prior)
    if bounds is None:
        xmin, ymin, xmax, ymax = covered
        return xmin + PADDING, ymin + PADDING, xmax - PADDING, ymax - PADDING
    cell = RESOLUTIONS["x"]
    checked_bounds(bounds)
    from_edge = [(bounds[side] - covered[side % 2]) / cell for side in range(4)]
    if any(abs(cells - round(cells)) > 1e-6 for cells in from_edge):
        raise WrongCallError(
            f"bounds: expected edges of the prior's cells of {cell:g} m, found {bounds}; "
            f"the prior begins at {covered[:2]}"
        )
    return bounds
