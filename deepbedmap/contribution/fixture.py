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
    """What one passage through a whole file gives."""

    size: int
    sha256: str
    records: int
    heading: list[bytes]
    excerpt: list[bytes]

    @classmethod
    def of(cls, sample: Sample) -> SurveyContents:
        """Read a whole file once, for its size (bytes), SHA-256, number of records and excerpt."""
        checksum, size, records = Checksum(), 0, 0
        heading: list[bytes] = []
        whole, partial = _Spread(12), _Spread(2)
        is_whole = _completeness(sample)
        with sample.table.path.open("rb") as file:
            for number, line in enumerate(file):
                checksum.update(line)
                size += len(line)
                if number < sample.table.skip:
                    heading.append(line)
                elif not line.isspace():
                    records += 1
                    ended = line if line.endswith(b"\n") else line + b"\n"
                    (whole if is_whole(line) else partial).add(records, ended)
        excerpt = sorted((*whole.kept, *partial.kept))
        return cls(size, checksum.sha256, records, heading, [line for _, line in excerpt])


class _Spread:
    """Keeps a number of lines, up to twice that, evenly spread over all that were added."""

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


def _completeness(sample: Sample) -> Callable[[bytes], bool]:
    """Tell which records have all of a pick."""
    wanted = [
        (
            sample.table.columns.index(sample.roles[role]),
            {*sample.missing.get(sample.roles[role], ())},
        )
        for role in MEASURED
        if role in sample.roles
    ]

    def is_whole(line: bytes) -> bool:
        row = split(line.decode(errors="replace").rstrip("\r\n"), sample.table.separator)
        if len(row) != len(sample.table.columns):
            return False
        for number, marks in wanted:
            field = row[number]
            if not NUMBER.fullmatch(field) or float(field) in marks:
                return False
            if sample.table.columns[number] == sample.positive and float(field) <= 0:
                return False
        return True

    return is_whole


def truncate_numbers(line: bytes) -> bytes:
    r"""Cut numbers to two digits that count; 9999 and the like, which mark gaps, stay.

    Examples
    --------
    >>> _coarse(b"-87.521210,1234.5,0.0123,-9999,L7\n")
    b'-87.000000,1200.0,0.0120,-9999,L7\n'
    """

    def cut(number: re.Match[bytes]) -> bytes:
        text = number[0]
        if re.fullmatch(rb"9{3,}(\.0*)?|32768(\.0*)?", text):
            return text
        counted, digits = 0, b""
        for digit in text:
            is_digit = chr(digit).isdigit()
            digits += b"0" if is_digit and counted >= 2 else bytes([digit])
            counted += is_digit and (counted > 0 or digit != ord("0"))
        return digits

    return re.sub(rb"(?<![\w.])\d+(\.\d*)?(?![\w.])", cut, line)
