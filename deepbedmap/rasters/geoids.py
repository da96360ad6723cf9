"""Geoid heights above the ellipsoid: open a geoid grid, and interpolate it at points in any CRS.

A global grid in degrees is extended across the date line and to the poles.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from pyproj import Transformer

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.provenance import describe_source
from deepbedmap.rasters.lattice import axes_of, name_of, north_up
from deepbedmap.rasters.opening import along_xy, geoid_variable, open_raster
from deepbedmap.rasters.reference import VERTICAL_DATUMS, require_crs
from deepbedmap.rasters.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import numpy.typing as npt

Geoids = Mapping[str, xr.DataArray | str | os.PathLike[str]]


def require_quantity(
    attributes: Mapping[Any, Any], expected: str, unlike: Sequence[str], label: str
) -> None:
    """Check units and CF standard name, where stated; the name must contain none of ``unlike``."""
    units, name = attributes.get("units"), str(attributes.get("standard_name", ""))
    if units not in (None, "m", "metre", "metres", "meter", "meters"):
        raise InvalidDataError(Fault(label, field="units", expected="m", found=str(units)))
    if any(part in name for part in unlike):
        raise InvalidDataError(Fault(label, field="standard_name", expected=expected, found=name))


def open_geoid(name: str, geoids: Geoids, label: str) -> tuple[xr.DataArray, dict[str, str]]:
    """Return the height of a geoid above the ellipsoid, and its source for provenance."""
    if name not in geoids:
        raise MissingDataError(
            f"{label}: the conversion needs a geoid grid of {name}; "
            "`deepbedmap search geoid` lists those of the registry"
        )
    raster_or_path = geoids[name]
    if isinstance(raster_or_path, xr.DataArray):
        geoid = raster_or_path
        source = describe_source(f"geoid {name}", name_of(geoid))
    else:
        path = Path(raster_or_path)
        geoid = open_raster(path, geoid_variable(path))
        source = describe_source(f"geoid {name}", path.name, file=path)
    require_quantity(geoid.attrs, "height of a geoid", ("altitude", "thickness"), name_of(geoid))
    keys = ("vertical_datum", "geoid", "title", "long_name")
    metadata = " ".join(str(geoid.attrs.get(key, "")) for key in keys).upper()
    others = [other for other in VERTICAL_DATUMS[1:] if other in metadata]
    if others and name not in others:
        raise InvalidDataError(
            Fault(name_of(geoid), field="geoid", expected=name, found=", ".join(others))
        )
    return along_xy(geoid), source


# Added to heights: sign, geoid, and the transformation from the heights' CRS to the geoid's.
GeoidTerm = tuple[int, xr.DataArray, Transformer]


def datum_shift(
    terms: Sequence[GeoidTerm], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the height (m) to add at x, y (in the CRS of the heights) to convert their datum."""
    total = np.zeros(x.shape)
    for sign, geoid, transformer in terms:
        total += sign * _undulation(geoid, *transformer.transform(x, y))
    return total


def require_cover(
    terms: Sequence[GeoidTerm],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    label: str,
) -> None:
    """Raise InvalidDataError if all points (x, y in the heights' CRS) are outside a geoid grid."""
    for _, geoid, transformer in terms:
        if x.size and np.isnan(_undulation(geoid, *transformer.transform(x, y))).all():
            raise InvalidDataError(
                Fault(
                    file=name_of(geoid),
                    expected=f"a geoid that covers {label}",
                    found="no value there",
                    remedy="check the CRS of both, or use a larger geoid grid",
                )
            )


def _undulation(
    geoid: xr.DataArray, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Interpolate a geoid bilinearly at points in its CRS; degrees wrap around the globe."""
    if not require_crs(geoid).is_geographic:
        return sample(geoid, x, y)
    geoid = north_up(geoid)
    (west, step, columns), (north, _, rows) = axes_of(geoid)
    with np.errstate(invalid="ignore"):  # a point outside the domain of the CRS is infinite
        if step * columns < 360 - step / 2:
            # A regional grid: longitudes are brought into the 360 degrees that begin at its edge.
            edge = west - step / 2
            return sample(geoid, edge + (x - edge) % 360, y)
        x = west + (x - west) % 360
    values = _round_the_globe(geoid, x, y)
    for pole, rim in ((90, north), (-90, north - step * (rows - 1))):
        gap = abs(pole - rim)
        cap = np.abs(pole - y) < gap
        if 0 < gap <= step and cap.any():
            # At the pole all longitudes meet, so the height there may not depend on longitude: it
            # is the mean of the nearest row, and linear in latitude between that row and the pole.
            around = geoid["x"].to_numpy().astype(np.float64)
            centre = _round_the_globe(geoid, around, np.full(around.shape, rim)).mean()
            outer = _round_the_globe(geoid, x[cap], np.full(int(cap.sum()), rim))
            weight = np.abs(pole - y[cap]) / gap
            values[cap] = weight * outer + (1 - weight) * centre
    return values


def _round_the_globe(
    geoid: xr.DataArray, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Interpolate as :func:`sample` does, with the first column next to the last."""
    west, step, columns = axes_of(geoid)[0]
    east = west + step * (columns - 1)
    values = sample(geoid, np.minimum(x, east), y)
    seam = x > east
    weight = (x[seam] - east) / (west + 360 - east)
    first = sample(geoid, np.full(weight.shape, west), y[seam])
    values[seam] = (1 - weight) * values[seam] + weight * first
    return values
