from .capture import Captured as Captured
from .configuration import PRESETS as PRESETS
from .configuration import Configuration as Configuration
from .configuration import to_toml as to_toml
from .fitting import Fitted as Fitted
from .fitting import fit as fit
from .from_files import settings_of as settings_of
from .from_files import train_files as train_files
from .from_files import tune_files as tune_files
from .in_memory import Tiles as Tiles
from .in_memory import TrainingSet as TrainingSet
from .loading import load_tiles as load_tiles
from .loading import provenance_of as provenance_of
from .optimizers import paper_optimizer as paper_optimizer
from .running import Progress as Progress
from .running import make_generator as make_generator
from .search_space import Space as Space
from .search_space import load_space as load_space
from .steps import Step as Step
from .steps import refine as refine
from .streaming import StreamedSet as StreamedSet
from .studies import table as table
from .tuning import Tuned as Tuned
from .tuning import tune as tune
from .validating import validate as validate

__all__ = [
    "PRESETS",
    "Captured",
    "Configuration",
    "Fitted",
    "Progress",
    "Space",
    "Step",
    "StreamedSet",
    "Tiles",
    "TrainingSet",
    "Tuned",
    "fit",
    "load_space",
    "load_tiles",
    "make_generator",
    "paper_optimizer",
    "provenance_of",
    "refine",
    "settings_of",
    "table",
    "to_toml",
    "train_files",
    "tune",
    "tune_files",
    "validate",
]
