from .datums import convert_datum as convert_datum
from .geoids import Geoids as Geoids
from .lattice import band_count as band_count
from .lattice import block_of as block_of
from .lattice import bounds_of as bounds_of
from .lattice import file_of as file_of
from .lattice import name_of as name_of
from .lattice import north_up as north_up
from .lattice import resolution_of as resolution_of
from .opening import chunked as chunked
from .opening import open_raster as open_raster
from .opening import velocity_components as velocity_components
from .reference import VERTICAL_DATUMS as VERTICAL_DATUMS
from .reference import crs_of as crs_of
from .reference import require_crs as require_crs
from .reference import require_filler as require_filler
from .reference import require_reference as require_reference
from .reference import require_same_reference as require_same_reference
from .reference import same_crs as same_crs
from .reference import stated_datum as stated_datum
from .resampling import write_resampled as write_resampled
from .sampling import Lattice as Lattice
from .sampling import Method as Method
from .sampling import Reader as Reader
from .sampling import interpolate as interpolate
from .sampling import reader as reader
from .sampling import sample as sample
from .writing import write_cog as write_cog
from .writing import write_geotiff as write_geotiff
from .writing import write_netcdf as write_netcdf

__all__ = [
    "VERTICAL_DATUMS",
    "Geoids",
    "Lattice",
    "Method",
    "Reader",
    "band_count",
    "block_of",
    "bounds_of",
    "chunked",
    "convert_datum",
    "crs_of",
    "file_of",
    "interpolate",
    "name_of",
    "north_up",
    "open_raster",
    "reader",
    "require_crs",
    "require_filler",
    "require_reference",
    "require_same_reference",
    "resolution_of",
    "same_crs",
    "sample",
    "stated_datum",
    "velocity_components",
    "write_cog",
    "write_geotiff",
    "write_netcdf",
    "write_resampled",
]
