from .documents import Document as Document
from .documents import Place as Place
from .documents import load as load
from .documents import read_text as read_text
from .json_schema import faults as faults
from .json_schema import validate as validate
from .json_schema import validate_file as validate_file

__all__ = [
    "Document",
    "Place",
    "faults",
    "load",
    "read_text",
    "validate",
    "validate_file",
]
