from .ice_slab import Configuration as Configuration
from .ice_slab import Glacier as Glacier
from .ice_slab import make_glacier as make_glacier
from .publishing import write_repository as write_repository
from .reporting import interpolate_prior as interpolate_prior
from .stages import EPOCHS as EPOCHS
from .stages import STRIDE as STRIDE
from .stages import TEST as TEST
from .stages import Surveyed as Surveyed
from .stages import build_tiles as build_tiles
from .stages import prepare as prepare
from .stages import run as run
from .surveys import RECONNAISSANCE as RECONNAISSANCE
from .surveys import SURVEYS as SURVEYS
from .surveys import within as within

__all__ = [
    "EPOCHS",
    "RECONNAISSANCE",
    "STRIDE",
    "SURVEYS",
    "TEST",
    "Configuration",
    "Glacier",
    "Surveyed",
    "build_tiles",
    "interpolate_prior",
    "make_glacier",
    "prepare",
    "run",
    "within",
    "write_repository",
]
