"""``deepbedmap train``: from a training set to a network that predicts, however it is stopped."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.citing import sources_of
from support.places import EAST, PLACE, WEST, inputs_of, raster, slope

from deepbedmap import catalog, cli, demo, download, progress, rasters, registry, repository, tiles
from deepbedmap.model import checkpoints
from deepbedmap.model.training import from_files

RUN = "from deepbedmap.cli import main; main()"

TINY = """
[network]
name = "Generator"
features = 4
growth = 4
input_features = 4

[schedule]
pretraining_epochs = 12

[training]
seed = 3
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training set, half of whose beds are gaps, the rasters behind it, and settings."""
    folder = tmp_path_factory.mktemp("place")
    inputs = inputs_of(PLACE)
    velocity = inputs.velocity.where(inputs.velocity.x < EAST[2] - 9_000)
    velocity.attrs = inputs.velocity.attrs
    files = {"prior": inputs.prior, "surface": inputs.surface, "accumulation": inputs.accumulation}
    for name, grid in (files | {"velocity": velocity}).items():
        rasters.write_geotiff(grid, folder / f"{name}.tif")
    for name, box in (("West", WEST), ("East", EAST)):
        bed = raster(lambda x, y: slope(x, y) + 100 * np.sin(x / 1_500), 250, box).rename("z")
        lines = (np.arange(bed.sizes["y"]) // 4 % 2 == 0)[:, None]
        rasters.write_netcdf(bed.where(lines).assign_attrs(bed.attrs), folder / f"{name}.nc")
    (folder / "tiny.toml").write_text(TINY)
    return folder


@pytest.fixture(scope="module")
def training_set(place: Path) -> Path:
    opened = tiles.Inputs.open(
        *(place / f"{name}.tif" for name in ("prior", "surface", "velocity", "accumulation"))
    )
    surveys = {"West": place / "West.nc", "East": place / "East.nc"}
    path = tiles.build(surveys, opened, place / "tiles.zarr", step=36, coverage=0.4, by="survey")
    dataset = tiles.open_training_set(path)
    assert not dataset["mask"].all()
    assert 0 < dataset["complete"].sum() < dataset.sizes["tile"]
    return path


def options(place: Path) -> list[Path | str]:
    return [
        word
        for name in ("prior", "surface", "velocity", "accumulation")
        for word in (f"--{name}", place / f"{name}.tif")
    ]


@pytest.fixture(scope="module")
def unbroken(place: Path, training_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training leaves that nothing stopped, and in ``said.txt`` what it said."""
    out = tmp_path_factory.mktemp("unbroken") / "model"
    printed, warned = io.StringIO(), io.StringIO()
    words = ["train", training_set, "--config", place / "tiny.toml", "--out", out]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(warned):
        patch.setattr(sys, "argv", ["deepbedmap", *map(str, words)])
        with contextlib.suppress(SystemExit):
            cli.main()
    lines = [line for line in warned.getvalue().splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == [f"epoch {n}" for n in range(1, 13)]
    assert "g_loss" in lines[0]
    assert "validation_rmse" in lines[-1]
    (out / "said.txt").write_text(printed.getvalue())
    return out


def test_the_best_epoch_is_told_beside_the_bicubic_prior(unbroken: Path) -> None:
    rows = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    best = min(rows, key=lambda row: row["validation_rmse"])
    assert (unbroken / "said.txt").read_text() == (
        f"{unbroken}/best.safetensors: epoch {best['epoch']} of 12, validation RMSE "
        f"{best['validation_rmse']:.1f} m (bicubic prior {best['bicubic_rmse']:.1f} m)\n"
    )


def test_stopped_by_ctrl_c_and_by_sigkill_it_goes_on_to_the_same_bits(
    call, place, training_set, unbroken, tmp_path, monkeypatch
) -> None:
    out = tmp_path / "model"
    command = ["train", training_set, "--config", place / "tiny.toml", "--out", out]

    @contextlib.contextmanager
    def pressing(_: str) -> Iterator[object]:
        yield lambda step, *_: signal.raise_signal(signal.SIGINT) if step == 3 else None

    with monkeypatch.context() as patch:
        patch.setattr(progress, "steps", pressing)
        code, printed, err = call(*command)
    assert (code, printed) == (130, "")
    assert f"interrupted: the state is kept in {out}/last.safetensors; resume with --resume" in err
    killed = subprocess.Popen(
        [sys.executable, "-c", RUN, "train", training_set, "--out", out, "--resume"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as here: sums depend on it
        stderr=subprocess.PIPE,
        text=True,
    )
    assert killed.stderr.readline().startswith("epoch 1:")
    killed.kill()
    assert (killed.wait(), killed.stderr.close()) == (-signal.SIGKILL, None)
    code, printed, err = call("train", training_set, "--out", out, "--resume")
    assert code == 0, err
    assert "of 12, validation RMSE" in printed
    expected, found = (load_file(folder / "best.safetensors") for folder in (unbroken, out))
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_a_trained_network_predicts_and_is_scored_and_cited(
    call, place, unbroken, tmp_path, listed_datasets
) -> None:
    bed = tmp_path / "bed.tif"
    bounds = [-1_690_000, -262_000, -1_672_000, -244_000]
    code, _, err = call(
        *("predict", unbroken / "best.safetensors", *options(place)),
        *("--bounds", *bounds, "--out", bed),
    )
    assert code == 0, err
    assert rasters.open_raster(bed).notnull().all()
    picks = tmp_path / "picks.csv"
    lines = [f"{x},-250000,{slope(x, -250_000)}" for x in range(-1_689_000, -1_673_000, 500)]
    picks.write_text("\n".join(["x,y,bed", *lines]))
    reader = {"type": "readers.text", "filename": "picks.csv", "header": "X,Y,Z", "separator": ","}
    reader |= {"skip": 1, "override_srs": "EPSG:3031"}
    (tmp_path / "picks.json").write_text(json.dumps({"pipeline": [reader]}))
    code, printed, err = call("evaluate", bed, "--points", tmp_path / "picks.json", "--json")
    assert code == 0, err
    assert json.loads(printed)["picks"] == len(lines)

    metadata = checkpoints.load(unbroken / "best.safetensors").metadata
    assert metadata["training_set"]["split"]["by"] == "survey"
    sources = metadata["sources"]
    assert [source["role"] for source in sources[:3]] == ["training", "training", "prior"]
    listing = listed_datasets(
        *(
            {"citekey": f"MadeUp{n}", "title": "Made up", "folder": "misc", "files": [file]}
            for n, source in enumerate(sources)
            for file in [{"filename": source["file"], "url": None, "sha256": source["sha256"]}]
        )
    )
    code, printed, err = call(
        *("cite", unbroken / "best.safetensors", "--registry", listing.path, "--format", "text")
    )
    assert (code, len(printed.splitlines())) == (0, 6), err
    assert len(sources_of(bed, listing)) == 6


def test_without_a_path_the_catalog_s_training_set_is_taken(
    call, place, training_set, tmp_path, monkeypatch
) -> None:
    (tmp_path / "data" / "training").mkdir(parents=True)
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "data"))
    out = tmp_path / "model"
    command = ["train", "--config", place / "tiny.toml", "--out", out, "--epochs", 1]
    if (repository.root() / catalog.TRAINING_SET).exists():
        pytest.skip("the checkout has a training set of its own")
    code, _, err = call(*command)
    assert code == 1
    assert "deepbedmap tiles" in err
    assert err.count("\n") == 1
    (tmp_path / "data" / "training" / "tiles.zarr").symlink_to(training_set)
    code, printed, err = call(*command)
    assert code == 0, err
    assert "epoch 1 of 1" in printed


def test_epochs_shorten_the_later_phase_first(tmp_path) -> None:
    settings = tmp_path / "both.toml"
    settings.write_text(TINY.replace("= 12", "= 1\nadversarial_epochs = 5"))
    for epochs, phases in ((1, [1, 0]), (3, [1, 2])):
        schedule = from_files.settings_of(settings, epochs).schedule
        assert [schedule.pretraining_epochs, schedule.adversarial_epochs] == phases


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--config", "papr"], 1, "paper"),
        (["--device", "toaster"], 2, "--device"),
        (["--epochs", "0"], 2, "--epochs"),
        (["--resume"], 1, "found no such file; train without resume"),
    ],
)
def test_a_wrong_call_is_told(call, words, code, said, place, training_set, tmp_path) -> None:
    config = [] if "--config" in words else ["--config", place / "tiny.toml"]
    found, _, err = call("train", training_set, "--out", tmp_path / "m", *config, *words)
    assert (found, said in err) == (code, True), err
    assert not (tmp_path / "m" / "last.safetensors").exists()


def test_a_folder_with_a_training_is_not_overwritten(call, place, training_set, unbroken) -> None:
    before = (unbroken / "last.safetensors").read_bytes()
    command = ["train", training_set, "--config", place / "tiny.toml", "--out", unbroken]
    code, _, err = call(*command)
    assert code == 1
    assert "resume it (resume)" in err
    code, printed, err = call(*command, "--resume")
    assert (code, printed) == (0, (unbroken / "said.txt").read_text())
    assert "epoch" not in err
    assert (unbroken / "last.safetensors").read_bytes() == before


def test_the_demo_s_surveys_are_trained_on_by_commands_alone(call, place, tmp_path) -> None:
    small = demo.Configuration(extent=20_000, pick_spacing=500, reconnaissance_spacing=8_000)
    made_up = tmp_path / "repository"
    demo.write_repository(made_up, 3, small)
    listing = registry.load(made_up)
    names = [dataset.citekey for dataset in listing]
    download.fetch(names, registry=listing, data_dir=made_up, progress=False)
    grids = []
    for survey in ("MadeUp1", "MadeUp5"):
        grids.append(tmp_path / f"{survey}.nc")
        code, _, err = call("grid", made_up / "highres" / f"{survey}.json", "--out", grids[-1])
        assert code == 0, err
    code, _, err = call(
        *("tiles", *grids, "--out", tmp_path / "tiles.zarr", "--split", "survey", "--step", 12),
        *("--prior", made_up / "lowres" / "MadeUpPrior.tif"),
        *("--surface", made_up / "misc" / "MadeUpSurface.tif"),
        *("--velocity", made_up / "misc" / "MadeUpVelocity.nc"),
        *("--accumulation", made_up / "misc" / "MadeUpAccumulation.tif"),
    )
    assert code == 0, err
    code, printed, err = call(
        *("train", tmp_path / "tiles.zarr", "--config", place / "tiny.toml", "--epochs", 1),
        *("--out", tmp_path / "model"),
    )
    assert code == 0, err
    assert "epoch 1 of 1" in printed
    cited = sources_of(tmp_path / "model" / "best.safetensors", listing)
    assert cited[:2] == ["MadeUp1", "MadeUp5"]
    assert len(cited) == 6
