"""The base of all intake drivers: a file of a repository, and the status of its dataset.

Superseded and retired datasets are read with a warning that names their successor;
withdrawn datasets are refused. Each ``read()`` returns new data: nothing is cached.

intake 2.0.9 treats every text parameter as a shell command, and warns that it does not run
it. None of our parameters is therefore text: ``season`` and ``engine`` are lists, and text
from a user (``source(season="2011_*")``) is put into a list before intake sees it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from intake.source.base import DataSource

from deepbedmap import registry as registries
from deepbedmap.catalog.repositories import (
    RepositoryFile,
    mirror_file,
    refuse_local_files,
)
from deepbedmap.places import checked_bounds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from deepbedmap.places import Bounds
    from deepbedmap.registry.records import Dataset

logger = logging.getLogger(__name__)


class RepositorySource(DataSource):  # type: ignore[misc]  # intake publishes no types
    """A file ``<root>/<folder>/<name>`` of a repository, whose registry is that of the root."""

    version = "1"
    partition_access = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        bounds: Sequence[float] | None,
        fetch: bool,
        metadata: dict[str, Any] | None,
    ) -> None:
        super().__init__(metadata=metadata)
        self._given = os.fspath(path)
        self._bounds = optional_bounds(bounds)
        self._fetch = fetch

    def configure_new(self, **parameters: Any) -> Any:
        """Return this source with other parameters; None stands for a parameter's default.

        intake writes parameters as text and reads them again, which None and numpy's numbers do
        not survive, and which makes letters of a text where a list is declared.
        """
        declared = self.describe()["user_parameters"] if self._entry is not None else []
        for parameter in declared:
            name = parameter["name"]
            if name not in parameters:
                continue
            if parameters[name] is None:
                parameters[name] = parameter.get("default")
            elif name in ("bounds", "region"):
                parameters[name] = list(optional_bounds(parameters[name], name) or ())
            elif parameter["type"] == "list" and isinstance(parameters[name], str):
                parameters[name] = [parameters[name]]
        return super().configure_new(**parameters)

    __call__ = get = configure_new

    def _find(self) -> RepositoryFile:
        """Find the file in its repository, and the dataset it belongs to; heed its status."""
        # A catalog names its files by way of its own folder: catalog/../highres/...
        remote = "://" in self._given
        if remote:
            path = mirror_file(self._given)
        else:
            path = Path(os.path.normpath(Path(self._given).absolute()))
        listing = path.parent.parent / "data_list.yml"
        if not listing.is_file():
            return RepositoryFile(path)
        registry = registries.load(listing)
        if remote:
            refuse_local_files(registry, self._given)
        folder = path.parent.name
        for dataset in registry:
            names = [*dataset.pipelines] if folder == "highres" else []
            if dataset.folder == folder:
                names += [
                    file.filename if file.members is not None else file.name
                    for file in dataset.files
                ]
            if path.name in names:
                _check_status(dataset, listing)
                return RepositoryFile(path, registry, dataset)
        return RepositoryFile(path)

    def _get_partition(self, _: int) -> Any:
        return self.read()

    def _close(self) -> None:
        """Do nothing: nothing is kept open."""


def _check_status(dataset: Dataset, listing: Path) -> None:
    if dataset.status in ("superseded", "retired"):
        successor = f"; {dataset.superseded_by} replaces it" if dataset.superseded_by else ""
        logger.warning("%s is %s%s", dataset.citekey, dataset.status, successor)
    elif dataset.status == "withdrawn":
        from deepbedmap import download

        download.refuse_withdrawn(dataset, listing)


def optional_bounds(bounds: Sequence[float] | None, name: str = "bounds") -> Bounds | None:
    """Return a box, once it is checked; None of None and of intake's empty list."""
    if bounds is None or (isinstance(bounds, list) and not bounds):
        return None
    return checked_bounds(bounds, name)
