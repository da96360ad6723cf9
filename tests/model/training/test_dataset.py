"""Training sets in memory and streamed: their batches, their gaps, and what is refused."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file
from support import tiny

from deepbedmap.errors import InvalidDataError
from deepbedmap.model.training import StreamedSet, TrainingSet, checking, load_tiles, provenance_of
from deepbedmap.model.training.streaming import batches, shuffled
from deepbedmap.tiles import cut_inputs
from deepbedmap.tiles.inputs import INPUTS


@pytest.fixture
def tiles(inputs) -> dict[str, np.ndarray]:
    """Three tiles, each a kilometre further east than the last."""
    west = -498_000 + 1_000 * np.arange(3.0)
    boxes = np.stack([west, 0 * west + 1_002_000, west + 9_000, 0 * west + 1_011_000], axis=1)
    return cut_inputs(boxes, inputs()) | {"y": np.zeros((3, 1, 36, 36), "float32")}


@pytest.fixture
def stored(tmp_path) -> xr.Dataset:
    """Ten tiles in chunks of three, of a store; half a bed, and gaps in velocity and accumulation.

    Tile 4 has no velocity in a cell, tile 5 no accumulation; every other tile is for validation.
    """
    made = _training_set(["train", "validation"] * 5)
    made["w2"][4, 1, 7, 7] = np.nan
    made["w3"][5, 0, 2, 2] = np.nan
    made["complete"][[4, 5]] = False
    store = tmp_path / "tiles.zarr"
    made.to_zarr(
        store,
        zarr_format=3,
        consolidated=False,
        encoding={str(name): {"chunks": (3, *made[name].shape[1:])} for name in made},
    )
    opened = xr.open_zarr(store, zarr_format=3, consolidated=False, chunks={})
    return opened.assign_coords({name: opened[name].load() for name in opened.coords})


def _training_set(split: list[str]) -> xr.Dataset:
    """One tile for each part that is named."""
    count = len(split)
    tensors = tiny.Tiles(count, masked=True).tensors
    owner = {name: "y" if name == "mask" else name for name in tensors}
    return xr.Dataset(
        {
            name: (["tile", *(f"{owner[name]}_{n}" for n in range(3))], tensor.numpy())
            for name, tensor in tensors.items()
        },
        {
            **{name: ("tile", np.zeros(count)) for name in ("xmin", "ymin", "xmax", "ymax")},
            "split": ("tile", np.array(split, dtype=object)),
            "complete": ("tile", np.ones(count, bool)),
        },
        {"provenance": '{"sources": [{"file": "a.csv"}], "split": {"by": "block"}}'},
    )


def test_a_batch_holds_the_tiles_of_its_numbers(tiles):
    batch = TrainingSet(tiles)[torch.tensor([2, 0])]
    assert batch["index"].tolist() == [2, 0]
    np.testing.assert_array_equal(batch["x"][0], tiles["x"][2])


@pytest.mark.parametrize("name", ["x", "w1", "w2", "w3", "y"])
def test_training_tiles_with_gaps_are_refused_and_named(name, tiles):
    tiles[name][1, 0, 3, 3] = np.nan
    with pytest.raises(InvalidDataError, match=rf"entry tile 1, field {name}.*1 cells of NaN"):
        TrainingSet(tiles)


def test_arrays_of_different_length_are_refused(tiles):
    tiles["y"] = tiles["y"][:2]
    with pytest.raises(InvalidDataError, match="2 in y"):
        TrainingSet(tiles)


def test_a_training_set_without_tiles_is_refused(tiles):
    with pytest.raises(InvalidDataError, match="at least one"):
        TrainingSet({name: array[:0] for name, array in tiles.items()})


def test_a_bed_may_be_missing_where_the_mask_says_so_and_nowhere_else(tiles):
    tiles["y"][1, 0, :, 20:] = np.nan
    tiles["mask"] = np.isfinite(tiles["y"])
    assert TrainingSet(tiles)[torch.tensor([1])]["mask"].sum() == 36 * 20
    tiles["mask"][1, 0, 5, 30] = True
    with pytest.raises(InvalidDataError, match=r"tile 1, field y: .* of the mask, found 1 cells"):
        TrainingSet(tiles)


def test_an_absent_input_is_zero_and_leaves_the_given_arrays_alone(tiles):
    tiles["w2"][1, 0, 3, 3] = np.nan
    tiles["present"] = np.array([[True, True, True], [True, False, True], [True, True, True]])
    batch = TrainingSet(tiles)[torch.arange(3)]
    assert (batch["w2"][1] == 0).all()
    assert (batch["w2"][[0, 2]] == 300).all()
    assert np.isnan(tiles["w2"][1, 0, 3, 3])
    tiles["w2"][2, 0, 3, 3] = np.inf
    with pytest.raises(InvalidDataError, match=r"tile 2, field w2: .* of an input that is present"):
        TrainingSet(tiles)


def test_grids_at_other_ratios_are_refused(tiles):
    tiles["w2"] = tiles["w2"][..., ::2, ::2]
    with pytest.raises(InvalidDataError, match="field w2: expected 22 x 22 cells for x of 11"):
        TrainingSet(tiles)


def test_tiles_of_a_store_bring_their_masks_and_what_is_absent(stored):
    train = TrainingSet.from_dataset(stored, "train")
    assert len(train) == 5
    batch = train[torch.arange(5)]
    np.testing.assert_array_equal(batch["mask"], stored["mask"][::2])
    assert batch["present"].tolist() == [[True, number != 2, True] for number in range(5)]
    assert (batch["w2"][2] == 0).all()
    held_out = TrainingSet.from_dataset(stored, "validation")[torch.arange(5)]
    assert held_out["present"].tolist() == [[True, True, number != 2] for number in range(5)]


def test_streamed_tiles_are_those_in_memory(stored):
    for split in ("train", "validation"):
        whole, streamed = TrainingSet.from_dataset(stored, split), StreamedSet(stored, split)
        assert len(streamed) == len(whole)
        assert (whole.device, streamed.device) == (torch.device("cpu"),) * 2
        for numbers in ([0], [4, 1, 3, 1], [2, 0, 1, 4, 3]):
            expected, found = (part[torch.tensor(numbers)] for part in (whole, streamed))
            assert expected.keys() == found.keys()
            for name, tensor in expected.items():
                assert torch.equal(tensor.nan_to_num(), found[name].nan_to_num()), name
                assert tensor.dtype == found[name].dtype


def test_a_streamed_set_keeps_no_more_chunks_than_it_may(stored):
    streamed = StreamedSet(stored, "train", cache=1)
    streamed[torch.arange(5)]
    assert len(streamed._kept) == 1
    roomy = StreamedSet(stored, "train")
    roomy[torch.arange(5)]
    assert len(roomy._kept) == 3


def test_a_set_over_the_memory_is_streamed(stored):
    for memory, kind in ((None, TrainingSet), (0, StreamedSet)):
        assert [type(part) for part in load_tiles(stored, "cpu", memory)] == [kind, kind]


@pytest.mark.parametrize(("room", "batch"), [(1, 1), (1, 4), (3, 4), (7, 32), (100, 4)])
def test_an_epoch_takes_each_streamed_tile_once_and_reads_each_chunk_once(room, batch):
    # Chunks of three tiles: ten with two of training, two with none.
    stored = _training_set([*["train", "train", "validation"] * 10, *["validation"] * 6])
    chunks, read = 10, []

    def count(block: np.ndarray) -> np.ndarray:
        read.append(block)
        return block

    stored = stored.chunk(tile=3)
    stored["x"] = stored["x"].copy(data=stored["x"].data.map_blocks(count, dtype="float32"))
    streamed = StreamedSet(stored, "train", room * 3 * checking.bytes_per_tile(stored))
    assert streamed.chunks_at_once == (room if room < chunks else None)
    for epoch in range(2):
        order = shuffled(streamed, np.random.default_rng([0, epoch]))
        again = shuffled(streamed, np.random.default_rng([0, epoch]))
        np.testing.assert_array_equal(order, again)
        assert sorted(order) == list(range(len(streamed)))
        assert (np.diff(order) != 1).any()
        read.clear()
        taken = batches(streamed, torch.from_numpy(order).split(batch))
        found = torch.cat([tiles["index"] for tiles in taken])
        assert found.tolist() == order.tolist()
        assert len(read) <= chunks
    whole = TrainingSet.from_dataset(stored, "train")
    one, other = (shuffled(tiles, np.random.default_rng(1)) for tiles in (streamed, whole))
    assert (one == other).all() == (room >= chunks)


def test_training_streamed_and_in_memory_ends_with_the_same_bits_where_all_fits(stored, tmp_path):
    best = []
    for kind in (TrainingSet.from_dataset, StreamedSet):
        train, validation = kind(stored, "train"), kind(stored, "validation")
        out = tmp_path / str(len(best))
        tiny.fit(out, train, validation=validation, network__name="FlowAlignedGenerator")
        best.append(load_file(out / "best.safetensors"))
    assert best[0].keys() == best[1].keys()
    assert all(torch.equal(tensor, best[1][name]) for name, tensor in best[0].items())


def test_streamed_batches_are_read_ahead_by_a_thread_that_ends(stored):
    streamed, readers = StreamedSet(stored, "train"), []

    class Watched(StreamedSet):
        def __getitem__(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
            readers.append(threading.current_thread())
            return streamed[index]

    wanted = [torch.tensor([number]) for number in (3, 1, 4, 0, 2)]
    read = batches(Watched(stored, "train"), wanted)
    first = next(read)
    assert first["index"].tolist() == [3]
    read.close()
    assert len(readers) < len(wanted)
    assert threading.main_thread() not in readers
    assert not any(reader.is_alive() for reader in readers)
    order = [int(batch["index"]) for batch in batches(Watched(stored, "train"), wanted)]
    assert order == [3, 1, 4, 0, 2]


def _without_mask(stored: xr.Dataset) -> xr.Dataset:
    return stored.assign(mask=stored["mask"] | True)


def _without_prior(stored: xr.Dataset) -> xr.Dataset:
    return stored.assign(x=stored["x"].where(xr.DataArray(np.arange(10) != 2, dims="tile")))


def _finer(stored: xr.Dataset) -> xr.Dataset:
    return stored.assign(x=stored["x"].assign_attrs(resolution=500.0))


def _fewer(stored: xr.Dataset) -> xr.Dataset:
    return stored.isel(w1_1=slice(0, 100), w1_2=slice(0, 100))


@pytest.mark.parametrize("kind", [TrainingSet.from_dataset, StreamedSet])
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (_without_mask, "entry tile 2, field y: .* of the mask"),
        (_without_prior, "entry tile 2, field x"),
        (lambda stored: stored.assign(complete=stored["complete"] | True), "tile 4, field w2"),
        (_finer, "field x: expected cells of 1000 m, found cells of 500 m"),
        (_fewer, "field w1: expected 110 x 110 cells"),
        (lambda stored: stored.isel(tile=slice(1, None, 2)), "^train tiles: expected at least one"),
    ],
)
def test_a_store_at_fault_is_told_by_the_number_of_the_tile(kind, broken, said, stored):
    with pytest.raises(InvalidDataError, match=said):
        kind(broken(stored), "train")[torch.arange(5)]


def test_another_training_set_has_another_digest(stored):
    told = provenance_of(stored)
    assert told["sources"] == [{"file": "a.csv"}]
    assert told["training_set"]["split"] == {"by": "block"}
    moved = stored.assign_coords(xmin=stored["xmin"] + 250)
    assert provenance_of(moved)["training_set"]["sha256"] != told["training_set"]["sha256"]
    assert provenance_of(stored) == told


def test_a_training_does_not_go_on_with_another_training_set(stored, tmp_path):
    def fit(which: xr.Dataset, **options: Any) -> None:
        train, validation = load_tiles(which)
        known = provenance_of(which)
        tiny.fit(tmp_path, train, validation=validation, provenance=known, **options)

    fit(stored)
    fit(stored, resume=True)
    with pytest.raises(InvalidDataError, match=r"field training_set\.sha256: expected"):
        fit(stored.assign_coords(ymin=stored["ymin"] - 250), resume=True)


def test_half_of_a_gpu_s_free_memory_decides_where_tiles_lie(stored, monkeypatch):
    moved = []
    monkeypatch.setattr(TrainingSet, "to", lambda self, place: moved.append(place) or self)
    size = 10 * checking.bytes_per_tile(stored)
    for free, count in ((2 * size, 0), (2 * size + 2, 2)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 2 * free))
        load_tiles(stored, "cuda:0")
        assert len(moved) == count
    assert set(INPUTS) < TrainingSet.from_dataset(stored, "train").tensors.keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_tiles_are_trained_on_where_the_network_is(stored, tmp_path):
    train, validation = load_tiles(stored, "cuda")
    assert train.device.type == "cuda"
    assert tiny.training.fit(
        tiny.configured(), train, validation, tmp_path, device="cuda"
    ).best.exists()
