from .attribution import Attribution as Attribution
from .attribution import attribute as attribute
from .citation import STYLES as STYLES
from .citation import Style as Style
from .citation import cite as cite
from .listing import Registry as Registry
from .lookup import IncompleteCitationError as IncompleteCitationError
from .lookup import search as search
from .lookup import show as show
from .reading import CHECKSUMS as CHECKSUMS
from .reading import SCHEMA_VERSION as SCHEMA_VERSION
from .reading import check as check
from .reading import checksums as checksums
from .reading import load as load
from .records import ARCHIVE_SUFFIXES as ARCHIVE_SUFFIXES
from .records import BuiltFrom as BuiltFrom
from .records import Dataset as Dataset
from .records import File as File
from .records import Paper as Paper
from .records import Radar as Radar

__all__ = [
    "ARCHIVE_SUFFIXES",
    "CHECKSUMS",
    "SCHEMA_VERSION",
    "STYLES",
    "Attribution",
    "BuiltFrom",
    "Dataset",
    "File",
    "IncompleteCitationError",
    "Paper",
    "Radar",
    "Registry",
    "Style",
    "attribute",
    "check",
    "checksums",
    "cite",
    "load",
    "search",
    "show",
]
