from .catalog.building import bundled as open_catalog
from .catalog.converting import convert_file as convert
from .contribution.contributing import contribute as contribute
from .download.checking import verify as verify
from .download.fetching import fetch as fetch
from .evaluation.from_files import evaluate_files as evaluate
from .figures.mapping import draw_map as map  # noqa: A004
from .grids.surveying import grid_surveys as grid
from .model.prediction.from_files import predict_files as predict
from .model.training.from_files import train_files as train
from .model.training.from_files import tune_files as tune
from .points.reading import read_points as read_points
from .points.storing import cross_surveys as crossovers
from .points.storing import store_picks as store_picks
from .rasters.resampling import write_resampled as resample
from .registry.lookup import cite as cite
from .registry.lookup import search as search
from .registry.lookup import show as show
from .tiles.cutting import cut_tiles as cut_tiles
from .tiles.preparing import prepare_tiles as prepare_tiles
from .validation.repository import check as validate

__version__: str

__all__ = [
    "cite",
    "contribute",
    "convert",
    "crossovers",
    "cut_tiles",
    "evaluate",
    "fetch",
    "grid",
    "map",
    "open_catalog",
    "predict",
    "prepare_tiles",
    "read_points",
    "resample",
    "search",
    "show",
    "store_picks",
    "train",
    "tune",
    "validate",
    "verify",
]
