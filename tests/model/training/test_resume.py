"""A training that is stopped and goes on ends as one that never stopped."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import tiny
from torch import Tensor

from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.model import checkpoints
from deepbedmap.provenance import registry_commit

TEN_EPOCHS = {
    "schedule__pretraining_epochs": 7,
    "schedule__adversarial_epochs": 3,
    "losses__adversarial_weight": 0.02,
    "training__augmentation": True,
}


def _rows(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def _require_same(one: Path, other: Path) -> None:
    for name in ("last", "best"):
        expected, found = (load_file(out / f"{name}.safetensors") for out in (one, other))
        assert expected.keys() == found.keys()
        for key, tensor in expected.items():
            assert torch.equal(tensor, found[key]), key
    assert _rows(one) == _rows(other)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken")
    tiny.fit(out, **TEN_EPOCHS)
    return out


def test_four_epochs_a_kill_and_six_are_ten_bit_for_bit(unbroken: Path, tmp_path: Path) -> None:
    # Two steps an epoch: it is killed within the fifth.
    killed = subprocess.run(
        [sys.executable, tiny.__file__, str(tmp_path)],
        env=os.environ | {"TINY": json.dumps(TEN_EPOCHS), "KILL_AT": "9"},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(_rows(tmp_path)) == 4
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 5, "st')
    tiny.fit(tmp_path, resume=True, **TEN_EPOCHS)
    _require_same(unbroken, tmp_path)


@pytest.mark.parametrize("stop_at", [5, 16])
def test_ctrl_c_keeps_the_state_of_the_last_step(
    unbroken: Path, tmp_path: Path, stop_at: int
) -> None:
    taken = []

    def progress(step: int, *_: object) -> None:
        taken.append(step)
        if step == stop_at:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"last\.safetensors"):
        tiny.fit(tmp_path, progress=progress, **TEN_EPOCHS)
    assert signal.getsignal(signal.SIGINT) is before
    assert taken[-1] == stop_at
    stop_at = 0
    tiny.fit(tmp_path, progress=progress, resume=True, **TEN_EPOCHS)
    assert taken == list(range(1, 21))
    _require_same(unbroken, tmp_path)


def test_going_on_with_a_finished_training_changes_nothing(unbroken: Path, tmp_path: Path) -> None:
    fitted = tiny.fit(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = tiny.fit(tmp_path, resume=True)
    assert again == fitted
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resuming_to_other_bits_is_reported_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.fit(tmp_path)
    tiny.fit(tmp_path, resume=True)
    assert not caplog.records
    torch.set_num_threads(2)
    try:
        tiny.fit(tmp_path, resume=True)
    finally:
        torch.set_num_threads(1)
    (record,) = caplog.records
    assert record.getMessage() == (
        "the result will differ in its last bits from an uninterrupted training: "
        "it had threads 1, now 2"
    )


def test_other_settings_or_tiles_than_before_are_refused_by_name(tmp_path: Path) -> None:
    tiny.fit(tmp_path)
    with pytest.raises(InvalidDataError) as caught:
        tiny.fit(tmp_path, tiny.Tiles(7), resume=True, optimizer__learning_rate=0.5)
    rate, tiles = str(caught.value).splitlines()
    assert "field optimizer.learning_rate: expected 0.002 as in the training, found 0.5" in rate
    assert "field tiles.training: expected 6 as in the training, found 7" in tiles


def test_a_folder_that_holds_a_training_is_not_overwritten(tmp_path: Path) -> None:
    tiny.fit(tmp_path)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(InvalidDataError, match="found the state of one; resume it"):
        tiny.fit(tmp_path)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_where_nothing_was_trained_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"last\.safetensors: .* train without resume"):
        tiny.fit(tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_is_cut_short_or_another_kind_of_file_is_told(tmp_path: Path) -> None:
    fitted = tiny.fit(tmp_path)
    content = fitted.last.read_bytes()
    fitted.last.write_bytes(content[:-100])
    with pytest.raises(InvalidDataError, match="expected a complete safetensors file"):
        tiny.fit(tmp_path, resume=True)
    fitted.last.write_bytes(fitted.best.read_bytes())
    with pytest.raises(InvalidDataError, match="found a checkpoint of a Generator only"):
        tiny.fit(tmp_path, resume=True)


def test_a_full_disk_is_told_and_keeps_the_earlier_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, bytes] = {}
    write = Path.write_bytes

    def fail(self: Path, content: bytes) -> int:
        if kept and "last" in self.name:
            write(self, content[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, content)

    def progress(step: int, *_: object) -> None:
        if step == 3:
            kept.update({path.name: path.read_bytes() for path in tmp_path.glob("last.*")})

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(InvalidDataError) as caught:
        tiny.fit(tmp_path, progress=progress)
    message = str(caught.value)
    assert "found a full disk; the existing file is kept; make room" in message
    assert "\n" not in message
    assert {path.name: path.read_bytes() for path in tmp_path.glob("last.*")} == kept
    assert not list(tmp_path.glob(".*"))
    kept.clear()
    tiny.fit(tmp_path, resume=True)
    assert [row["epoch"] for row in _rows(tmp_path)] == [1, 2]


def test_a_disk_that_is_full_from_the_start_leaves_nothing_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(InvalidDataError, match="nothing was written; make room, then begin again"):
        tiny.fit(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_state_says_in_json_what_it_was_made_of(tmp_path: Path) -> None:
    sources = [{"citekey": "King2016Rutford", "file": "a.csv", "sha256": "0" * 64}]
    fitted = tiny.fit(tmp_path, provenance={"sources": sources, "split": "by survey"})
    for path in (fitted.last, fitted.best):
        document = json.loads(path.with_suffix(".json").read_text())
        assert document["sources"] == sources
        assert document["split"] == "by survey"
        assert document["configuration"]["training"]["batch"] == 3
        assert document["tiles"] == {"training": 6, "validation": 4}
        assert document["metrics"][0]["validation_rmse"] > 0
        assert document["versions"].keys() == {"deepbedmap", "torch", "numpy", "python"}
        assert "normalisation" in document
        assert "registry_commit" in document
    assert checkpoints.load(fitted.best).metadata["sources"] == sources


def test_the_best_checkpoint_holds_the_running_average_of_the_best_epoch(tmp_path: Path) -> None:
    fitted = tiny.fit(tmp_path, schedule__pretraining_epochs=3)
    scores = [row["validation_rmse"] for row in fitted.history]
    best = checkpoints.load(fitted.best)
    assert best.metadata["epoch"] == 1 + scores.index(min(scores))
    if best.metadata["epoch"] == 3:
        state: dict[str, Tensor] = load_file(fitted.last)
        for name, tensor in best.network.state_dict().items():
            assert torch.equal(tensor, state[f"average.{name}"])
            assert not torch.equal(tensor, state[f"generator.{name}"])


def test_the_state_is_not_taken_for_a_network(tmp_path: Path) -> None:
    fitted = tiny.fit(tmp_path)
    with pytest.raises(InvalidDataError, match=r"load the best\.safetensors next to it"):
        checkpoints.load(fitted.last)


def test_the_registrys_commit_is_none_where_there_is_no_git(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert registry_commit() is None
