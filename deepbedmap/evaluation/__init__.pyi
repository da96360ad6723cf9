from .comparing import Row as Row
from .comparing import compare as compare
from .ensembles import EnsembleScores as EnsembleScores
from .ensembles import score_ensemble as score_ensemble
from .evaluating import evaluate as evaluate
from .flight_lines import with_lines as with_lines
from .flux import mass_residual as mass_residual
from .from_files import Evaluation as Evaluation
from .from_files import evaluate_files as evaluate_files
from .leaks import Leak as Leak
from .leaks import distance_to as distance_to
from .leaks import find_leak as find_leak
from .mass import MassStatistics as MassStatistics
from .mass import bed_residual as bed_residual
from .mass import conserve as conserve
from .mass import mass_statistics as mass_statistics
from .relief_and_speed import relief_along as relief_along
from .relief_and_speed import speed_at as speed_at
from .resolving import Resolution as Resolution
from .resolving import resolution as resolution
from .roughness import roughness_map as roughness_map
from .roughness import roughness_ratio as roughness_ratio
from .sampling import Raster as Raster
from .sampling import open_bed as open_bed
from .sampling import open_members as open_members
from .sampling import places_of as places_of
from .sampling import sample_bed as sample_bed
from .scoring import CLASSES as CLASSES
from .scoring import Interval as Interval
from .scoring import Scores as Scores
from .scoring import Stratum as Stratum
from .scoring import score as score
from .spectral import Spectra as Spectra
from .spectral import spectra as spectra
from .trainings import Training as Training
from .trainings import open_training as open_training
from .trainings import read_training as read_training
from .variograms import Variogram as Variogram
from .variograms import VariogramModel as VariogramModel
from .variograms import variogram_along as variogram_along
from .verdicts import Verdict as Verdict
from .verdicts import verdict_on_prior as verdict_on_prior
from .verdicts import verdict_on_training as verdict_on_training

__all__ = [
    "CLASSES",
    "EnsembleScores",
    "Evaluation",
    "Interval",
    "Leak",
    "MassStatistics",
    "Raster",
    "Resolution",
    "Row",
    "Scores",
    "Spectra",
    "Stratum",
    "Training",
    "Variogram",
    "VariogramModel",
    "Verdict",
    "bed_residual",
    "compare",
    "conserve",
    "distance_to",
    "evaluate",
    "evaluate_files",
    "find_leak",
    "mass_residual",
    "mass_statistics",
    "open_bed",
    "open_members",
    "open_training",
    "places_of",
    "read_training",
    "relief_along",
    "resolution",
    "roughness_map",
    "roughness_ratio",
    "sample_bed",
    "score",
    "score_ensemble",
    "spectra",
    "speed_at",
    "variogram_along",
    "verdict_on_prior",
    "verdict_on_training",
    "with_lines",
]
