"""An excerpt of a survey that can be published as a test fixture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deepbedmap.contribution.columns import MEASURED
from deepbedmap.contribution.table import NUMBER, split
from deepbedmap.files.checksums import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepbedmap.contribution.sample import Sample


@dataclass(frozen=True)
class SurveyContents:
    """The results of one pass through a whole file.

    Attributes
    ----------
    size
        Size of the file in bytes.
    sha256
        Checksum of the file.
    records
        Number of records.
    heading
        Lines before the first record.
    excerpt
        Some 14 to 28 records, evenly spread over the file.
    """

    size: int
    sha256: str
    records: int
    heading: list[bytes]
    excerpt: list[bytes]

    @classmethod
    def of(cls, sample: Sample) -> SurveyContents:
        """Read the whole file of a sample once."""
        checksum, size, records = Checksum(), 0, 0
        heading: list[bytes] = []
        complete, partial = _Spread(12), _Spread(2)
        is_complete = _completeness_test(sample)
        with sample.table.path.open("rb") as file:
            for number, line in enumerate(file):
                checksum.update(line)
                size += len(line)
                if number < sample.table.skip:
                    heading.append(line)
                elif not line.isspace():
                    records += 1
                    ended = line if line.endswith(b"\n") else line + b"\n"
                    (complete if is_complete(line) else partial).add(records, ended)
        excerpt = sorted((*complete.kept, *partial.kept))
        return cls(size, checksum.sha256, records, heading, [line for _, line in excerpt])


class _Spread:
    """Keep between n and 2n lines, evenly spread over all lines that were added."""

    def __init__(self, number: int) -> None:
        self.kept: list[tuple[int, bytes]] = []
        self._number, self._step, self._seen = number, 1, 0

    def add(self, place: int, line: bytes) -> None:
        if self._seen % self._step == 0:
            self.kept.append((place, line))
        self._seen += 1
        if len(self.kept) == 2 * self._number:
            self.kept = self.kept[::2]
            self._step *= 2


def _completeness_test(sample: Sample) -> Callable[[bytes], bool]:
    """Return a function that tests whether a record has all values of a pick."""
    required = [
        (
            sample.table.columns.index(sample.roles[role]),
            {*sample.missing.get(sample.roles[role], ())},
        )
        for role in MEASURED
        if role in sample.roles
    ]

    def is_complete(line: bytes) -> bool:
        row = split(line.decode(errors="replace").rstrip("\r\n"), sample.table.separator)
        if len(row) != len(sample.table.columns):
            return False
        for number, marks in required:
            field = row[number]
            if not NUMBER.fullmatch(field) or float(field) in marks:
                return False
            if sample.table.columns[number] == sample.positive and float(field) <= 0:
                return False
        return True

    return is_complete


def truncate_numbers(line: bytes) -> bytes:
    r"""Truncate numbers to two significant digits, except 9999 and the like, which mark gaps.

    Examples
    --------
    >>> truncate_numbers(b"-87.521210,1234.5,0.0123,-9999,L7\n")
    b'-87.000000,1200.0,0.0120,-9999,L7\n'
    """

    def truncated(number: re.Match[bytes]) -> bytes:
        text = number[0]
        if re.fullmatch(rb"9{3,}(\.0*)?|32768(\.0*)?", text):
            return text
        significant, digits = 0, b""
        for digit in text:
            is_digit = chr(digit).isdigit()
            digits += b"0" if is_digit and significant >= 2 else bytes([digit])
            significant += is_digit and (significant > 0 or digit != ord("0"))
        return digits

    return re.sub(rb"(?<![\w.])\d+(\.\d*)?(?![\w.])", truncated, line)
