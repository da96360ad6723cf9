from .columns import HIGHEST as HIGHEST
from .columns import Doubt as Doubt
from .contributing import FIXTURES as FIXTURES
from .contributing import SURVEY_TYPES as SURVEY_TYPES
from .contributing import contribute as contribute
from .sample import Sample as Sample
from .sample import inspect as inspect
from .table import Table as Table
from .words import VERTICAL_DATUMS as VERTICAL_DATUMS
from .words import datum_of as datum_of
from .words import doi_of as doi_of
from .words import licence_of as licence_of

__all__ = [
    "FIXTURES",
    "HIGHEST",
    "SURVEY_TYPES",
    "VERTICAL_DATUMS",
    "Doubt",
    "Sample",
    "Table",
    "contribute",
    "datum_of",
    "doi_of",
    "inspect",
    "licence_of",
]
