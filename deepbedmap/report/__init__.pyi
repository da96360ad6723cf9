from .evaluation_figures import Figure as Figure
from .evaluation_figures import draw_evaluation as draw_evaluation
from .writing import report_evaluation as report_evaluation
from .writing import require_place as require_place
from .writing import write_report as write_report

__all__ = [
    "Figure",
    "draw_evaluation",
    "report_evaluation",
    "require_place",
    "write_report",
]
