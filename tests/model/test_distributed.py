"""Two processes that share each batch train as one process with the whole."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import tiny
from support.processes import start_two
from torch import nn

from deepbedmap.errors import InvalidDataError
from deepbedmap.model import distributed

SETTINGS = {
    "schedule__pretraining_epochs": 1,
    "schedule__adversarial_epochs": 2,
    "losses__adversarial_weight": 0.02,
    "losses__topographic_weight": 0.002,
    "losses__structural_weight": 0.1,
    # A gradient that is zero but for rounding must not become a step by its sign.
    "optimizer__eps": 1e-3,
    "training__augmentation": True,
}


def _finish(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        told, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        # A thread that outlives the group may free a tensor after Python has ended, and abort.
        assert told.splitlines()[-1] == "left:"


def _rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one_with_the_joined_batch(tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    processes = start_two(tiny.__file__, str(two), TINY=json.dumps(SETTINGS), PRECISE="1")
    start = {
        name: weight.clone() for name, weight in tiny.precise()["generator"].named_parameters()
    }
    tiny.fit(one, **tiny.precise(), **SETTINGS)
    _finish(processes)
    for row, expected in zip(_rows(two), _rows(one), strict=True):
        for name in expected.keys() - {"phase", "seconds"}:
            near = pytest.approx(expected[name], rel=1e-9, abs=1e-12)
            assert row[name] == near, (row["epoch"], name)
    ours, theirs = (load_file(out / "last.safetensors") for out in (two, one))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        if not name.startswith("random"):
            torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-12, msg=name)
    for name, weight in start.items():
        assert not torch.allclose(weight, ours[f"generator.{name}"], rtol=0, atol=1e-10), name


def test_a_batch_is_shared_so_that_every_tile_is_in_one_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 3)
    tiles: list[int] = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        tiles += range(8)[distributed.share(8)]
    assert sorted(tiles) == list(range(8))


def test_alone_nothing_is_wrapped_and_sums_are_the_tensors_themselves() -> None:
    network = nn.BatchNorm2d(2)
    assert distributed.parallel(network) is network
    assert type(distributed.synchronise(network)) is nn.BatchNorm2d
    tensor = torch.ones(3)
    assert distributed.sum_of_all(tensor) is tensor
    assert distributed.whole(tensor, 3) is tensor


def test_the_joint_batch_normalisation_is_pytorchs_where_there_is_one_process() -> None:
    torch.manual_seed(0)
    theirs, ours = nn.BatchNorm2d(3), distributed.BatchNorm(3)
    with torch.no_grad():
        for norm in (theirs, ours):
            norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
            norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    inputs = [(500 + 3 * torch.randn(4, 3, 5, 6)).requires_grad_() for _ in range(1)] * 2
    outputs = [norm(x) for norm, x in zip((theirs, ours), inputs, strict=True)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
    way = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad((y * way).sum(), inputs[0])[0] for y in outputs]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer, rtol=1e-4, atol=1e-5)
    theirs.eval()
    ours.eval()
    torch.testing.assert_close(theirs(inputs[0]), ours(inputs[0]), rtol=1e-4, atol=1e-3)


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with (
        pytest.raises(InvalidDataError, match=r"expected GPU 1, .* found 0 GPUs; .* on cpu"),
        distributed.joined("cuda:1"),
    ):
        pass
    with distributed.joined() as place:
        assert place.type == "cpu"
