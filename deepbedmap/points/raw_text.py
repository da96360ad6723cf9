"""The raw text of a survey: a file's layout, its blocks of records, its columns and its faults."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import IO

    import numpy.typing as npt

    from deepbedmap.files.checksums import Checksum
    from deepbedmap.points.pipelines import Columns, Layout, Recipe

BLOCK = 2**22
"""Bytes of a raw file that are parsed and projected together."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MISSING = ("", "*")
_NO_TEXT = ("-9999", "-9999.0")
_NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|nan|inf|infinity)", re.IGNORECASE
)


class Texts(NamedTuple):
    """A column of text: each record's index into the distinct texts, -1 where it is missing."""

    codes: npt.NDArray[np.int32]
    distinct: pd.Index[str]

    def of(self, records: npt.NDArray[np.bool_]) -> Texts:
        """Return the texts of some records, numbered in order of appearance among them."""
        codes, present = pd.factorize(self.codes[records], use_na_sentinel=False)
        has_text = present >= 0
        new_codes = np.where(has_text, np.cumsum(has_text) - 1, -1).astype(np.int32)
        return Texts(new_codes[codes], self.distinct.take(present[has_text]))

    def without(self, missing: npt.NDArray[np.bool_]) -> Texts:
        """Return the column with some of its distinct texts as missing values."""
        if not missing.any():
            return self
        new_codes = np.where(missing, -1, np.cumsum(~missing) - 1)
        codes = np.append(new_codes, -1)[self.codes].astype(np.int32)
        return Texts(codes, self.distinct[~missing])


class UnreadableError(Exception):
    """A block cannot be parsed; :meth:`RawFile.unreadable` finds the line at fault."""


@dataclass(frozen=True)
class RawFile:
    """A raw file, the layout of its columns and the metadata in its comment lines.

    ``numbers`` are the columns read as numbers, ``texts`` those read as text; no other is read.
    """

    path: Path
    layout: Layout
    metadata: dict[str, str]
    numbers: frozenset[str]
    texts: frozenset[str]

    @classmethod
    def open(cls, path: Path, recipe: Recipe, standard: bool) -> RawFile:
        """Read the layout of a file from its first lines.

        ``standard``: the file must name its columns as the pipeline does, as a Bedmap standard CSV
        does; any other file may have a header of its own.
        """
        if all(not line or line.isspace() for line in _lines_of(path)):
            raise _invalid(path, 1, found="an empty file", remedy="fetch the file again")
        comments, header = _leading_lines(path)
        layout = _layout_by_name(path, comments, header, recipe)
        if layout is None and standard:
            raise _invalid(
                path,
                line=len(comments) + 1,
                expected=f"a Bedmap standard CSV, with the columns {recipe.reader['header']}",
                found=excerpt(header),
                remedy="write a pipeline for it, as `deepbedmap new` does",
            )
        heading = list(islice(_lines_of(path), layout.skip if layout else recipe.skip))
        _check_length(path, heading, layout.skip if layout else recipe.skip)
        if layout is None:
            last = heading[-1].decode(errors="replace") if len(heading) == recipe.skip > 0 else ""
            layout = _layout_by_position(path, last.rstrip("\n"), recipe)
        numbers = recipe.columns_used() & {*layout.names}
        texts = {layout.line}
        if quality := layout.named("QUALITY"):
            numbers.add(quality)
        if layout.day_and_clock:
            day, clock = layout.day_and_clock
            texts |= {day, clock}
            if day == layout.named("FRAME"):
                numbers.add(clock)
        wanted = {name for name in texts if name} - numbers
        return cls(path, layout, _metadata_of(comments), frozenset(numbers), frozenset(wanted))

    def blocks(
        self, checksum: Checksum, advance: Callable[[int], None] = lambda _: None
    ) -> Iterator[bytes]:
        """Yield the records in blocks of whole lines.

        All bytes of the file, header included, go into the checksum, and their number to
        ``advance``.
        """
        with _open(self.path) as stream:
            for _ in range(self.layout.skip):
                line = stream.readline()
                checksum.update(line)
                advance(len(line))
            mark = b"" if self.layout.skip else _BYTE_ORDER_MARK
            while block := stream.read(BLOCK):
                if not block.endswith(b"\n"):
                    block += stream.readline()
                checksum.update(block)
                advance(len(block))
                yield block.removeprefix(mark)
                mark = b""

    def parse(self, block: bytes) -> tuple[int, Columns, dict[str, Texts]]:
        """Return the number of records in a block, their numbers and their texts."""
        _ = block.isascii() or block.decode()  # raises UnicodeDecodeError
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
        block = _squeezed(block, self.layout.separator.encode())
        types = dict.fromkeys(self.numbers, pa.float64())
        types |= dict.fromkeys(self.texts, pa.dictionary(pa.int32(), pa.string()))
        if not block or block.isspace():
            table = pa.schema(types.items()).empty_table()
        else:
            table = self._parsed(block, types)
        numbers = {name: table[name].to_numpy() for name in self.numbers}
        if any(np.isinf(column).any() for column in numbers.values()):
            raise UnreadableError("an infinite number")
        return len(table), numbers, {name: _texts(table[name]) for name in self.texts}

    def _parsed(self, block: bytes, types: dict[str, pa.DataType]) -> pa.Table:
        try:
            return pyarrow.csv.read_csv(
                pa.py_buffer(block),
                pyarrow.csv.ReadOptions(
                    column_names=self.layout.names, use_threads=False, block_size=len(block) + 1
                ),
                pyarrow.csv.ParseOptions(delimiter=self.layout.separator, quote_char=False),
                pyarrow.csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=_MISSING,
                    strings_can_be_null=True,
                ),
            )
        except pa.ArrowInvalid as error:
            raise UnreadableError(str(error)) from None

    def record(self, number: int) -> tuple[int, str]:
        """Return line number and text of a record, counted from 0."""
        return next(islice(self._numbered_records(), number, None))

    def _numbered_records(self) -> Iterator[tuple[int, str]]:
        """Yield line numbers and records; slow, and used only for messages."""
        skip = self.layout.skip
        blank = "\n\t " if self.layout.separator == " " else "\n "
        for number, line in enumerate(islice(_lines_of(self.path), skip, None), skip + 1):
            text = line.decode(errors="replace")
            if text.strip(blank):
                yield number, text.rstrip("\n")

    def undecodable(self) -> InvalidDataError:
        """Return the error that names the first line that is not text."""
        skip = self.layout.skip
        for number, line in enumerate(islice(_lines_of(self.path), skip, None), skip + 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return _invalid(
                    self.path,
                    line=number,
                    expected="text in UTF-8",
                    found=f"the byte 0x{line[error.start]:02x}",
                    remedy="fetch the file again",
                )
        return _invalid(self.path, expected="text in UTF-8", remedy="fetch the file again")

    def unreadable(self, error: UnreadableError) -> InvalidDataError:
        """Return the error that names the first record that cannot be read."""
        for number, line in self._numbered_records():
            fields = self.layout.split(line)
            if len(fields) != len(self.layout.names):
                return InvalidDataError(_miscounted(self.path, number, line, self.layout))
            for name, text in zip(self.layout.names, fields, strict=True):
                if name not in self.numbers or text in _MISSING:
                    continue
                place = Fault(str(self.path), line=number, field=name)
                if not _NUMBER.fullmatch(text):
                    expected = "a number, or nan, * or nothing for a missing value"
                    return InvalidDataError(replace(place, expected=expected, found=repr(text)))
                if math.isinf(float(text)):
                    found = str(float(text))
                    return InvalidDataError(replace(place, expected="a finite number", found=found))
        return _invalid(self.path, expected=str(self.layout), found=str(error))


def excerpt(line: str) -> str:
    """Return a line in quotes, shortened if it is long."""
    return repr(line) if len(line) <= 80 else f"{line[:80]!r}..."


def texts_of_numbers(column: npt.NDArray[np.float64]) -> Texts:
    """Return whole numbers as texts of digits."""
    codes, numbers = pd.factorize(column.round())
    values = pd.Index([f"{number:.0f}" for number in numbers], dtype="str")
    return Texts(codes.astype(np.int32), values).without(values.isin(_NO_TEXT))


def _texts(column: pa.ChunkedArray) -> Texts:
    column = column.combine_chunks()
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    values = pd.Index(column.dictionary.to_pylist(), dtype="str")
    return Texts(codes, values).without(values.isin(_NO_TEXT))


def _squeezed(records: bytes, separator: bytes) -> bytes:
    """Return records without spaces next to separators, and with runs of white space as one."""
    if separator == b" ":
        records = records.replace(b"\t", b" ")
    if b" " not in records:
        return records
    while b"  " in records:
        records = records.replace(b"  ", b" ")
    for mark in {separator, b"\n"} - {b" "}:
        records = records.replace(b" " + mark, mark).replace(mark + b" ", mark)
    return records.strip(b" ")


def _open(file: Path) -> IO[bytes]:
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise MissingDataError(f"{file}: there is no such file") from None


def _lines_of(file: Path) -> Iterator[bytes]:
    r"""Yield the lines of a raw file, without a byte order mark, ended by ``\n``."""
    with _open(file) as stream:
        for number, line in enumerate(stream):
            text = line.replace(b"\r\n", b"\n")
            yield text if number else text.removeprefix(_BYTE_ORDER_MARK)


def _invalid(file: Path, line: int | None = None, **details: str) -> InvalidDataError:
    return InvalidDataError(Fault(str(file), line=line, **details))


def _leading_lines(file: Path) -> tuple[list[str], str]:
    """Return the comment lines at the beginning of a file, and the line after them."""
    comments: list[str] = []
    for line in _lines_of(file):
        text = line.decode(errors="replace").rstrip("\n")
        if not text.startswith("#"):
            return comments, text
        comments.append(text)
    return comments, ""


def _metadata_of(comments: list[str]) -> dict[str, str]:
    """Return the pairs of ``#key: value``, limited in number and length for provenance."""
    pairs = (comment[1:].partition(":") for comment in comments[:50])
    return {key.strip()[:80]: value.strip()[:400] for key, _, value in pairs if value.strip()}


def _check_length(file: Path, heading: list[bytes], skip: int) -> None:
    ends = len(heading) + (bool(heading) and heading[-1].endswith(b"\n"))
    if ends < skip:
        raise _invalid(
            file,
            line=ends,
            expected=f"{skip} lines before the first record",
            found="the end of the file",
            remedy="fetch the file again, or correct skip in the pipeline",
        )


def _column_name(text: str) -> str:
    """Return the column name of a file's own header: without unit, in letters, digits and ``_``.

    Examples
    --------
    >>> _column_name("land_ice_thickness (m)")
    'land_ice_thickness'
    """
    return re.sub(r"[^A-Za-z0-9]+", "_", re.sub(r"\([^)]*\)", "", text)).strip("_")


def _layout_by_name(file: Path, comments: list[str], header: str, recipe: Recipe) -> Layout | None:
    """Return the layout of a file whose header has the pipeline's names; None for other files."""
    own = recipe.own_layout
    if own is None:
        return None
    needed = recipe.columns_used() & {*own.names}
    # A header with X, Y or Z in it was written for the pipeline: no file names its columns so.
    renamed = not needed.isdisjoint("XYZ")
    if not comments and (renamed or recipe.skip == 1):
        return None
    own_names = {name.upper(): name for name in own.names}
    texts = own.split(header)
    names = [own_names.get(_column_name(text).upper()) for text in texts]
    shared = {name for name in names if name}
    if not shared or len(shared) < len(names) - names.count(None):
        return None
    if missing := sorted(needed - shared):
        if renamed or not comments:
            return None
        raise _invalid(
            file,
            line=len(comments) + 1,
            expected=f"a column {' and a column '.join(missing)}",
            found=", ".join(texts),
            remedy="fetch the file again, or write a pipeline for it",
        )
    # Columns that the pipeline does not name keep their position under a name in parentheses.
    positions = (name or f"({text})" for name, text in zip(names, texts, strict=True))
    return replace(own, names=tuple(positions), skip=len(comments) + 1)


def _layout_by_position(file: Path, header: str, recipe: Recipe) -> Layout:
    """Return the pipeline's layout or, if it has no header, that of the last line it skips."""
    own = recipe.own_layout
    if own is None:
        return recipe.layout(header, Fault(str(file), line=recipe.skip))
    if recipe.skip == 1 and own.separator != " ":
        _check_header(file, header, own)
    return own


def _check_header(file: Path, header: str, layout: Layout) -> None:
    """Refuse a file whose header, a single line, has another number of columns."""
    # Titles are often separated otherwise than the records, or end with a separator.
    counts = {len(layout.split(text)) for text in (header, header.rstrip(layout.separator + " "))}
    if counts.isdisjoint({1, len(layout.names)}):
        raise InvalidDataError(_miscounted(file, 1, header, layout))


def _miscounted(file: Path, number: int, line: str, layout: Layout) -> Fault:
    count = len(layout.split(line))
    return Fault(
        str(file),
        line=number,
        expected=str(layout),
        found=f"{count} field{'s' * (count != 1)}: {excerpt(line)}",
        remedy="fetch the file again, or correct separator and header in the pipeline",
    )
