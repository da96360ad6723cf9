"""The settings of a training, as frozen dataclasses with limits on every number.

One class per section of the TOML file: network, losses, optimizer, schedule, training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, TypedDict


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
        False: the relativistic average loss, whose gradient reaches the generator through the
        discriminator. True: the slip in the original code, where the generator's loss took the
        logits of its beds (normalised by the running statistics) as constants and ones as the
        logits of surveyed beds, so that the adversarial term changed the value of the loss and not
        its gradient.
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
        :class:`deepbedmap.model.training.optimizers.PaperAdam`.
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
