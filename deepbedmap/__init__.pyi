from .catalog.building import bundled as open_catalog

__version__: str

__all__ = [
    "open_catalog",
]
