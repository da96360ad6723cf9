"""The published weights of the original DeepBedMap, which was written in Chainer."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import nn

from deepbedmap.errors import Fault, InvalidDataError
from deepbedmap.model.checkpoints.container import require_file, require_shapes
from deepbedmap.model.networks.generator import Generator

if TYPE_CHECKING:
    import os
    from typing import Any

    from numpy.typing import NDArray

_CHAINER_LEAVES = {
    nn.Conv2d: {"W": "weight", "b": "bias"},
    nn.Linear: {"W": "weight", "b": "bias"},
    nn.BatchNorm2d: {
        "gamma": "weight",
        "beta": "bias",
        "avg_mean": "running_mean",
        "avg_var": "running_var",
        "N": "num_batches_tracked",
    },
}
Network = TypeVar("Network", bound=nn.Module)


def load_chainer_npz(
    path_or_mapping: str | os.PathLike[str] | Mapping[str, NDArray[Any]], model: Network
) -> Network:
    """Load weights of the original DeepBedMap, written in Chainer, into a network.

    Parameters
    ----------
    path_or_mapping
        A ``.npz`` file (never unpickled), or its arrays by name: ``input_block/conv_on_X/W``,
        ``batch_norm1/gamma``, ... The running statistics of batch normalisation (``avg_mean``,
        ``avg_var``, ``N``) may all be absent, as in a network that was never trained:
        they become 0, 1 and 0.
    model
        The generator or discriminator to fill, with as many residual blocks as the weights.

    Returns
    -------
    torch.nn.Module
        The same network, filled.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        The file cannot be read; an array is missing, surplus, misshapen, not numeric or not
        finite. The network is left unchanged.

    Examples
    --------
    >>> generator = Generator(1, features=8, growth=4, input_features=4)
    >>> load_chainer_npz({}, generator)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    deepbedmap.errors.InvalidDataError: weights, field final_conv_layer1/deform_conv/W: expected ...
    """
    if isinstance(path_or_mapping, Mapping):
        file = "weights"
        arrays = {name: np.asarray(array) for name, array in path_or_mapping.items()}
    else:
        file, arrays = str(path_or_mapping), _read_npz(Path(path_or_mapping))

    state = model.state_dict()
    names = _chainer_names(model)
    if not any(_is_running(name) for name in arrays):
        names = {name: ours for name, ours in names.items() if not _is_running(name)}
    require_shapes(
        {name: tuple(state[ours].shape) for name, ours in names.items()},
        {name: array.shape for name, array in arrays.items()},
        file,
        _block_remedy(model, arrays),
    )
    for name, array in arrays.items():
        numeric = array.dtype.kind in "fiu"
        if not numeric or not np.isfinite(array).all():
            fault = Fault(
                file,
                field=name,
                expected="finite numbers",
                found="NaN or infinity" if numeric else f"dtype {array.dtype}",
            )
            raise InvalidDataError(fault)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    filled = {ours: torch.from_numpy(arrays[name].copy()) for name, ours in names.items()}
    model.load_state_dict({**model.state_dict(), **filled})
    return model


def _chainer_names(network: nn.Module) -> dict[str, str]:
    """Chainer's names of a network's arrays, mapped to ours."""
    present = network.state_dict().keys()
    names = {}
    for path, module in network.named_modules():
        for leaf, ours in _CHAINER_LEAVES.get(type(module), {}).items():
            if f"{path}.{ours}" in present:
                names[f"{path.replace('.', '/')}/{leaf}"] = f"{path}.{ours}"
    return names


def _is_running(name: str) -> bool:
    return name.rpartition("/")[2] in ("avg_mean", "avg_var", "N")


def _block_remedy(network: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """Advice where the weights and the generator have different numbers of residual blocks."""
    if not isinstance(network, Generator):
        return None
    numbers = {name.split("/")[1] for name in arrays if name.startswith("residual_network/")}
    if len(numbers) == len(network.residual_network):
        return None
    return (
        f"the weights hold {len(numbers)} residual blocks and the generator "
        f"{len(network.residual_network)}: make it with num_residual_blocks={len(numbers)}"
    )


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    require_file(path)
    problem = "something else"
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.lib.npyio.NpzFile):
            with archive:
                arrays = {name: archive[name] for name in archive.files}
            if all(isinstance(array, np.ndarray) for array in arrays.values()):
                return arrays
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        problem = f"one that cannot be read: {error}"
    raise InvalidDataError(
        Fault(
            str(path),
            expected="a complete .npz archive of arrays",
            found=problem,
            remedy="fetch or copy the file again",
        )
    )
