"""Trained networks on disk: save with provenance, load, and describe as a source."""

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
    """A saved network and its metadata.

    Attributes
    ----------
    network
        The network with its weights, in evaluation mode. Its attribute ``trained_in`` is
        ``"bfloat16"`` if it was trained in that precision, else ``"float32"``.
    metadata
        The document of the file: ``format``, ``network`` (``class`` and ``options``),
        ``versions``, and all metadata passed to :func:`save`.
    """

    network: nn.Module
    metadata: dict[str, Any]


def save(
    model_or_state: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    **metadata: Any,
) -> Path:
    """Write a checkpoint to a temporary file, then rename it, so that it is never incomplete.

    Parameters
    ----------
    model_or_state
        A network of :data:`deepbedmap.model.networks.NETWORKS`; or a state (names to tensors,
        as of averaged weights), with ``network={"class": ..., "options": {...}}`` in the metadata.
    path
        File to write; missing folders are created.
    **metadata
        JSON values: ``normalisation={...}``, ``seed=0``, ... ``sources=[...]`` lists the files that
        the network was trained on, surveys and inputs, as
        :func:`deepbedmap.provenance.describe_file` does: citations of the checkpoint are made from
        it. ``resolutions={...}`` gives the cell sizes of the inputs in metres, by default those of
        this package's tiles, :data:`deepbedmap.tiles.inputs.RESOLUTIONS`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TypeError
        The metadata are not JSON, or the network's class is not one of ``NETWORKS``.

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
    """Read a checkpoint and rebuild its network.

    Parameters
    ----------
    path
        A file written by :func:`save`.
    device
        Device on which the network is placed.

    Returns
    -------
    Checkpoint
        Network and metadata.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        The file is truncated or not a checkpoint of this package (a pickle is never opened), its
        network is unknown to this version, or its arrays do not fit that network.
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
                remedy="load the best.safetensors next to it",
            )
        )
    network = _blank_network(metadata["network"], path)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    remedy = "its arrays belong to a network other than the one it names: save or copy it again"
    require_shapes(expected, shapes, str(path), remedy)
    network.load_state_dict(tensors, assign=True)
    precision: Any = "float32"
    with contextlib.suppress(KeyError, TypeError):
        precision = metadata["configuration"]["training"]["precision"]
    network.trained_in = precision
    return Checkpoint(network.to(device).eval(), metadata)


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a checkpoint as a source, for the provenance of its predictions.

    Returns
    -------
    dict
        The fields of :func:`deepbedmap.provenance.describe_file`, role ``checkpoint``; and, if the
        training recorded it, ``training_set``: its exclusions, split and digest.

    Raises
    ------
    MissingDataError, InvalidDataError
        As :func:`load`.
    """
    from deepbedmap.provenance import describe_file

    header, _ = read_tensors(Path(path))
    training_set = document_of(header, Path(path)).get("training_set")
    source = describe_file(path, "checkpoint")
    return source | ({"training_set": training_set} if training_set else {})


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
