from .continent import make_dem as make_dem
from .domain import bands as bands
from .domain import least_memory as least_memory
from .domain import refine_band as refine_band
from .from_files import Predicted as Predicted
from .from_files import predict_files as predict_files
from .predicting import Precision as Precision
from .predicting import Reader as Reader
from .predicting import autocasts as autocasts
from .predicting import predict as predict
from .predicting import reader as reader
from .predicting import window as window
from .preparing import SUFFIXES as SUFFIXES
from .refining import ZOOM as ZOOM
from .refining import Block as Block

__all__ = [
    "SUFFIXES",
    "ZOOM",
    "Block",
    "Precision",
    "Predicted",
    "Reader",
    "autocasts",
    "bands",
    "least_memory",
    "make_dem",
    "predict",
    "predict_files",
    "reader",
    "refine_band",
    "window",
]
