"""The bed of a window, by a trained network."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from deepbedmap.inputs import PADDING, RESOLUTION, RESOLUTIONS, Inputs, cut_inputs

if TYPE_CHECKING:
    import xarray as xr

    from deepbedmap.rasters import Bounds


def predict(
    network: nn.Module,
    inputs: Inputs,
    bounds: Bounds | None = None,
    *,
    size: int = 36,
    batch_size: int = 32,
    provenance: dict[str, Any] | None = None,
) -> xr.DataArray:
    """Predict the bed of a window.

    The window is covered by square tiles like those of the training, each overlapping the next by
    two thirds; where tiles overlap they are averaged with weights that fall to zero at a tile's
    edge (Hann), so that no seam shows.

    Parameters
    ----------
    network
        Takes x, w1, w2, w3 as :class:`deepbedmap.model.networks.Generator` does.
    inputs
        Prior, surface, velocity and accumulation.
    bounds
        Whole kilometres on the prior's cell edges; by default what the prior covers, less the
        1 km by which the inputs must reach beyond.
    size
        Width of a tile in cells of 250 m, a multiple of 4; less where the window is smaller.
    batch_size
        Tiles computed at once.
    provenance
        Written into the attribute of that name, as JSON. Its ``sources``, each described by
        :func:`deepbedmap.citation.describe`, are the inputs and the checkpoint.

    Returns
    -------
    DataArray
        ``z`` (y, x): bed elevation, float32 metres at 250 m, y ascending, in the CRS and on the
        vertical datum of the prior. NaN in cells for which every tile lacks some input.

    Raises
    ------
    InvalidDataError
        The window with its margin reaches beyond an input; inputs differ in CRS or datum.
    ValueError
        The window is not made of whole kilometres, or the tile's size is no multiple of 4.
    """
    import xarray as xr

    from deepbedmap import rasters

    xmin, ymin, xmax, ymax = _window(bounds, rasters.bounds_of(inputs.prior))
    columns, rows = round((xmax - xmin) / RESOLUTION), round((ymax - ymin) / RESOLUTION)
    size = min(size, columns, rows)
    if size < 4 or size % 4:
        raise ValueError(f"size: expected a multiple of 4 cells, found {size}")
    corners = [(row, column) for row in _starts(rows, size) for column in _starts(columns, size)]
    boxes = np.array(
        [
            (
                xmin + RESOLUTION * column,
                ymax - RESOLUTION * (row + size),
                xmin + RESOLUTION * (column + size),
                ymax - RESOLUTION * row,
            )
            for row, column in corners
        ]
    )

    bed = np.zeros((rows, columns))
    weight = np.zeros((rows, columns))
    taper = np.hanning(size + 2)[1:-1]
    taper = taper[:, None] * taper
    for number, tile in enumerate(_tiles(network, inputs, boxes, batch_size)):
        if np.isfinite(tile).all():
            row, column = corners[number]
            part = np.s_[row : row + size, column : column + size]
            bed[part] += taper * tile
            weight[part] += taper
    bed = np.divide(bed, weight, out=np.full_like(bed, np.nan), where=weight > 0)

    z = xr.DataArray(
        bed[::-1].astype(np.float32),
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


def _window(bounds: Bounds | None, covered: Bounds) -> Bounds:
    if bounds is None:
        xmin, ymin, xmax, ymax = covered
        return xmin + PADDING, ymin + PADDING, xmax - PADDING, ymax - PADDING
    cell = RESOLUTIONS["x"]
    xmin, ymin, xmax, ymax = bounds
    if xmin >= xmax or ymin >= ymax:
        raise ValueError(f"bounds: expected (xmin, ymin, xmax, ymax), found {bounds}")
    from_edge = [(bounds[side] - covered[side % 2]) / cell for side in range(4)]
    if any(abs(cells - round(cells)) > 1e-6 for cells in from_edge):
        raise ValueError(
            f"bounds: expected edges of the prior's cells of {cell:g} m, found {bounds}; "
            f"the prior begins at {covered[:2]}"
        )
    return bounds


def _starts(cells: int, size: int) -> list[int]:
    """First cells of tiles that cover a row of cells, evenly overlapping by some two thirds."""
    count = max(1, math.ceil(3 * (cells - size) / size) + 1)
    return [4 * round(start / 4) for start in np.linspace(0, cells - size, count)]


def _tiles(
    network: nn.Module, inputs: Inputs, boxes: npt.NDArray[np.float64], batch_size: int
) -> Iterator[npt.NDArray[np.float32]]:
    device = next(network.parameters()).device
    network.eval()
    for start in range(0, len(boxes), batch_size):
        tiles = cut_inputs(boxes[start : start + batch_size], inputs).values()
        complete = np.all([np.isfinite(tile).all(axis=(1, 2, 3)) for tile in tiles], axis=0)
        with torch.inference_mode():
            beds: Tensor = network(*(torch.from_numpy(tile).to(device) for tile in tiles))
        yield from np.where(complete[:, None, None], beds[:, 0].cpu().numpy(), np.nan)
