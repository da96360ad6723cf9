"""Errors in data, worded so that a person can correct the data.

Every error caused by the data or by the run is a :class:`DeepBedMapError`: the command line prints
its message without a traceback and exits with code 1. A wrong argument raises
:class:`WrongCallError`, which is a ``ValueError``, as everywhere in Python; the command line exits
with code 2. Any other exception is a bug of this package.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class DeepBedMapError(Exception):
    """The base class of all errors caused by the data or by the run."""


@dataclass(frozen=True)
class Fault:
    """One fault at one place in the data.

    ``str(fault)`` is a single line: file, line, entry, field, what was expected, what was found
    and what to do.

    Attributes
    ----------
    file
        Path or name of the file.
    line
        Line number, from 1.
    entry
        Entry of the file, such as a citekey of the registry.
    field
        Field of the entry.
    expected
        What a correct file has there.
    found
        What the file has instead.
    remedy
        What the reader can do about it.

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
        mismatch = [
            f"{word} {value}"
            for word, value in (("expected", self.expected), ("found", self.found))
            if value is not None
        ]
        text = ", ".join(place) + (": " + ", ".join(mismatch) if mismatch else "")
        text += f"; {self.remedy}" if self.remedy else ""
        return " ".join(text.split())


class InvalidDataError(DeepBedMapError, ValueError):
    """Data that cannot be used as they are: a registry, a pipeline, a survey, a grid, weights.

    Parameters
    ----------
    *faults
        Each a :class:`Fault` or a sentence. ``str(error)`` has one line per fault.
    """

    def __init__(self, *faults: Fault | str) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class DivergedError(InvalidDataError):
    """A training run whose loss, weights or score became non-finite or implausible."""


class MissingDataError(DeepBedMapError, FileNotFoundError):
    """A required file is missing; the message names the command or the person that provides it."""


class DownloadError(DeepBedMapError, OSError):
    """A file could not be downloaded, or does not match its entry in the registry."""


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
    """Suggest the words most similar to an unknown one.

    Parameters
    ----------
    word
        The unknown word.
    words
        The words to choose from.

    Returns
    -------
    str or None
        A question that names up to three words; None where no word is similar.

    Examples
    --------
    >>> did_you_mean("King2016Rutfort", ["King2016Rutford", "King2011Carlson"])
    'did you mean King2016Rutford?'
    """
    matches = difflib.get_close_matches(word, list(words), n=3)
    return f"did you mean {' or '.join(matches)}?" if matches else None
