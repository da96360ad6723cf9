from .running import app as app
from .running import main as main

__all__ = [
    "app",
    "main",
]
