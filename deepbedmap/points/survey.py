"""A survey: a pipeline, its raw files and its entry in the registry.

The native engine runs the pipeline with pyarrow, numpy and pyproj; the engine ``"pdal"``
passes it to PDAL (https://pdal.io).
"""

from __future__ import annotations

import fnmatch
import json
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyproj

from deepbedmap import registry, repository
from deepbedmap.errors import (
    Fault,
    InvalidDataError,
    MissingDataError,
    WrongCallError,
    did_you_mean,
)
from deepbedmap.extras import required_extra
from deepbedmap.places import checked_bounds
from deepbedmap.points import raw_text
from deepbedmap.points.picks import FilePicks
from deepbedmap.points.pipelines import Recipe
from deepbedmap.points.raw_text import RawFile, UnreadableError
from deepbedmap.points.records import Records
from deepbedmap.repository import data_dir

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from typing import Any

    from deepbedmap.places import Bounds
    from deepbedmap.points.picks import Settled
    from deepbedmap.points.pipelines import Columns
    from deepbedmap.registry.records import Dataset

logger = logging.getLogger(__name__)

Engine = Literal["native", "pdal"]
Progress = Callable[[int, int], None]
STANDARD_CSV = "bedmap3.json"
"""Pipeline that reads a Bedmap standard CSV which is named by itself."""


@dataclass
class Survey:
    """Raw files of a pipeline, and how they are read."""

    recipe: Recipe
    dataset: Dataset | None
    crs: str | None
    box: Bounds | None
    raws: list[RawFile]
    engine: Engine
    files: list[FilePicks]

    @classmethod
    def find(
        cls,
        pipeline: str | os.PathLike[str],
        engine: Engine,
        season: str | Iterable[str] | None,
        bounds: Sequence[float] | None,
    ) -> Survey:
        """Find the raw files of a pipeline or standard CSV file, limited to seasons and bounds."""
        if engine not in ("native", "pdal"):
            raise WrongCallError(f"engine is 'native' or 'pdal', not {engine!r}")
        standard = Path(pipeline).suffix.lower() == ".csv"
        if standard and season is not None:
            raise WrongCallError(
                f"a season is one of a pipeline's files, and {pipeline} is no pipeline"
            )
        recipe = Recipe.load(_find_pipeline(STANDARD_CSV if standard else pipeline))
        dataset = _dataset_of_file(Path(pipeline)) if standard else _dataset_of(recipe.path)
        crs = recipe.crs or (dataset.crs if dataset else None)
        box = None if bounds is None else _box(bounds, crs)
        wanted = None if season is None else [season] if isinstance(season, str) else list(season)
        files = [Path(pipeline)] if standard else _find_files(recipe, dataset, wanted)
        raws = [RawFile.open(file, recipe, standard) for file in files]
        return cls(recipe, dataset, crs, box, raws, engine, [])

    @property
    def columns(self) -> set[str]:
        """Names of the columns of the table, by the native engine."""
        layouts = [raw.layout for raw in self.raws]
        columns = {"x", "y", "z", "line"}
        columns |= {"quality"} if any(layout.named("QUALITY") for layout in layouts) else set()
        columns |= {"time"} if any(layout.day_and_clock for layout in layouts) else set()
        return columns | ({"bed_inferred"} if self.recipe.inferred else set())

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the table, once all files are read."""
        return {
            "crs": self.crs,
            "vertical_datum": self.dataset.vertical_datum if self.dataset else None,
            "sources": [
                {
                    "file": file.raw.path.name,
                    "sha256": file.checksum.sha256,
                    "pipeline": self.recipe.path.name,
                    "pipeline_sha256": self.recipe.sha256,
                    "citekey": self.dataset.citekey if self.dataset else None,
                    **({"header": file.raw.metadata} if file.raw.metadata else {}),
                }
                for file in self.files
            ],
        }

    def settle(self, raw: RawFile) -> Settled:
        """Read a whole file for what its records decide together."""
        alone = replace(self, raws=[raw])
        for file, records in alone.run():
            if records is not None:
                file.add(records)
        return alone.files[0].settled

    def run(self, progress: Progress | None = None) -> Iterator[tuple[FilePicks, Records | None]]:
        """Records of all files in order, and None at the end of each."""
        polar = _is_polar(self.crs)
        native = self.engine == "native"
        self.files = [FilePicks(raw, self.recipe, polar, self.box, native) for raw in self.raws]
        total, done = sum(raw.path.stat().st_size for raw in self.raws), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        def blocks() -> Iterator[tuple[FilePicks, bytes | None]]:
            for file in self.files:
                for block in file.raw.blocks(file.checksum, advance):
                    yield file, block
                yield file, None

        def work(file: FilePicks, block: bytes) -> Records:
            try:
                count, numbers, texts = file.raw.parse(block)
            except UnicodeDecodeError:
                raise file.raw.undecodable() from None
            except UnreadableError as error:
                raise file.raw.unreadable(error) from None
            kept = self.recipe.run(numbers, count)
            return Records.of(numbers, texts, kept, file.raw, self.recipe, polar)

        if native:
            threads = pa.cpu_count() if total > raw_text.BLOCK else 0
            yield from _in_order(work, blocks(), threads)
        else:
            for file, block in blocks():
                if block is None:
                    numbers = _run_pdal(file.raw, self.recipe)
                    kept = np.ones(len(numbers["X"]), dtype=bool)
                    yield file, Records.of(numbers, {}, kept, file.raw, self.recipe, polar)
                    yield file, None
        if not any(file.count for file in self.files):
            raise InvalidDataError(
                Fault(
                    ", ".join(str(raw.path) for raw in self.raws),
                    expected=f"at least one record that {self.recipe.path.name} keeps",
                    found="no picks",
                )
            )


def _in_order(
    work: Callable[[FilePicks, bytes], Records],
    blocks: Iterator[tuple[FilePicks, bytes | None]],
    threads: int,
) -> Iterator[tuple[FilePicks, Records | None]]:
    """Records of blocks in order, by some threads, each with one block in memory."""
    if not threads:  # not worth one, and a projection for it
        yield from ((file, None if block is None else work(file, block)) for file, block in blocks)
        return
    running: deque[tuple[FilePicks, Future[Records] | None]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for file, block in blocks:
            running.append((file, None if block is None else pool.submit(work, file, block)))
            del block
            while len(running) > threads:
                first, future = running.popleft()
                yield first, None if future is None else future.result()
        for first, future in running:
            yield first, None if future is None else future.result()


def _find_pipeline(pipeline: str | os.PathLike[str]) -> Path:
    path = Path(pipeline)
    if path.is_file():
        return path
    folder = repository.root() / "highres"
    if path.name == str(path):
        bundled = folder / (path.name if path.suffix == ".json" else f"{path.name}.json")
        if bundled.is_file():
            return bundled
    names = ", ".join(sorted(known.stem for known in folder.glob("*.json")))
    raise MissingDataError(f"{path}: no such pipeline; give its path, or one of {names}")


def _dataset_of(pipeline: Path) -> Dataset | None:
    """Entry of a pipeline in the registry that lies beside the pipeline's folder."""
    listing = pipeline.absolute().parent.parent / "data_list.yml"
    return registry.load(listing).for_pipeline(pipeline.name) if listing.is_file() else None


def _dataset_of_file(path: Path) -> Dataset | None:
    """Entry of a raw file in the registry beside its folder or, without one, in the package's."""
    listing = path.absolute().parent.parent / "data_list.yml"
    return next(
        (
            dataset
            for dataset in registry.load(listing if listing.is_file() else None)
            for file in dataset.files
            if path.name == file.name or fnmatch.fnmatchcase(path.name, file.members or "")
        ),
        None,
    )


def _box(bounds: Sequence[float], crs: str | None) -> Bounds:
    xmin, ymin, xmax, ymax = box = checked_bounds(bounds)
    if _is_polar(crs) and max(map(abs, (xmin, xmax))) <= 360 and max(map(abs, (ymin, ymax))) <= 90:
        raise WrongCallError(f"bounds: expected metres in EPSG:3031, found degrees {tuple(bounds)}")
    return box


def _is_polar(crs: str | None) -> bool:
    return crs is not None and pyproj.CRS(crs).to_epsg() == 3031


def _find_files(
    recipe: Recipe, dataset: Dataset | None, wanted: Sequence[str] | None
) -> list[Path]:
    pattern = recipe.reader["filename"]
    listed = [file.name for file in dataset.files] if dataset else []
    listed = fnmatch.filter(listed, pattern)
    folders = dict.fromkeys((recipe.path.absolute().parent, data_dir() / "highres"))
    files: list[Path] = []
    for folder in folders:
        path = folder / pattern
        if files := sorted(path.parent.glob(path.name)):
            break
    if wanted is not None:
        known = sorted({*listed, *(file.name for file in files)})
        chosen = [name for name in known if is_of_season(name, wanted)]
        if known and not chosen:
            raise InvalidDataError(
                Fault(
                    str(recipe.path),
                    field="season",
                    expected=f"the name, the stem or a glob of {_few(known)}",
                    found=" ".join(map(repr, wanted)),
                    remedy=did_you_mean(" ".join(wanted), [Path(name).stem for name in known]),
                )
            )
        listed = [name for name in listed if name in chosen]
        files = [file for file in files if file.name in chosen]
    if files:
        if absent := sorted(set(listed) - {file.name for file in files}):
            logger.warning("%s is read without %s", recipe.path, _few(absent))
        return files
    how = "put it there"
    if dataset is None:
        dataset = _dataset_of(repository.root() / "highres" / recipe.path.name)
    if dataset is not None:
        how = _how_to_get(dataset, pattern, wanted)
    places = " or ".join(map(str, folders))
    sought = _few(listed) if wanted is not None and listed else pattern
    raise MissingDataError(f"{recipe.path}: there is no {sought} in {places}; {how}")


def is_of_season(name: str, wanted: Sequence[str]) -> bool:
    """Whether a raw file is one of some seasons: its name, its stem, or a glob of either."""
    stem = Path(name).stem
    return any(
        fnmatch.fnmatchcase(name, style) or fnmatch.fnmatchcase(stem, style) for style in wanted
    )


def _few(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _how_to_get(dataset: Dataset, pattern: str, wanted: Sequence[str] | None) -> str:
    """Say which command, or which person, gets the files of a pipeline, or those wanted alone."""
    files = [
        file
        for file in dataset.files
        if fnmatch.fnmatchcase(file.name, pattern)
        and (wanted is None or is_of_season(file.name, wanted))
    ]
    if wanted and files and all(file.urls and file.access != "manual" for file in files):
        names = " ".join(file.filename for file in files)
        return f"`deepbedmap fetch {names}` gets {'it' if len(files) == 1 else 'them'}"
    if not files and any(file.members for file in dataset.files):
        return dataset.how_to_get()
    return dataset.how_to_get(*([file.name for file in files] or [pattern]))


def _run_pdal(raw: RawFile, recipe: Recipe) -> Columns:
    """Columns of the records that PDAL keeps, all numbers, without those that it had as text."""
    with required_extra("pdal"):
        import pdal
    layout, own = raw.layout, recipe.own_layout
    if own and not own.fits(layout):
        raise InvalidDataError(
            Fault(
                str(raw.path),
                line=layout.skip,
                expected=f"for engine 'pdal' {own.skip} lines, and then {own}",
                found=f"{layout.skip} lines, and then {layout}",
                remedy="use engine 'native', which goes by the names of the columns",
            )
        )
    stages = [{**recipe.reader, "filename": str(raw.path.absolute())}, *recipe.filters]
    pipeline = pdal.Pipeline(json.dumps(stages))
    try:
        pipeline.execute()
    except RuntimeError as error:
        found = f"an error of PDAL's: {error}"
        raise InvalidDataError(Fault(str(raw.path), found=found)) from error
    records = np.concatenate(pipeline.arrays)
    columns = {name: records[name].astype(np.float64) for name in records.dtype.names or ()}
    for name in (layout.line, *(layout.day_and_clock or ())):
        if name in columns and not columns[name].any():
            del columns[name]
    return columns
