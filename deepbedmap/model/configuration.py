"""How a network is trained: one TOML file, read into frozen dataclasses and checked.

Two presets come with the package, ``paper`` and ``default``; a file of one's own names one of
them as its ``base`` and says only what it changes.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypedDict,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError

PRESETS = ("default", "paper")
"""Names of the configurations that come with the package."""

_FOLDER = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Within:
    """Limits of a number: from ``least`` to ``most``, and above ``above``."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf


class Normalisation(TypedDict, total=False):
    """Constants that make inputs of the order of one, each of them optional.

    What they are, and what holds for one that is not given, says
    :data:`deepbedmap.model.networks.NORMALISATION`.
    """

    bed: Annotated[float, Within(above=0)]
    correction: Annotated[float, Within(above=0)]
    surface: Annotated[float, Within(above=0)]
    short_surface: Annotated[float, Within(above=0)]
    velocity: Annotated[float, Within(above=0)]
    mean_accumulation: Annotated[float, Within()]
    accumulation: Annotated[float, Within(above=0)]


@dataclass(frozen=True)
class Network:
    """The generator: ``name`` is its class, the rest are its options.

    Attributes
    ----------
    flags
        Whether the network is told which optional inputs a tile lacks.
    normalisation
        Of the inputs of a ``FlowAlignedGenerator``. The ``Generator`` takes raw metres, and has
        none: those of a base are not taken over, and ones that are given are refused.
    """

    name: Literal["Generator", "FlowAlignedGenerator"]
    num_residual_blocks: Annotated[int, Within(1)]
    residual_scaling: Annotated[float, Within(most=1, above=0)]
    features: Annotated[int, Within(1)]
    growth: Annotated[int, Within(1)]
    input_features: Annotated[int, Within(1)]
    flags: bool
    normalisation: Normalisation


@dataclass(frozen=True)
class Losses:
    """What the generator is to make small: a weighted sum of terms, over measured cells.

    Attributes
    ----------
    content
        ``"absolute"``: mean absolute error in metres. ``"huber"``: Huber's function of the error
        over ``scale``, quadratic up to ``delta`` and linear beyond.
    scale
        Metres that count as one in Huber's loss.
    content_weight, adversarial_weight, topographic_weight, structural_weight
        Weights of the terms; 0 leaves one out. The adversarial one counts in the second phase.
    detached
        Whether the adversarial term changes the value of the loss and not its gradient, as in the
        original; see :func:`deepbedmap.model.training.adversarial_step`.
    """

    content: Literal["absolute", "huber"]
    scale: Annotated[float, Within(above=0)]
    delta: Annotated[float, Within(above=0)]
    content_weight: Annotated[float, Within(0)]
    adversarial_weight: Annotated[float, Within(0)]
    topographic_weight: Annotated[float, Within(0)]
    structural_weight: Annotated[float, Within(0)]
    detached: bool


@dataclass(frozen=True)
class Optimizer:
    """Adam, for both networks.

    Attributes
    ----------
    name
        ``"adam"``: PyTorch's. ``"paper_adam"``: as the published code has it,
        :class:`deepbedmap.model.steps.PaperAdam`.
    clipping
        Greatest norm of the generator's gradient; 0 leaves it as it is.
    """

    name: Literal["adam", "paper_adam"]
    learning_rate: Annotated[float, Within(above=0)]
    beta1: Annotated[float, Within(0, 0.999999)]
    beta2: Annotated[float, Within(0, 0.999999)]
    eps: Annotated[float, Within(above=0)]
    clipping: Annotated[float, Within(0)]


@dataclass(frozen=True)
class Schedule:
    """How long, and how the learning rate changes on the way.

    Attributes
    ----------
    pretraining_epochs
        First phase: the generator alone, without the adversarial term.
    adversarial_epochs
        Second phase: generator against discriminator.
    warm_up
        Share of all steps over which the learning rate rises from zero.
    decay
        What it does then: ``"constant"``, or ``"cosine"`` to zero at the last step.
    """

    pretraining_epochs: Annotated[int, Within(0)]
    adversarial_epochs: Annotated[int, Within(0)]
    warm_up: Annotated[float, Within(0, 1)]
    decay: Literal["constant", "cosine"]


@dataclass(frozen=True)
class Training:
    """The loop.

    Attributes
    ----------
    seed
        Of the first weights, of the order of the tiles and of their turns.
    batch
        Tiles of a step, those of all processes together.
    average
        Decay in a step of the running average of the generator's weights, which is what is
        validated and kept as the best; 0 takes the weights themselves.
    augmentation
        Whether tiles are turned and mirrored, one of eight ways each time.
    precision
        ``"bfloat16"``: autocast on a GPU, the weights staying float32 (on a CPU all is float32).
        The ``Generator``, which takes raw metres, then rounds a bed at -2000 m to 8 m.
    deterministic
        Whether a GPU is held to algorithms that give the same bits each time, at a cost in speed.
    graph
        Whether whole steps of the first phase are captured in a CUDA graph where that is possible.
    validation_interval
        Epochs from one validation, with a checkpoint, to the next.
    patience
        Validations without a better score after which training ends early; 0 never does.
    divergence
        How many times its running mean the loss may be before training is stopped.
    """

    seed: Annotated[int, Within(0)]
    batch: Annotated[int, Within(1)]
    average: Annotated[float, Within(0, 0.999999)]
    augmentation: bool
    precision: Literal["float32", "bfloat16"]
    deterministic: bool
    graph: bool
    validation_interval: Annotated[int, Within(1)]
    patience: Annotated[int, Within(0)]
    divergence: Annotated[float, Within(above=1)]


@dataclass(frozen=True)
class Configuration:
    """All settings of a training; ``to_dict`` gives what :func:`of` makes it from again."""

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
        A preset of :data:`PRESETS`, or a TOML file. Its ``base`` is the preset that holds for what
        the file does not say, ``default`` if it names none.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It is no TOML, or has an unknown key or an impossible value; all of these are told.

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
    """Read a TOML file; ``wanted`` says what is expected in its place.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It is no TOML.
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
    """Make a configuration of tables, as :meth:`Configuration.to_dict` gives them.

    Parameters
    ----------
    document
        Sections, each with its keys.
    file
        What a fault names.
    base
        Holds for what the document does not say. None: it says everything.

    Raises
    ------
    InvalidDataError
        An unknown, missing or impossible key; all faults are told.
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
    """Give the network's settings with those constants that it takes over from its base."""
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
    """What a value should be, where it is not."""
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
    """Settings that are possible each, and not together."""
    network, losses = configuration.network, configuration.losses
    schedule = configuration.schedule
    if network.name == "Generator" and network.normalisation:
        yield Fault(
            file,
            field="network.normalisation",
            expected="none beside the Generator, which takes raw metres",
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
    from deepbedmap.schemas import near

    return near(word, words)
