from .ice_slab import Configuration as Configuration
from .ice_slab import Glacier as Glacier
from .ice_slab import make_glacier as make_glacier
from .publishing import write_repository as write_repository
from .stages import BUFFER as BUFFER
from .stages import STEPS as STEPS
from .stages import TEST as TEST
from .stages import Surveyed as Surveyed
from .stages import cut_parts as cut_parts
from .stages import grid_known as grid_known
from .stages import interpolate_prior as interpolate_prior
from .stages import open_inputs as open_inputs
from .stages import prepare as prepare
from .stages import run as run
from .stages import train as train
from .stages import within as within
from .surveys import RECONNAISSANCE as RECONNAISSANCE
from .surveys import SURVEYS as SURVEYS

__all__ = [
    "BUFFER",
    "RECONNAISSANCE",
    "STEPS",
    "SURVEYS",
    "TEST",
    "Configuration",
    "Glacier",
    "Surveyed",
    "cut_parts",
    "grid_known",
    "interpolate_prior",
    "make_glacier",
    "open_inputs",
    "prepare",
    "run",
    "train",
    "within",
    "write_repository",
]
