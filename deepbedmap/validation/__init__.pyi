from .repository import KINDS as KINDS
from .repository import check as check
from .repository import find_files as find_files
from .tables import grid_faults as grid_faults
from .tables import pandera_schema as pandera_schema
from .tables import row_faults as row_faults
from .tables import schema_faults as schema_faults
from .tables import table_faults as table_faults
from .text_tables import check_csv as check_csv

__all__ = [
    "KINDS",
    "check",
    "check_csv",
    "find_files",
    "grid_faults",
    "pandera_schema",
    "row_faults",
    "schema_faults",
    "table_faults",
]
