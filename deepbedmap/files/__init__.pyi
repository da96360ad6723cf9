from .atomic import beside as beside
from .atomic import workplace as workplace
from .checksums import Checksum as Checksum
from .checksums import Digest as Digest
from .checksums import digest as digest
from .checksums import sha256_of as sha256_of
from .resumable import Parts as Parts

__all__ = [
    "Checksum",
    "Digest",
    "Parts",
    "beside",
    "digest",
    "sha256_of",
    "workplace",
]
