from .building import PRODUCT as PRODUCT
from .building import TRAINING_SET as TRAINING_SET
from .building import build as build
from .building import bundled as bundled
from .building import catalog_faults as catalog_faults
from .building import check as check
from .converting import convert_file as convert_file
from .drivers import GridSource as GridSource
from .drivers import PointsSource as PointsSource
from .opening import open_source as open_source
from .opening import read_picks as read_picks
from .raster_drivers import ProductSource as ProductSource
from .raster_drivers import RasterSource as RasterSource
from .raster_drivers import TilesSource as TilesSource
from .raster_drivers import VectorSource as VectorSource
from .readmes import FOLDERS as FOLDERS
from .readmes import MOST_FILES as MOST_FILES

__all__ = [
    "FOLDERS",
    "MOST_FILES",
    "PRODUCT",
    "TRAINING_SET",
    "GridSource",
    "PointsSource",
    "ProductSource",
    "RasterSource",
    "TilesSource",
    "VectorSource",
    "build",
    "bundled",
    "catalog_faults",
    "check",
    "convert_file",
    "open_source",
    "read_picks",
]
