"""Layers of a product: their flags, their order and their CF attributes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from deepbedmap import rasters

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import xarray as xr

logger = logging.getLogger(__name__)

MASK = {"ocean": 0, "ice_free_land": 1, "grounded_ice": 2, "floating_ice": 3, "lake_vostok": 4}
"""Values of the layer ``mask``, as in BedMachine (doi 10.1038/s41561-019-0510-8)."""

UNKNOWN = 255
"""Value of the layer ``mask`` where the input mask has none."""

SOURCE = {
    "none": 0,
    "network": 1,
    "surface": 2,
    "bathymetry": 3,
    "blend": 4,
    "rock": 5,
    "ice_draft": 6,
    "flotation": 7,
}
"""Values of the layer ``source``: how the bed of a cell came about; from 2 on, corrected."""

QUALITY = {"prior": 1, "surface": 2, "velocity": 4, "accumulation": 8}
"""Bits of the layer ``quality``: inputs that were absent. Without a prior there is no bed."""

REFERENCES = "https://doi.org/10.5194/tc-14-3687-2020"
ORDER = (
    "bed",
    "surface",
    "thickness",
    "mask",
    "bed_error",
    "source",
    "quality",
    "geoid",
    "bed_members",
    "bed_mean",
    "bed_standard_deviation",
)
LONG_NAMES = {
    "bed": "bed elevation",
    "surface": "ice surface elevation",
    "thickness": "ice thickness",
    "mask": "ocean, land and ice",
    "bed_error": "spread of the bed elevation",
    "source": "how the bed elevation came about",
    "quality": "inputs that the network lacked",
    "geoid": "height of the geoid above the ellipsoid",
    "bed_members": "bed elevation of every member of the ensemble",
    "bed_mean": "mean of the bed elevations of the ensemble",
    "bed_standard_deviation": "standard deviation of the bed elevations of the ensemble",
}
HEIGHTS = {
    "bed": "bedrock_altitude",
    "surface": "surface_altitude",
    "bed_members": "bedrock_altitude",
    "bed_mean": "bedrock_altitude",
}


def _flags(kind: str, values: Mapping[str, int], suffix: str = "") -> dict[str, Any]:
    return {
        kind: np.array(list(values.values()), np.uint8),
        "flag_meanings": " ".join(f"{meaning}{suffix}" for meaning in values),
    }


ATTRIBUTES: dict[str, dict[str, Any]] = {
    "thickness": {"standard_name": "land_ice_thickness", "units": "m"},
    "mask": _flags("flag_values", {**MASK, "unknown": UNKNOWN}),
    "bed_error": {
        "units": "m",
        "comment": (
            "sample standard deviation of the ensemble's members: how far networks of the same "
            "inputs disagree; not how far they all are from the true bed, since errors of the "
            "prior, of the surveys and of the method, which they share, are not in it"
        ),
    },
    "source": _flags("flag_values", SOURCE),
    "quality": {"standard_name": "quality_flag"} | _flags("flag_masks", QUALITY, "_absent"),
    "geoid": {"standard_name": "geoid_height_above_reference_ellipsoid", "units": "m"},
    "bed_standard_deviation": {
        "units": "m",
        "comment": "of the sample: squares are divided by the number of members less 1",
    },
}


def height_attributes(name: str, raster: xr.DataArray) -> dict[str, str]:
    """Return the CF attributes of heights (m): standard name, units and vertical datum."""
    datum = rasters.stated_datum(raster) or "unknown"
    if datum == "unknown":
        logger.warning(
            "%s: the vertical datum of its heights is not stated", rasters.name_of(raster)
        )
    # CF keeps the word altitude for heights above the geoid.
    above_ellipsoid = "height_above_reference_ellipsoid"
    standard_name = above_ellipsoid if datum == "ellipsoid" else HEIGHTS[name]
    return {"standard_name": standard_name, "units": "m", "vertical_datum": datum}
