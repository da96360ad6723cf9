"""The configuration of a training: read from TOML and checked, or written as TOML.

Two presets come with the package, ``paper`` and ``default``; a user's file names one of
them as its ``base`` and contains only the settings that it changes.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.model.training.settings import Losses, Network, Optimizer, Schedule, Training

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


PRESETS = ("default", "paper")
"""Names of the configurations that come with the package."""

_FOLDER = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Configuration:
    """All settings of a training; :func:`of` rebuilds it from ``to_dict``."""

    network: Network
    losses: Losses
    optimizer: Optimizer
    schedule: Schedule
    training: Training

    @property
    def epochs(self) -> int:
        """Epochs of both phases."""
        return self.schedule.pretraining_epochs + self.schedule.adversarial_epochs

    def to_dict(self) -> dict[str, Any]:
        """Plain tables, as in the file."""
        return asdict(self)

    def with_values(self, **values: Any) -> Configuration:
        """Change settings, each named by its section and key with two underscores between.

        Raises
        ------
        InvalidDataError
            As :func:`load` does.

        Examples
        --------
        >>> load("paper").with_values(network__num_residual_blocks=1).network.num_residual_blocks
        1
        """
        document: dict[str, Any] = {}
        for name, value in values.items():
            section, _, key = name.partition("__")
            document.setdefault(section, {})[key] = value
        return of(document, base=self)


def load(name_or_path: str | os.PathLike[str]) -> Configuration:
    """Read a configuration.

    Parameters
    ----------
    name_or_path
        A preset of :data:`PRESETS`, or a TOML file. Its ``base`` is the preset for settings that
        are not in the file, ``default`` if it names none.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It is not TOML, or has an unknown key or an impossible value; all faults are reported.

    Examples
    --------
    >>> load("paper").optimizer.learning_rate
    0.00017
    """
    if name_or_path in PRESETS:
        path = _FOLDER / f"{name_or_path}.toml"
        return of(tomllib.loads(path.read_text(encoding="utf-8")), path, base=None)
    path = Path(name_or_path)
    document = read(path, f"a configuration file, or one of the presets {', '.join(PRESETS)}")
    base = document.pop("base", "default")
    if base not in PRESETS:
        raise InvalidDataError(
            Fault(
                str(path),
                field="base",
                expected=f"one of {', '.join(PRESETS)}",
                found=repr(base),
                remedy=_near(str(base), PRESETS),
            )
        )
    return of(document, path, base=load(base))


def read(path: Path, wanted: str) -> dict[str, Any]:
    """Read a TOML file; ``wanted`` describes it in the error for a missing one.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingDataError(
            str(
                Fault(
                    str(path),
                    expected=wanted,
                    found="no such file",
                    remedy=_near(str(path), PRESETS),
                )
            )
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidDataError(Fault(str(path), expected="TOML", found=str(error))) from error


def of(
    document: Mapping[str, Any],
    file: str | os.PathLike[str] = "configuration",
    *,
    base: Configuration | None = None,
) -> Configuration:
    """Make a configuration from tables, as :meth:`Configuration.to_dict` gives them.

    Parameters
    ----------
    document
        Sections, each with its keys.
    file
        Name of the document in a fault.
    base
        Settings that the document does not contain. None: it must contain all.

    Raises
    ------
    InvalidDataError
        An unknown, missing or impossible key; all faults are reported.
    """
    faults: list[Fault] = []
    sections: dict[str, Any] = {}
    kinds = get_type_hints(Configuration)
    faults += _unknown(document, kinds, str(file), "")
    for section, kind in kinds.items():
        values = document.get(section, {})
        if not isinstance(values, Mapping):
            faults.append(Fault(str(file), field=section, expected="a table", found=_said(values)))
            continue
        found = list(_section_faults(kind, values, str(file), section, complete=base is None))
        faults += found
        if not found:
            start = getattr(base, section, None)
            if kind is Network:
                values = _with_normalisation(values, start)
            sections[section] = replace(start, **values) if start else kind(**values)
    if not faults:
        faults += _contradictions(Configuration(**sections), str(file))
    if faults:
        raise InvalidDataError(*faults)
    return Configuration(**sections)


def _with_normalisation(values: Mapping[str, Any], base: Network | None) -> dict[str, Any]:
    """Return the network's settings with the constants that it inherits from its base."""
    named = values.get("name", base and base.name)
    inherited = base.normalisation if base and named != "Generator" else {}
    return {**values, "normalisation": {**inherited, **values.get("normalisation", {})}}


def _section_faults(
    kind: Any, values: Mapping[str, Any], file: str, section: str, *, complete: bool
) -> Iterator[Fault]:
    hints = get_type_hints(kind, include_extras=True)
    yield from _unknown(values, hints, file, f"{section}.")
    for key, hint in hints.items():
        name = f"{section}.{key}"
        if key in values and is_typeddict(hint) and isinstance(values[key], Mapping):
            yield from _section_faults(hint, values[key], file, name, complete=False)
        elif key in values:
            expected = _expected(hint, values[key])
            if expected:
                yield Fault(file, field=name, expected=expected, found=_said(values[key]))
        elif complete:
            yield Fault(file, field=name, expected="a value", found="none")


def _unknown(
    values: Mapping[str, Any], known: Mapping[str, Any], file: str, prefix: str
) -> Iterator[Fault]:
    for name in values:
        if name not in known:
            yield Fault(
                file,
                field=f"{prefix}{name}",
                expected=f"one of {', '.join(known)}",
                found="an unknown key",
                remedy=_near(name, known),
            )


def _expected(hint: Any, value: Any) -> str | None:
    """Description of a valid value, or None if the value is valid."""
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return None if value in choices else "one of " + ", ".join(map(repr, choices))
    if hint is bool:
        return None if isinstance(value, bool) else "true or false"
    if is_typeddict(hint):
        return "a table"
    kind, limits = get_args(hint)
    number = "a whole number" if kind is int else "a number"
    numeric = isinstance(value, int if kind is int else int | float)
    fits = numeric and not isinstance(value, bool) and math.isfinite(value)
    for limit, words, within in (
        (limits.above, "over", fits and value > limits.above),
        (limits.least, "of at least", fits and value >= limits.least),
        (limits.most, "of at most", fits and value <= limits.most),
    ):
        if math.isfinite(limit):
            number += f" {words} {limit:g}" if number.endswith("number") else f", {words} {limit:g}"
            fits = fits and within
    return None if fits else number


def _contradictions(configuration: Configuration, file: str) -> Iterator[Fault]:
    """Faults of settings that are valid separately but not together."""
    network, losses = configuration.network, configuration.losses
    schedule = configuration.schedule
    if network.name == "Generator" and network.normalisation:
        yield Fault(
            file,
            field="network.normalisation",
            expected="none with the Generator, which takes raw metres",
            found=", ".join(network.normalisation),
            remedy="leave the table out, or take the FlowAlignedGenerator",
        )
    if configuration.epochs == 0:
        yield Fault(
            file,
            field="schedule.pretraining_epochs",
            expected="at least one epoch in one of the phases",
            found="0 in both",
        )
    terms = [losses.content_weight, losses.topographic_weight, losses.structural_weight]
    if schedule.pretraining_epochs and not any(terms):
        yield Fault(
            file,
            field="losses",
            expected="a weight over 0 for a term of the first phase",
            found="content, topographic and structural weights of 0",
        )
    if schedule.adversarial_epochs and configuration.training.batch < 2:
        yield Fault(
            file,
            field="training.batch",
            expected="at least 2, since the discriminator normalises by batch",
            found=str(configuration.training.batch),
        )


def _said(value: Any) -> str:
    return "a table" if isinstance(value, Mapping) else repr(value)


def _near(word: str, words: Any) -> str | None:
    from deepbedmap.errors import did_you_mean

    return did_you_mean(word, words)


def to_toml(settings: Configuration) -> str:
    """Write a configuration as TOML, every setting.

    Examples
    --------
    >>> print(to_toml(load("default")).splitlines()[1])
    name = "FlowAlignedGenerator"
    """

    def toml(value: Any) -> str:
        # Strings, numbers and booleans are written the same way in JSON and TOML.
        if not isinstance(value, Mapping):
            return json.dumps(value)
        return "{" + ", ".join(f"{key} = {json.dumps(one)}" for key, one in value.items()) + "}"

    sections = (
        f"[{section}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in keys.items())
        for section, keys in settings.to_dict().items()
    )
    return "\n".join(sections)
