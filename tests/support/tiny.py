"""A training of seconds: few small tiles, networks of few channels. Also run as a program:

``python tiny.py OUT`` trains in a process of its own, as the environment says: ``TINY`` (JSON)
holds the configuration's changes, ``KILL_AT`` the step after which it is killed, ``PRECISE`` asks
for :func:`precise` tiles and networks. In the end it says which threads of gloo are left.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepbedmap.model.networks import bicubic
from deepbedmap.model.training import Configuration, Fitted, fitting, make_generator
from deepbedmap.model.training.configuration import load


class Tiles:
    """Tiles whose bed is the bicubic prior plus what the surface shows of it."""

    def __init__(self, count: int = 6, seed: int = 0, *, masked: bool = False) -> None:
        random = np.random.default_rng(seed)
        wave = np.cos(np.arange(11) * np.pi / 3) * np.ones((11, 1))
        coarse = torch.tensor(random.standard_normal((count, 1, 1, 1)) * wave).float()
        x = torch.tensor(300 * random.standard_normal((count, 1, 11, 11))).float()
        w2 = torch.tensor([300.0, 30.0]).view(1, 2, 1, 1).repeat(count, 1, 22, 22)
        fine = torch.kron(coarse[..., 1:-1, 1:-1], torch.ones(4, 4))
        self.tensors = {
            "x": x,
            "w1": 20 * torch.kron(coarse, torch.ones(10, 10)),
            "w2": w2 + torch.tensor(random.standard_normal(w2.shape)).float(),
            "w3": torch.full_like(x, 200.0),
            "y": bicubic(x) + 100 * fine,
        }
        if masked:
            # Fewer cells in each tile than in the one before: shares of a batch differ.
            columns = torch.arange(36).expand(count, 1, 36, 36)
            width = 36 - 5 * torch.arange(count).view(-1, 1, 1, 1) % 30
            self.tensors["mask"] = columns < width
            self.tensors["y"] = self.tensors["y"].where(self.tensors["mask"], torch.nan)

    def __len__(self) -> int:
        return len(self.tensors["y"])

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        return {name: tensor[index] for name, tensor in self.tensors.items()} | {"index": index}


class Judge(nn.Module):
    """A discriminator of two layers, with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 4, 4)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Linear(4, 1)

    def forward(self, y: Tensor) -> Tensor:
        return self.last(nn.functional.leaky_relu(self.norm(self.conv(y / 300))).mean((2, 3)))


def configured(**values: Any) -> Configuration:
    """The default configuration, made tiny."""
    tiny = {
        "network__name": "Generator",
        "network__features": 4,
        "network__growth": 4,
        "network__input_features": 4,
        "schedule__pretraining_epochs": 2,
        "training__batch": 3,
    }
    return load("default").with_values(**tiny | values)


def fit(out: Path, tiles: Tiles | None = None, **options: Any) -> Fitted:
    """Train on tiny tiles; settings of the configuration have two underscores in their names."""
    settings = {name: options.pop(name) for name in list(options) if "__" in name}
    torch.manual_seed(0)
    return fitting.fit(
        configured(**settings),
        Tiles() if tiles is None else tiles,
        options.pop("validation", None) or Tiles(4, 1),
        out,
        device="cpu",
        discriminator=options.pop("discriminator", None) or Judge(),
        **options,
    )


def precise() -> dict[str, Any]:
    """Options for a training in float64, where rounding hides no mistake, on tiles with gaps.

    Five tiles in batches of three: two processes have shares of two and one, then of one and one.
    """
    parts = [Tiles(5, masked=True), Tiles(3, 1, masked=True)]
    for part in parts:
        for name, tensor in part.tensors.items():
            if tensor.dtype == torch.float32:
                part.tensors[name] = tensor.double()
    torch.manual_seed(0)
    generator = make_generator(configured()).double()
    with torch.no_grad():
        # The published first weights are so small that no gradient reaches the first layers.
        for weight in generator.parameters():
            weight.mul_(4)
    return {
        "tiles": parts[0],
        "validation": parts[1],
        "generator": generator,
        "discriminator": Judge().double(),
    }


def main() -> None:
    torch.set_num_threads(1)
    kill_at = int(os.environ.get("KILL_AT", "0"))

    def progress(step: int, *_: object) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    options = precise() if "PRECISE" in os.environ else {}
    settings = json.loads(os.environ.get("TINY", "{}"))
    fit(Path(sys.argv[1]), progress=progress, **options, **settings)
    names = (name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm"))
    sys.stdout.write(" ".join(["left:", *(name for name in names if "gloo" in name)]))


if __name__ == "__main__":
    main()
