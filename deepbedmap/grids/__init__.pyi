from .geometry import Lattice as Lattice
from .geometry import region_of as region_of
from .gridding import METHODS as METHODS
from .gridding import grid_points as grid_points
from .out_of_core import SIDE as SIDE
from .out_of_core import write_grid as write_grid
from .surveying import grid_surveys as grid_surveys

__all__ = [
    "METHODS",
    "SIDE",
    "Lattice",
    "grid_points",
    "grid_surveys",
    "region_of",
    "write_grid",
]
