from .assembling import assemble as assemble
from .assembling import placed as placed
from .assembling import spread_of as spread_of
from .assembling import thickness_of as thickness_of
from .attributes import MASK as MASK
from .attributes import QUALITY as QUALITY
from .attributes import REFERENCES as REFERENCES
from .attributes import SOURCE as SOURCE
from .attributes import UNKNOWN as UNKNOWN
from .check_report import Finding as Finding
from .check_report import Limits as Limits
from .check_report import Report as Report
from .checking import check as check
from .correction import correct as correct
from .grounding import blend as blend
from .grounding import cut_at_grounding_line as cut_at_grounding_line
from .rules import CHECKS as CHECKS
from .rules import Policy as Policy
from .rules import policies_of as policies_of
from .storing import Progress as Progress
from .storing import open_product as open_product
from .storing import write as write

__all__ = [
    "CHECKS",
    "MASK",
    "QUALITY",
    "REFERENCES",
    "SOURCE",
    "UNKNOWN",
    "Finding",
    "Limits",
    "Policy",
    "Progress",
    "Report",
    "assemble",
    "blend",
    "check",
    "correct",
    "cut_at_grounding_line",
    "open_product",
    "placed",
    "policies_of",
    "spread_of",
    "thickness_of",
    "write",
]
