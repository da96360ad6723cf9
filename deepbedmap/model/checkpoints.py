"""Weights on disk: what this package trains, and what the original published.

A checkpoint is one safetensors file. Its header is JSON and holds under ``deepbedmap`` a
document of everything that is needed to make the network again: its class and options, and
whatever the training adds (normalisation constants, seeds, scores). Nothing in it is executed.

The state of a training, from which it goes on, is such a file too, of all its tensors.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import subprocess
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepbedmap import __version__, repository
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.inputs import RESOLUTIONS
from deepbedmap.model.networks import NETWORKS, Generator

_FORMAT = 1
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


@dataclass(frozen=True)
class State:
    """The state of a training: its tensors by name, and the document that goes with them."""

    tensors: dict[str, Tensor]
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
        :func:`deepbedmap.citation.describe` does: citations of the checkpoint are made from it;
        and ``resolutions={...}`` are the cells of the inputs in metres, by default those of this
        package's tiles, :data:`deepbedmap.inputs.RESOLUTIONS`.

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
    return _write(state, Path(path), _versions() | {"resolutions": RESOLUTIONS} | metadata)


def save_state(
    tensors: Mapping[str, Tensor], path: str | os.PathLike[str], **metadata: Any
) -> Path:
    """Write the state of a training, and beside it the document in readable JSON.

    Parameters
    ----------
    tensors
        All that the training goes on from: weights, moments, random states.
    path
        Where to, ending in ``.safetensors``; the JSON differs in its ending.
    **metadata
        Anything that JSON can hold.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InvalidDataError
        The disk is full; an earlier file is as it was.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "last.safetensors"
    >>> path = save_state({"weight": torch.ones(2)}, path, step=3)
    >>> load_state(path).metadata["step"], path.with_suffix(".json").exists()
    (3, True)
    """
    # One file alone is complete in itself: the JSON is there to be read by people.
    path = _write(tensors, Path(path), _versions() | {"state": True} | metadata)
    write_document(path, metadata)
    return path


def write_document(path: str | os.PathLike[str], metadata: Mapping[str, Any]) -> Path:
    """Write what was saved with a checkpoint beside it, as readable JSON; give the file's name.

    Raises
    ------
    InvalidDataError
        The disk is full; an earlier file is as it was.
    """
    path = Path(path).with_suffix(".json")
    text = json.dumps(_versions() | dict(metadata), indent=2) + "\n"
    with room_for(path, len(text)), repository.beside(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def load_state(path: str | os.PathLike[str]) -> State:
    """Read the state of a training.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It is cut short, or no state of a training.
    """
    path = Path(path)
    header, tensors = _read(path)
    metadata = _document(header, path)
    if not metadata.get("state"):
        raise InvalidDataError(
            Fault(
                str(path),
                expected="the state of a training",
                found=f"a checkpoint of a {metadata['network']['class']} alone",
                remedy="go on from the last.safetensors of the training's folder",
            )
        )
    return State(tensors, metadata)


def fill(network: nn.Module, tensors: Mapping[str, Tensor], file: str) -> None:
    """Copy weights into a network, in whose memory they then are.

    Raises
    ------
    InvalidDataError
        One is missing, surplus or misshapen; the fault names ``file``.
    """
    _check_shapes(
        {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()},
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        file,
    )
    network.load_state_dict(dict(tensors))


def registry_commit() -> str | None:
    """Return the commit of the checkout that holds the registry, ``-modified`` if that differs.

    None where there is no checkout, or no git.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(repository.root()), *words]
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--", "data_list.yml")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-modified" if changed else commit


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
    header, tensors = _read(path)
    metadata = _document(header, path)
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
    _check_shapes(expected, found, str(path), remedy)
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
        As of :func:`deepbedmap.citation.describe`, in the role of ``checkpoint``; and, where the
        training stated it, ``training_set``: what was left out of it, its split, its digest.

    Raises
    ------
    MissingDataError, InvalidDataError
        As :func:`load`.
    """
    from deepbedmap import citation

    header, _ = _read(Path(path))
    training_set = _document(header, Path(path)).get("training_set")
    described = citation.describe(path, "checkpoint")
    return described | ({"training_set": training_set} if training_set else {})


def load_chainer_npz(
    path_or_mapping: str | os.PathLike[str] | Mapping[str, NDArray[Any]], model: Network
) -> Network:
    """Fill a network with weights of the original, which was written in Chainer.

    Parameters
    ----------
    path_or_mapping
        A ``.npz`` file (never unpickled), or its arrays by name: ``input_block/conv_on_X/W``,
        ``batch_norm1/gamma``, ... The running statistics of batch normalisation (``avg_mean``,
        ``avg_var``, ``N``) may be absent all together, as in a network that was never trained:
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
        finite. The network is as it was.

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
    _check_shapes(
        {name: tuple(state[ours].shape) for name, ours in names.items()},
        {name: array.shape for name, array in arrays.items()},
        file,
        _block_remedy(model, arrays),
    )
    for name, array in arrays.items():
        numeric = array.dtype.kind in "fiu"
        if not numeric or not np.isfinite(array).all():
            found = "NaN or infinity" if numeric else f"dtype {array.dtype}"
            raise InvalidDataError(Fault(file, field=name, expected="finite numbers", found=found))

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    filled = {ours: torch.from_numpy(arrays[name].copy()) for name, ours in names.items()}
    model.load_state_dict({**model.state_dict(), **filled})
    return model


def _versions() -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "versions": {
            "deepbedmap": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _write(tensors: Mapping[str, Tensor], path: Path, document: Mapping[str, Any]) -> Path:
    from safetensors.torch import save as serialise

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = serialise(dict(tensors), {"deepbedmap": json.dumps(document)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with room_for(path, len(content)), repository.beside(path) as part:
        part.write_bytes(content)
    return path


@contextlib.contextmanager
def room_for(path: Path, size: int) -> Iterator[None]:
    """Say in one line that a disk is full, and that nothing was lost."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        kept = "the one that was there is kept" if path.exists() else "nothing was written"
        begun = (path.parent / "last.safetensors").exists()
        raise InvalidDataError(
            Fault(
                str(path),
                expected=f"room for {size / 1e6:.1f} MB",
                found=f"a full disk; {kept}",
                remedy="make room, then " + ("go on with resume" if begun else "begin again"),
            )
        ) from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    _check_present(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        start = path.read_bytes()[:2] if path.is_file() else b""
        pickled = start == b"PK" or start[:1] == b"\x80"
        raise InvalidDataError(
            Fault(
                str(path),
                expected="a complete safetensors file",
                found="a pickle or an archive of one"
                if pickled
                else f"one cut short or damaged: {error}",
                remedy="save it again with deepbedmap; pickles can run code and are not opened"
                if pickled
                else "copy or save it again",
            )
        ) from error
    return header, tensors


def _description(network: nn.Module) -> dict[str, Any]:
    return {"class": type(network).__name__, "options": getattr(network, "options", {})}


def _document(header: Mapping[str, str], path: Path) -> dict[str, Any]:
    try:
        document = json.loads(header["deepbedmap"])
        known = document["format"] == _FORMAT
        if not document.get("state"):
            network = document["network"]
            known &= isinstance(network["class"], str) and isinstance(network["options"], dict)
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise InvalidDataError(
            Fault(
                str(path),
                field="deepbedmap",
                expected=f"a checkpoint of this package, format {_FORMAT}",
                found="a safetensors file without its description, or with one of another format",
                remedy="save the network with deepbedmap.model.checkpoints.save",
            )
        )
    return dict(document)


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


def _check_shapes(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    file: str,
    remedy: str | None = None,
) -> None:
    """Refuse the first array in alphabetical order that is missing, surplus or misshapen."""
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) == found.get(name):
            continue
        raise InvalidDataError(
            Fault(
                file,
                field=name,
                expected=f"shape {expected[name]}" if name in expected else "no such array",
                found=f"shape {found[name]}" if name in found else "no such array",
                remedy=remedy,
            )
        )


def _check_present(path: Path) -> None:
    if not path.is_file():
        raise MissingDataError(
            str(Fault(str(path), expected="a file of weights", found="no such file"))
        )


def _chainer_names(network: nn.Module) -> dict[str, str]:
    """Every array of a network: Chainer's name to ours."""
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
    """What to say where the number of residual blocks is all that differs, or may be."""
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
    _check_present(path)
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
