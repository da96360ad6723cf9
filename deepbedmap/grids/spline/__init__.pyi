from .bands import Band as Band
from .bands import Runs as Runs
from .compiling import Floats as Floats
from .compiling import Integers as Integers
from .medians import block_medians as block_medians
from .solving import MARGIN as MARGIN
from .solving import Coarse as Coarse
from .solving import refine as refine
from .solving import solve as solve
from .solving import solve_coarse as solve_coarse

__all__ = [
    "MARGIN",
    "Band",
    "Coarse",
    "Floats",
    "Integers",
    "Runs",
    "block_medians",
    "refine",
    "solve",
    "solve_coarse",
]
