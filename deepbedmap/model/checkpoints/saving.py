"""Trained networks on disk: save with provenance, load again, and describe as a source."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.model.checkpoints.container import (
    document_of,
    package_versions,
    read_tensors,
    require_shapes,
    write_tensors,
)
from deepbedmap.model.networks.discriminator import NETWORKS
from deepbedmap.tiles.inputs import RESOLUTIONS

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """A network as it was saved, and what was saved with it.

    Attributes
    ----------
    network
        The network with its weights, in evaluation mode. Its attribute ``trained_in`` is
        ``"bfloat16"`` where it was trained in that, else ``"float32"``.
    metadata
        The document of the file: ``format``, ``network`` (``class`` and ``options``),
        ``versions``, and all that was given to :func:`save`.
    """

    network: nn.Module
    metadata: dict[str, Any]


def save(
    model_or_state: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    **metadata: Any,
) -> Path:
    """Write a checkpoint: beside its place first, then renamed, so that none is ever half there.

    Parameters
    ----------
    model_or_state
        A network of :data:`deepbedmap.model.networks.NETWORKS`; or a state (names to tensors,
        say averaged weights), with ``network={"class": ..., "options": {...}}`` in the metadata.
    path
        Where to; folders on the way are made.
    **metadata
        Anything that JSON can hold: ``normalisation={...}``, ``seed=0``, ... Of these,
        ``sources=[...]`` lists the files that the network was trained on, surveys and inputs, as
        :func:`deepbedmap.provenance.describe_file` does: citations of the checkpoint are made from
        it; and ``resolutions={...}`` are the cells of the inputs in metres, by default those of
        this package's tiles, :data:`deepbedmap.tiles.inputs.RESOLUTIONS`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TypeError
        The metadata are not JSON, or the network is not one that can be loaded again.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from deepbedmap.model.networks import Generator
    >>> generator = Generator(1, features=8, growth=4, input_features=4)
    >>> path = save(generator, Path(tempfile.mkdtemp()) / "generator.safetensors", seed=7)
    >>> checkpoint = load(path)
    >>> checkpoint.metadata["seed"], checkpoint.metadata["network"]["class"]
    (7, 'Generator')
    """
    if isinstance(model_or_state, nn.Module):
        metadata = {"network": _description(model_or_state), **metadata}
        state: Mapping[str, Tensor] = model_or_state.state_dict()
    else:
        state = model_or_state
    if metadata.get("network", {}).get("class") not in NETWORKS:
        raise TypeError(f"network: expected a class of {', '.join(NETWORKS)} and its options")
    return write_tensors(
        state, Path(path), package_versions() | {"resolutions": RESOLUTIONS} | metadata
    )


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint and make its network again.

    Parameters
    ----------
    path
        A file of :func:`save`.
    device
        Where the network is put.

    Returns
    -------
    Checkpoint
        Network and metadata.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It is cut short, no checkpoint of this package (a pickle is never opened), of a network
        this version does not have, or its arrays do not fit the network it names.
    """
    path = Path(path)
    header, tensors = read_tensors(path)
    metadata = document_of(header, path)
    if metadata.get("state"):
        raise InvalidDataError(
            Fault(
                str(path),
                expected="a network",
                found="the state of a training",
                remedy="load the best.safetensors beside it",
            )
        )
    network = _blank_network(metadata["network"], path)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    remedy = "its arrays are of another network than it names: save or copy it again"
    require_shapes(expected, found, str(path), remedy)
    network.load_state_dict(tensors, assign=True)
    precision: Any = "float32"
    with contextlib.suppress(KeyError, TypeError):
        precision = metadata["configuration"]["training"]["precision"]
    network.trained_in = precision
    return Checkpoint(network.to(device).eval(), metadata)


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a checkpoint as a source, for the provenance of what is predicted by it.

    Returns
    -------
    dict
        As of :func:`deepbedmap.provenance.describe_file`, in the role of ``checkpoint``; and, where
        the training stated it, ``training_set``: what was left out of it, its split, its digest.

    Raises
    ------
    MissingDataError, InvalidDataError
        As :func:`load`.
    """
    from deepbedmap.provenance import describe_file

    header, _ = read_tensors(Path(path))
    training_set = document_of(header, Path(path)).get("training_set")
    described = describe_file(path, "checkpoint")
    return described | ({"training_set": training_set} if training_set else {})


def _description(network: nn.Module) -> dict[str, Any]:
    return {"class": type(network).__name__, "options": getattr(network, "options", {})}


def _blank_network(description: Mapping[str, Any], path: Path) -> nn.Module:
    name, options = description["class"], description["options"]
    if name not in NETWORKS:
        raise InvalidDataError(
            Fault(
                str(path),
                field="network",
                expected=f"one of {', '.join(NETWORKS)}",
                found=repr(name),
                remedy="load it with the version of deepbedmap that saved it",
            )
        )
    try:
        # No memory and no random numbers are used for weights that are about to be replaced.
        with torch.device("meta"):
            return NETWORKS[name](**options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidDataError(
            Fault(
                str(path),
                field="network",
                expected=f"options of {name}",
                found=f"{options} ({error})",
                remedy="load it with the version of deepbedmap that saved it",
            )
        ) from error
