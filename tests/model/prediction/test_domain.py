"""A domain in bands and pieces: the same bed as in one piece, gaps, and memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deepbedmap import products
from deepbedmap.errors import InvalidDataError
from deepbedmap.model import prediction
from deepbedmap.model.networks import FlowAlignedGenerator, Generator, bicubic
from deepbedmap.model.prediction import domain

CELLS = {"x": (1, 1), "w1": (1, 10), "w2": (2, 2), "w3": (1, 1)}


class Source:
    """Made-up inputs of a domain, which remembers what was read."""

    def __init__(self, h: int, w: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.shape = h, w
        self.grids = {
            name: random.standard_normal((bands, cells * h, cells * w), np.float32)
            for name, (bands, cells) in CELLS.items()
        }

    def __call__(self, top: int, bottom: int, left: int, right: int) -> dict[str, np.ndarray]:
        return {
            name: self.grids[name][:, cells * top : cells * bottom, cells * left : cells * right]
            for name, (_, cells) in CELLS.items()
        }

    def tensors(self) -> list[torch.Tensor]:
        return [torch.from_numpy(grid)[None] for grid in self.grids.values()]


def generator(blocks: int = 1, offsets: tuple[float, float] = (1.0, 1.0), **options) -> Generator:
    """A tiny generator with weights large enough for a bed that varies, and offsets scaled."""
    torch.manual_seed(0)
    network = Generator(
        blocks, **{"features": 4, "growth": 4, "input_features": 4, "flags": False, **options}
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(5)
        layers = network.final_conv_layer1, network.final_conv_layer2
        for layer, scale in zip(layers, offsets, strict=True):
            layer.offset_conv.weight.mul_(scale)
        network.final_conv_layer2.deform_conv.weight.mul_(50)
    return network


def joined(
    blocks: Iterable[prediction.Block], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Bed and quality of a domain, each of whose cells is in one block."""
    rows, columns = (4 * (cells - 2) for cells in shape)
    bed, quality = np.zeros((rows, columns), np.float32), np.zeros((rows, columns), np.uint8)
    count = np.zeros((rows, columns), int)
    for block in blocks:
        part = np.s_[
            block.top : block.top + len(block.bed), block.left : block.left + block.bed.shape[1]
        ]
        bed[part], quality[part] = block.bed, block.quality
        count[part] += 1
    assert (count == 1).all()
    return bed, quality


def refined(network, source, bands=None, **options):
    bands = domain.bands(network, source.shape, **options) if bands is None else bands
    return joined(
        (
            block
            for band in bands
            for block in domain.refine_band(network, source, source.shape, band, **options)
        ),
        source.shape,
    )


def at_once(network, source) -> np.ndarray:
    with torch.inference_mode():
        return network(*source.tensors())[0, 0].numpy()


@pytest.mark.parametrize(
    ("blocks", "offsets"), [(1, (1, 1)), (1, (300, 1)), (1, (1, 40)), (2, (100, 60))]
)
def test_bands_and_pieces_give_the_bed_of_one_piece(blocks, offsets):
    network, source = generator(blocks, offsets), Source(62, 47)
    reached = []
    for layer in (network.final_conv_layer1, network.final_conv_layer2):
        layer.offset_conv.register_forward_hook(lambda *a: reached.append(float(a[2].abs().max())))
    expected = at_once(network, source)
    if max(offsets) > 1:
        assert max(reached) > 10  # cells
    least = prediction.least_memory(network, source.shape) + 10**8
    rows = 7
    bands = [slice(row, min(row + rows, 60)) for row in range(0, 60, rows)]
    for options in ({}, {"memory": least}):
        bed, quality = refined(network, source, bands, **options)
        np.testing.assert_allclose(bed, expected, rtol=0, atol=1e-3)
        assert not quality.any()
    assert np.std(expected) > 0.05


@pytest.mark.parametrize(("blocks", "offsets"), [(1, (300, 1)), (2, (100, 60))])
def test_but_for_rounding_pieces_give_exactly_the_bed_of_one_piece(blocks, offsets):
    network, source = generator(blocks, offsets).double(), Source(52, 37)
    with torch.inference_mode():
        expected = network(*(grid.double() for grid in source.tensors()))[0, 0].numpy()
    to_metres = 300 / expected.std()
    with torch.no_grad():
        for weight in network.final_conv_layer2.deform_conv.parameters():
            weight.mul_(to_metres)
    bands = [slice(row, min(row + 7, 50)) for row in range(0, 50, 7)]
    memory = prediction.least_memory(network, source.shape) + 10**8
    bed, _ = refined(network, source, bands, memory=memory)
    np.testing.assert_allclose(bed, to_metres * expected, rtol=1e-7, atol=1e-4)


@settings(max_examples=12, deadline=None)
@given(
    h=st.integers(3, 40), w=st.integers(3, 30), rows=st.integers(1, 40), reach=st.integers(1, 300)
)
def test_a_domain_of_any_shape_in_any_bands_is_one_image(h, w, rows, reach):
    network, source = generator(offsets=(reach, 10)), Source(h, w)
    bands = [slice(row, min(row + rows, h - 2)) for row in range(0, h - 2, rows)]
    bed, _ = refined(network, source, bands)
    np.testing.assert_allclose(bed, at_once(network, source), rtol=0, atol=1e-3)


def test_a_large_domain_has_no_seams():
    network, source = generator(offsets=(40, 40)), Source(602, 602)
    bands = domain.bands(network, source.shape, prediction.least_memory(network, source.shape))
    assert len(bands) > 100
    few = [slice(300, 320), *bands[302:318:5]]
    beds = {}
    for band, memory in zip(few, [6 * 10**8] + [None] * len(few), strict=False):
        memory = memory or prediction.least_memory(network, source.shape)
        rows = np.zeros((4 * (band.stop - band.start), 2400), np.float32)
        for block in domain.refine_band(network, source, source.shape, band, memory=memory):
            top, left = block.top - 4 * band.start, block.left
            rows[top : top + len(block.bed), left : left + block.bed.shape[1]] = block.bed
        beds[band.start, band.stop] = rows
    whole = beds.pop((300, 320))
    assert np.std(whole) > 0.05
    for (start, stop), bed in beds.items():
        expected = whole[4 * (start - 300) : 4 * (stop - 300)]
        np.testing.assert_allclose(bed, expected, rtol=0, atol=1e-3)


def test_a_gap_is_absent_from_the_cells_that_see_it_and_marked():
    network, source = generator(flags=True), Source(30, 26)
    with torch.no_grad():
        network.input_block.absent.normal_()
    source.grids["w1"][0, 105, 118] = np.nan  # in the cell of row 10, column 11
    source.grids["w2"][1, 40:44, 20:24] = np.nan
    source.grids["w3"][0, 0, 0] = np.nan
    source.grids["x"][0, 20, 5:7] = np.nan
    bed, quality = refined(network, source, [slice(0, 11), slice(11, 28)])

    def marked(name: str) -> list[tuple[int, int]]:
        bits = quality[::4, ::4] & products.QUALITY[name]
        assert (np.kron(bits, np.ones((4, 4))) == quality & products.QUALITY[name]).all()
        return sorted(zip(*(edge.tolist() for edge in np.nonzero(bits)), strict=True))

    # Three of the output's cells see a cell; the output begins at the input's second row.
    assert marked("surface") == [(row, column) for row in (8, 9, 10) for column in (9, 10, 11)]
    assert marked("velocity") == [(row, column) for row in range(18, 22) for column in range(8, 12)]
    assert marked("accumulation") == [(0, 0)]
    assert marked("prior") == [(19, 4), (19, 5)]
    np.testing.assert_array_equal(np.isnan(bed), quality & products.QUALITY["prior"] > 0)

    # The same as if the network were told for each cell, and the prior were at sea level.
    bits = torch.from_numpy(quality[::4, ::4])
    names = ("surface", "velocity", "accumulation")
    present = torch.stack([bits & products.QUALITY[name] == 0 for name in names])[None]
    x, *optional = (grid.nan_to_num(0) for grid in source.tensors())
    with torch.inference_mode():
        expected = network(x, *optional, present)[0, 0].numpy()
        ignored = network(x, *optional)[0, 0].numpy()
    there = np.isfinite(bed)
    np.testing.assert_allclose(bed[there], expected[there], rtol=0, atol=1e-3)
    assert np.abs(expected - ignored)[there].max() > 0.002


def test_an_input_absent_from_a_whole_domain_is_absent_as_in_training():
    network, source = generator(flags=True), Source(20, 16)
    with torch.no_grad():
        network.input_block.absent.normal_()
    source.grids["w2"][:] = np.nan
    bed, quality = refined(network, source)
    with torch.inference_mode():
        expected = network(*source.tensors(), torch.tensor([[True, False, True]]))[0, 0]
    np.testing.assert_allclose(bed, expected, rtol=0, atol=1e-3)
    assert (quality == products.QUALITY["velocity"]).all()


class Average(nn.Module):
    """A network that sees tiles: the bicubic prior plus something that differs from tile to tile.

    It has no weights, and says what it was given.
    """

    def forward(self, x, w1, w2, w3):
        seen = w1.mean((2, 3)) + w2.mean((2, 3)).sum(1, keepdim=True) + w3.mean((2, 3))
        return bicubic(x) + 100 * seen[..., None, None]


@pytest.mark.parametrize("rows", [1, 4, 13, 38])
def test_networks_that_see_tiles_do_not_depend_on_bands(rows):
    source = Source(40, 33)
    bands = [slice(row, min(row + rows, 38)) for row in range(0, 38, rows)]
    whole, _ = refined(Average(), source, [slice(0, 38)], origin=(1, 2))
    bed, _ = refined(Average(), source, bands, origin=(1, 2), batch_size=7)
    np.testing.assert_allclose(bed, whole, rtol=0, atol=1e-3)


def test_a_window_has_the_tiles_of_its_domain():
    source = Source(60, 50)
    network = FlowAlignedGenerator(features=4, growth=4, input_features=4)
    whole, _ = refined(network, source, [slice(0, 58)], origin=(7, -4))
    top, left, rows, columns = 11, 7, 34, 31

    def window(first, last, start, stop):
        return source(first + top, last + top, start + left, stop + left)

    shape = rows + 2, columns + 2
    blocks = domain.refine_band(network, window, shape, slice(0, rows), origin=(7 + top, -4 + left))
    bed, _ = joined(blocks, shape)
    inner = np.s_[36:-36, 36:-36]
    expected = whole[4 * top : 4 * (top + rows), 4 * left : 4 * (left + columns)]
    np.testing.assert_allclose(bed[inner], expected[inner], rtol=0, atol=1e-3)
    assert np.abs(bed - expected).max() > 1


def test_a_tile_lacks_an_input_with_a_gap_as_a_whole():
    source = Source(11, 11)
    source.grids["w1"][0, 55, 55] = np.nan
    source.grids["x"][0, 3, 4] = np.nan
    bed, quality = refined(Average(), source)
    x, w1, w2, w3 = source.tensors()
    filled = x.nan_to_num(float(x.nanmean()))
    expected = Average()(filled, torch.zeros_like(w1), w2, w3)[0, 0].numpy()
    hole = np.s_[8:12, 12:16]
    expected[hole] = np.nan
    np.testing.assert_allclose(bed, expected, rtol=0, atol=1e-3)
    assert (quality[hole] == products.QUALITY["prior"] + products.QUALITY["surface"]).all()
    quality[hole] = products.QUALITY["surface"]
    assert (quality == products.QUALITY["surface"]).all()


def test_a_domain_without_a_prior_has_no_bed():
    for network in (generator(), Average()):
        source = Source(14, 12)
        source.grids["x"][:] = np.nan
        bed, quality = refined(network, source)
        assert np.isnan(bed).all()
        assert (quality == products.QUALITY["prior"]).all()


@pytest.mark.parametrize("network", [generator(), Average()], ids=["image", "tiles"])
def test_the_least_memory_is_named_and_does(network):
    shape = (402, 302)
    least = prediction.least_memory(network, shape)
    with pytest.raises(InvalidDataError, match=rf"at least {-(-least // 10**6)} MB .*found 1 MB"):
        domain.bands(network, shape, 10**6)
    bands = domain.bands(network, shape, least)
    assert [band.start for band in bands] == [0, *(band.stop for band in bands[:-1])]
    assert bands[-1].stop == 400
    assert {band.stop - band.start for band in bands} == {1}
    # However much there is, on a CPU no band is so long that much is lost with it.
    bands = domain.bands(network, shape, 10**11)
    assert 1 < len(bands) <= 400 // 72


def test_offsets_that_point_beyond_what_the_memory_holds_are_told():
    network, source = generator(offsets=(20_000, 1)), Source(202, 122)
    least = prediction.least_memory(network, source.shape)
    blocks = domain.refine_band(network, source, source.shape, slice(90, 92), memory=least)
    with pytest.raises(InvalidDataError, match="expected at least"):
        list(blocks)


def test_what_was_read_must_fit_what_was_asked_for():
    source = Source(20, 20)
    source.grids["w2"] = source.grids["w2"][:, ::2]
    with pytest.raises(ValueError, match=r"read: expected w2 of \d+ x 40 cells"):
        refined(generator(), source)


@pytest.mark.parametrize("band", [slice(0, 19), slice(5, 5), slice(0, 10, 2)])
def test_a_band_outside_the_domain_is_a_wrong_call(band):
    with pytest.raises(ValueError, match="band: expected rows of 0 to 18"):
        domain.refine_band(generator(), Source(20, 20), (20, 20), band)


MEASURED = """
import resource, sys
import numpy as np, torch
from deepbedmap.model.networks import FlowAlignedGenerator, Generator
from deepbedmap.model.prediction import domain
kind = {"image": Generator, "tiles": FlowAlignedGenerator}[sys.argv[1]]
network = kind(1, features=16, growth=8, input_features=8)
grids = {"x": (1, 1), "w1": (1, 10), "w2": (2, 2), "w3": (1, 1)}
def read(top, bottom, left, right):
    return {name: np.ones((bands, cells * (bottom - top), cells * (right - left)), np.float32)
            for name, (bands, cells) in grids.items()}
for block in domain.refine_band(network, read, (22, 22), slice(0, 20)):
    pass  # libraries are loaded
shape = 82, 202
memory = int(1.2 * domain.least_memory(network, shape))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for band in domain.bands(network, shape, memory)[:1]:
    for block in domain.refine_band(network, read, shape, band, memory=memory):
        pass
grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(grown, memory)
"""


@pytest.mark.parametrize("kind", ["image", "tiles"])
def test_memory_grows_by_what_is_allowed_at_most(kind):
    call = [sys.executable, "-c", MEASURED, kind]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    grown, memory = map(int, done.stdout.split())
    assert grown < memory
