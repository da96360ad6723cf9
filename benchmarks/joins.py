"""Whether the joins of a grid that is solved region by region can be seen.

    python benchmarks/joins.py --out docs/joins.png

A made-up survey is gridded as a whole, and in regions of 128 cells (2,048 is the default); their
joins lie 32 km apart, from the lower left. Printed are the difference of the two, and how much
the bed bends across joins beside how much it bends elsewhere.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cases
import numpy as np
import pandas as pd
import xarray as xr

from deepbedmap import figures, grids, rasters
from deepbedmap.figures import Panel

CELLS = 640, 512
SIDE = 128
MAX_GAP = 25  # cells: the gaps between lines are filled, for a seam would show best there


def bend(grid: xr.DataArray) -> xr.DataArray:
    """Half the second difference along x, in which a step of any height shows."""
    west, east = grid.shift(x=1), grid.shift(x=-1)
    return grid - (west + east) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("joins.png"))
    arguments = parser.parse_args()
    x, y, z = cases.survey(CELLS, 400_000)
    picks = pd.DataFrame({"x": x, "y": y, "z": z})
    picks.attrs = {"crs": "EPSG:3031"}
    region = cases.box_of(CELLS)
    whole = grids.grid_points(picks, region=region, max_gap=MAX_GAP)
    with tempfile.TemporaryDirectory() as folder:
        path = grids.write_grid(
            picks, Path(folder) / "joined.nc", region=region, side=SIDE, max_gap=MAX_GAP
        )
        joined = rasters.open_raster(path).load()
    difference = joined - whole
    print(f"difference: {float(np.sqrt((difference**2).mean())):.5f} m RMS,", end=" ")
    print(f"{float(np.abs(difference).max()):.4f} m at most")
    bends = np.abs(bend(joined).to_numpy())
    columns = np.arange(bends.shape[1])
    at_join = np.isin(columns % SIDE, (0, SIDE - 1)) & (columns > 0) & (columns < columns[-1])
    print(f"bend across joins {np.nanmean(bends[:, at_join]):.3f} m,", end=" ")
    print(f"elsewhere {np.nanmean(bends[:, ~at_join]):.3f} m")
    figures.compare(
        [
            Panel("solved in regions of 32 km", joined),
            Panel("solved as a whole", whole),
            Panel("regions minus whole", difference, "difference"),
        ],
        arguments.out,
        source="Made-up survey of 400,000 picks. Regions are 128 cells of 250 m wide.",
    )


if __name__ == "__main__":
    main()
