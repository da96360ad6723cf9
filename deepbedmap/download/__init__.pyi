from .checking import Checked as Checked
from .checking import CheckState as CheckState
from .checking import verify as verify
from .choosing import locate as locate
from .choosing import refuse_withdrawn as refuse_withdrawn
from .fetching import fetch as fetch
from .planning import Planned as Planned
from .planning import State as State
from .planning import amount as amount
from .planning import plan as plan

__all__ = [
    "CheckState",
    "Checked",
    "Planned",
    "State",
    "amount",
    "fetch",
    "locate",
    "plan",
    "refuse_withdrawn",
    "verify",
]
