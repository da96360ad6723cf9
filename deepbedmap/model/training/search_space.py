"""The search space of a tuning: which settings are varied, and within which limits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args, get_type_hints

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.model.training.configuration import Configuration, load, of, read

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from typing import Any

    from optuna.trial import Trial

_SPACES = Path(__file__).parent / "spaces"
_RANGE = ("low", "high", "log")


@dataclass(frozen=True)
class Dimension:
    """One setting that is varied.

    Attributes
    ----------
    name
        Section and key, such as ``optimizer.learning_rate``.
    choices
        The values it may take; empty for a range.
    low, high
        The range, both ends among it.
    log
        Whether orders of magnitude are equally likely, instead of values.
    whole
        Whether it takes only whole numbers.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    whole: bool = False

    def suggest(self, trial: Trial) -> Any:
        """Value of the setting in a trial."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


Space = tuple[Dimension, ...]


def load_space(name_or_path: str | os.PathLike[str], base: Configuration | None = None) -> Space:
    """Read which settings are varied, and within what.

    Parameters
    ----------
    name_or_path
        A TOML file with the sections and keys of a configuration, each key a table: ``low`` and
        ``high``, and ``log = true`` or not; or ``choices``. ``default`` comes with the package.
    base
        Configuration whose settings are varied, by default the preset ``default``.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It is no TOML, or has an unknown key, an impossible value or an empty range; all of these
        are reported.

    Examples
    --------
    >>> [dimension.name for dimension in load_space("default")][:2]
    ['optimizer.learning_rate', 'losses.delta']
    """
    path = _SPACES / "default.toml" if name_or_path == "default" else Path(name_or_path)
    document = read(path, "a file of a search space, or default")
    base = load("default") if base is None else base
    faults: list[Fault] = []
    space: list[Dimension] = []
    for section, keys in document.items():
        if not isinstance(keys, Mapping):
            faults.append(Fault(str(path), field=section, expected="a table", found=repr(keys)))
            continue
        for key, said in keys.items():
            found = list(_faults(section, key, said, str(path), base))
            faults += found
            if not found:
                space.append(_dimension(section, key, said))
    if not (space or faults):
        faults.append(Fault(str(path), expected="a setting to vary", found="none"))
    if faults:
        raise InvalidDataError(*faults)
    return tuple(space)


def _dimension(section: str, key: str, said: Mapping[str, Any]) -> Dimension:
    name = f"{section}.{key}"
    if "choices" in said:
        return Dimension(name, tuple(said["choices"]))
    whole = _kind(section, key) is int
    return Dimension(name, (), said["low"], said["high"], said.get("log", False), whole)


def _kind(section: str, key: str) -> Any:
    """Type of a number of a configuration; None for a setting that is none."""
    hint = get_type_hints(get_type_hints(Configuration)[section], include_extras=True)[key]
    return next((kind for kind in get_args(hint) if kind in (int, float)), None)


def _faults(section: str, key: str, said: Any, file: str, base: Configuration) -> Iterator[Fault]:
    name = f"{section}.{key}"
    choices = isinstance(said, Mapping) and set(said) == {"choices"}
    if not choices and not (isinstance(said, Mapping) and {"low", "high"} <= set(said)):
        wanted = "a table of low and high, or of choices"
        yield Fault(file, field=name, expected=wanted, found=json.dumps(said, default=str))
        return
    if choices and not (isinstance(said["choices"], list) and said["choices"]):
        wanted = "a list of at least one value"
        yield Fault(file, field=f"{name}.choices", expected=wanted, found=repr(said["choices"]))
        return
    values = said["choices"] if choices else [said["low"], said["high"]]
    for value in values:
        # Values that no configuration accepts are reported in the same words.
        try:
            of({section: {key: value}}, file, base=base)
        except InvalidDataError as error:
            yield from (fault for fault in error.faults if isinstance(fault, Fault))
            return
    if choices:
        return
    for option in sorted(set(said) - set(_RANGE)):
        known = f"one of {', '.join(_RANGE)}"
        yield Fault(file, field=f"{name}.{option}", expected=known, found="an unknown key")
    if _kind(section, key) is None:
        yield Fault(file, field=name, expected="choices, for it is no number", found="a range")
        return
    log = said.get("log", False)
    if not isinstance(log, bool):
        yield Fault(file, field=f"{name}.log", expected="true or false", found=repr(log))
    if said["low"] >= said["high"]:
        found = f"{said['low']} and {said['high']}"
        yield Fault(file, field=name, expected="low below high", found=found)
    elif log is True and said["low"] <= 0:
        wanted = "a number over 0, since log is true"
        yield Fault(file, field=f"{name}.low", expected=wanted, found=repr(said["low"]))
