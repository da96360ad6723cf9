"""The state from which a training resumes: weights, moments, random states and counters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.model.checkpoints.container import (
    document_of,
    package_versions,
    read_tensors,
    require_shapes,
    write_document,
    write_tensors,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    from torch import Tensor, nn


@dataclass(frozen=True)
class State:
    """The state of a training: its tensors by name, and their JSON document."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def save_state(
    tensors: Mapping[str, Tensor], path: str | os.PathLike[str], **metadata: Any
) -> Path:
    """Write the state of a training, and next to it the document as readable JSON.

    Parameters
    ----------
    tensors
        Everything from which the training resumes: weights, moments, random states.
    path
        File to write, ending in ``.safetensors``; the JSON has the same name, ending in ``.json``.
    **metadata
        Values that JSON can represent.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InvalidDataError
        The disk is full; an earlier file is left unchanged.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import torch
    >>> path = Path(tempfile.mkdtemp()) / "last.safetensors"
    >>> path = save_state({"weight": torch.ones(2)}, path, step=3)
    >>> load_state(path).metadata["step"], path.with_suffix(".json").exists()
    (3, True)
    """
    # The safetensors file is complete by itself: the JSON is for people to read.
    path = write_tensors(tensors, Path(path), package_versions() | {"state": True} | metadata)
    write_document(path, metadata)
    return path


def load_state(path: str | os.PathLike[str]) -> State:
    """Read the state of a training.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        The file is truncated, or not the state of a training.
    """
    path = Path(path)
    header, tensors = read_tensors(path)
    metadata = document_of(header, path)
    if not metadata.get("state"):
        raise InvalidDataError(
            Fault(
                str(path),
                expected="the state of a training",
                found=f"a checkpoint of a {metadata['network']['class']} only",
                remedy="resume from the last.safetensors in the training's folder",
            )
        )
    return State(tensors, metadata)


def fill(network: nn.Module, tensors: Mapping[str, Tensor], file: str) -> None:
    """Copy weights into the memory of a network.

    Raises
    ------
    InvalidDataError
        An array is missing, surplus or misshapen; the fault names ``file``.
    """
    require_shapes(
        {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        file,
    )
    network.load_state_dict(dict(tensors))
