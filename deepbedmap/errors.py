"""What can go wrong with data, said so that a person can mend it.

Every error that the data or the run is at fault for is a :class:`DeepBedMapError`: the command
line prints it as one line and exits with 1. A wrong argument raises :class:`WrongCallError`, which
is a ``ValueError`` as everywhere in Python: the command line exits with 2. Any other exception is a
bug of this package.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class DeepBedMapError(Exception):
    """The base of all errors that the data or the run is at fault for."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one place in the data.

    ``str(fault)`` is a single line: file, line, entry, field, what was expected, what was found
    and what to do.

    Examples
    --------
    >>> print(Fault("data_list.yml", line=7, entry="King2016Rutford", field="year",
    ...             expected="a whole number", found="'MMXVI'"))
    data_list.yml, line 7, entry King2016Rutford, field year: expected a whole number, found 'MMXVI'
    """

    file: str
    line: int | None = None
    entry: str | None = None
    field: str | None = None
    expected: str | None = None
    found: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        place = [self.file]
        place += [
            f"{word} {value}"
            for word, value in (("line", self.line), ("entry", self.entry), ("field", self.field))
            if value is not None
        ]
        said = [
            f"{word} {value}"
            for word, value in (("expected", self.expected), ("found", self.found))
            if value is not None
        ]
        text = ", ".join(place) + (": " + ", ".join(said) if said else "")
        text += f"; {self.remedy}" if self.remedy else ""
        return " ".join(text.split())


class InvalidDataError(DeepBedMapError, ValueError):
    """Data that cannot be used as they are: a registry, a pipeline, a survey, a grid, weights.

    Parameters
    ----------
    *faults
        Each a :class:`Fault`, or a sentence. ``str(error)`` has one line a fault.
    """

    def __init__(self, *faults: Fault | str) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class DivergedError(InvalidDataError):
    """A training whose loss, weights or score left what is finite or likely."""


class MissingDataError(DeepBedMapError, FileNotFoundError):
    """A file that is needed is not here; the message says which command or person gets it."""


class DownloadError(DeepBedMapError, OSError):
    """A file could not be fetched, or what came is not what the registry promises."""


class WrongCallError(ValueError):
    """An argument of a call cannot be used, whatever the data.

    Parameters
    ----------
    message
        What was expected.
    argument
        Name of the argument, where the message does not begin with it; the command line prints
        the option of that name instead.

    Examples
    --------
    >>> print(WrongCallError("expected a name that ends in .tif", "out"))
    out: expected a name that ends in .tif
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(f"{argument}: {message}" if argument else message)
        self.message = message
        self.argument = argument


def did_you_mean(word: str, words: Iterable[str]) -> str | None:
    """Suggest the words most like one that is not known.

    Examples
    --------
    >>> did_you_mean("King2016Rutfort", ["King2016Rutford", "King2011Carlson"])
    'did you mean King2016Rutford?'
    """
    matches = difflib.get_close_matches(word, list(words), n=3)
    return f"did you mean {' or '.join(matches)}?" if matches else None
