from .discriminator import NETWORKS as NETWORKS
from .discriminator import Discriminator as Discriminator
from .flow_aligned import NORMALISATION as NORMALISATION
from .flow_aligned import FlowAlignedGenerator as FlowAlignedGenerator
from .generator import Generator as Generator
from .interpolation import bicubic as bicubic
from .turns import TURNS as TURNS
from .turns import augment as augment

__all__ = [
    "NETWORKS",
    "NORMALISATION",
    "TURNS",
    "Discriminator",
    "FlowAlignedGenerator",
    "Generator",
    "augment",
    "bicubic",
]
