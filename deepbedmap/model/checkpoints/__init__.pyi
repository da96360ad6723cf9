from .chainer import load_chainer_npz as load_chainer_npz
from .container import write_document as write_document
from .saving import Checkpoint as Checkpoint
from .saving import describe as describe
from .saving import load as load
from .saving import save as save
from .states import State as State
from .states import fill as fill
from .states import load_state as load_state
from .states import save_state as save_state

__all__ = [
    "Checkpoint",
    "State",
    "describe",
    "fill",
    "load",
    "load_chainer_npz",
    "load_state",
    "save",
    "save_state",
    "write_document",
]
