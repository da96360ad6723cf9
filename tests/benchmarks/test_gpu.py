from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.scripts import BENCHMARKS, load

from deepbedmap.model import losses, networks

# All that the package depends on, but torch and numpy.
BARE = """
import runpy, sys
for name in ("dask distributed filelock geopandas h5py intake jsonschema numba pandas pandera "
             "pooch pyarrow pygmt pyproj rasterio requests rich rioxarray safetensors scipy "
             "shapely typer xarray yaml zarr").split():
    sys.modules[name] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def plain_step() -> ModuleType:
    return load("plain_step")


def test_the_benchmark_runs_small_where_only_torch_and_numpy_are(tmp_path: Path) -> None:
    out = tmp_path / "results" / "gpu.json"
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    call = [sys.executable, "-c", BARE, BENCHMARKS / "gpu.py", "--small", "--out", out]
    done = subprocess.run(
        call, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert list(result["ways"]) == ["package, float32", "package, bfloat16", "plain, float32"]
    for name, way in result["ways"].items():
        assert "failure" not in way, way
        assert way["median_epoch_seconds"] > 0
        assert re.search(rf"^\| {name} \| \d+\.\d+ s \|", done.stdout, re.MULTILINE)
    assert "convolution" in result["profile"]["top"][0]["name"]
    predicted = result["prediction"]["ways"]
    assert list(predicted) == [
        "package, bfloat16, 1 GB",
        "package, bfloat16, free memory",
        "plain, float32",
    ]
    for name, way in predicted.items():
        assert "failure" not in way, way
        assert re.search(rf"^\| {name} \| \d+\.\d+ s \|", done.stdout, re.MULTILINE)
    assert predicted["package, bfloat16, 1 GB"]["cells"] == 16 * 20 * 28
    assert predicted["plain, float32"]["tiles"] == 6
    assert result["prediction"]["operations"] > 0


def test_the_plain_network_is_the_packages(plain_step: ModuleType) -> None:
    plain, ours = plain_step.Training(1), networks.Generator(1)
    with torch.no_grad():
        for weight in plain.generator.parameters():
            weight.mul_(5)  # offsets of more than a cell
    ours.load_state_dict(plain.generator.state_dict())
    judge = networks.Discriminator()
    judge.load_state_dict(plain.discriminator.state_dict())
    x, w1 = torch.randn(2, 1, 11, 11), torch.randn(2, 1, 110, 110)
    w2, w3 = torch.randn(2, 2, 22, 22), torch.randn(2, 1, 11, 11)
    bed, surveyed = ours(x, w1, w2, w3), torch.randn(2, 1, 36, 36)
    torch.testing.assert_close(plain.generator(x, w1, w2, w3), bed, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plain.discriminator(surveyed), judge(surveyed))

    real, fake = judge(surveyed), judge(bed)
    expected = (
        losses.discriminator_loss(real, fake),
        losses.generator_loss(bed, surveyed, fake_logits=fake, real_logits=real, x=x),
    )
    batch = {"x": x, "w1": w1, "w2": w2, "w3": w3, "y": surveyed}
    for found, value in zip(plain.step(batch), expected, strict=True):
        # The generator is judged by the discriminator as it is after its update.
        torch.testing.assert_close(found, value.detach(), rtol=0.01, atol=0)
