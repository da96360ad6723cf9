from .building import build as build
from .cutting import cut_tiles as cut_tiles
from .inputs import Inputs as Inputs
from .inputs import cut_inputs as cut_inputs
from .preparing import Prepared as Prepared
from .preparing import prepare_tiles as prepare_tiles
from .selection import exclude as exclude
from .selection import grounded as grounded
from .selection import grounded_ice as grounded_ice
from .splitting import split as split
from .splitting import write_footprints as write_footprints
from .storage import open_training_set as open_training_set
from .survey_windows import find as find
from .windowing import find_windows as find_windows
from .windowing import masks as masks

__all__ = [
    "Inputs",
    "Prepared",
    "build",
    "cut_inputs",
    "cut_tiles",
    "exclude",
    "find",
    "find_windows",
    "grounded",
    "grounded_ice",
    "masks",
    "open_training_set",
    "prepare_tiles",
    "split",
    "write_footprints",
]
