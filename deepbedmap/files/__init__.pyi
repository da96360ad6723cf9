from .atomic import beside as beside
from .atomic import workplace as workplace
from .checksums import Digest as Digest
from .checksums import digest as digest
from .resumable import Parts as Parts

__all__ = [
    "Digest",
    "Parts",
    "beside",
    "digest",
    "workplace",
]
