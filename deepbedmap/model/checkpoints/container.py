"""A checkpoint as a file: tensors in safetensors, and a JSON document in the header.

The document names the network's class and options and whatever the training adds
(normalisation constants, seeds, scores). Nothing in it is executed.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from deepbedmap import __version__, files
from deepbedmap.errors import Fault, InvalidDataError, MissingDataError
from deepbedmap.files.atomic import room_for

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    from torch import Tensor

_FORMAT = 1


def write_document(path: str | os.PathLike[str], metadata: Mapping[str, Any]) -> Path:
    """Write the metadata of a checkpoint next to it, as readable JSON; return the file's path.

    Raises
    ------
    InvalidDataError
        The disk is full; an earlier file is left unchanged.
    """
    path = Path(path).with_suffix(".json")
    text = json.dumps(package_versions() | dict(metadata), indent=2) + "\n"
    with room_for(path, len(text)), files.beside(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def package_versions() -> dict[str, Any]:
    """Return the checkpoint format and the versions of the packages that write it."""
    return {
        "format": _FORMAT,
        "versions": {
            "deepbedmap": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def write_tensors(tensors: Mapping[str, Tensor], path: Path, document: Mapping[str, Any]) -> Path:
    """Write tensors as safetensors, with a JSON document in the header; return the path."""
    from safetensors.torch import save as serialise

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = serialise(dict(tensors), {"deepbedmap": json.dumps(document)})
    path.parent.mkdir(parents=True, exist_ok=True)
    with room_for(path, len(content)), files.beside(path) as part:
        part.write_bytes(content)
    return path


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the header and the tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Copies are aligned in memory, as the saved tensors were. Views of the file are not,
            # and some kernels then round differently.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
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


def document_of(header: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return the JSON document in the header of a checkpoint; raise InvalidDataError if invalid."""
    try:
        document = json.loads(header["deepbedmap"])
        is_valid = document["format"] == _FORMAT
        if not document.get("state"):
            network = document["network"]
            is_valid &= isinstance(network["class"], str) and isinstance(network["options"], dict)
    except (KeyError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
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


def require_shapes(
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


def require_file(path: Path) -> None:
    """Raise MissingDataError if there is no file of weights at the path."""
    if not path.is_file():
        raise MissingDataError(
            str(Fault(str(path), expected="a file of weights", found="no such file"))
        )
