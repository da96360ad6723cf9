from .cells import coarse as coarse
from .curves import error_histogram as error_histogram
from .curves import spectrum as spectrum
from .curves import training_curves as training_curves
from .flight_line import transect as transect
from .landscape import perspective as perspective
from .mapping import draw_map as draw_map
from .maps import CLOSE_UPS as CLOSE_UPS
from .maps import close_ups as close_ups
from .maps import compare as compare
from .maps import continent as continent
from .maps import coverage as coverage
from .maps import errors_at_picks as errors_at_picks
from .maps import roughness as roughness
from .overview import quick_look as quick_look
from .panels import Panel as Panel
from .scales import Kind as Kind
from .sheet import SUFFIXES as SUFFIXES
from .sheet import escape as escape
from .sheet import require_suffix as require_suffix

__all__ = [
    "CLOSE_UPS",
    "SUFFIXES",
    "Kind",
    "Panel",
    "close_ups",
    "coarse",
    "compare",
    "continent",
    "coverage",
    "draw_map",
    "error_histogram",
    "errors_at_picks",
    "escape",
    "perspective",
    "quick_look",
    "require_suffix",
    "roughness",
    "spectrum",
    "training_curves",
    "transect",
]
