from .combining import deduplicate as deduplicate
from .combining import join_surveys as join_surveys
from .combining import without_overlaps as without_overlaps
from .reading import check_pipeline as check_pipeline
from .reading import read_points as read_points
from .storing import cross_surveys as cross_surveys
from .storing import store_picks as store_picks
from .survey import STANDARD_CSV as STANDARD_CSV
from .survey import Engine as Engine
from .writing import Written as Written
from .writing import to_geodataframe as to_geodataframe
from .writing import write_points as write_points
from .writing import write_survey as write_survey

__all__ = [
    "STANDARD_CSV",
    "Engine",
    "Written",
    "check_pipeline",
    "cross_surveys",
    "deduplicate",
    "join_surveys",
    "read_points",
    "store_picks",
    "to_geodataframe",
    "without_overlaps",
    "write_points",
    "write_survey",
]
