from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.model.checkpoints import load, load_chainer_npz, save
from deepbedmap.model.networks import Discriminator, Generator

Arrays = dict[str, NDArray[Any]]


def _as_chainer(network: nn.Module) -> Arrays:
    """The arrays of a network under the names that Chainer would give them."""
    norms = {name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    leaves = {"weight": "W", "bias": "b"}
    norm_leaves = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "avg_mean",
        "running_var": "avg_var",
        "num_batches_tracked": "N",
    }
    arrays = {}
    for name, tensor in network.state_dict().items():
        path, _, leaf = name.rpartition(".")
        renamed = (norm_leaves if path in norms else leaves)[leaf]
        arrays[f"{path.replace('.', '/')}/{renamed}"] = tensor.numpy().copy()
    return arrays


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _refused(call: Callable[[], object], *words: str) -> None:
    """The call fails with one line that holds all the words."""
    with pytest.raises(InvalidDataError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.fixture
def checkpoint(small_generator: Callable[..., Generator], tmp_path: Path) -> Path:
    return save(small_generator(), tmp_path / "generator.safetensors", seed=3)


def test_a_checkpoint_gives_the_same_network_and_metadata_back(
    small_generator: Callable[..., Generator],
    grids: Callable[..., dict[str, Tensor]],
    tmp_path: Path,
) -> None:
    generator, inputs = small_generator(bands=(1, 2, 2, 1)), grids()
    inputs["w1"] = inputs["w1"].repeat(1, 2, 1, 1)
    normalisation = {"x": [0.1, 300.0], "note": "metres"}
    path = save(generator, tmp_path / "new" / "generator.safetensors", normalisation=normalisation)
    loaded = load(path)
    with torch.no_grad():
        assert torch.equal(loaded.network(**inputs), generator(**inputs))
    assert not loaded.network.training
    assert all(parameter.requires_grad for parameter in loaded.network.parameters())
    assert loaded.metadata["normalisation"] == normalisation
    assert loaded.metadata["network"] == {"class": "Generator", "options": generator.options}
    assert loaded.metadata["versions"]["torch"] == torch.__version__


def test_a_discriminator_keeps_its_running_statistics(tmp_path: Path) -> None:
    discriminator = Discriminator()
    discriminator(torch.randn(2, 1, 36, 36))
    loaded = load(save(discriminator, tmp_path / "discriminator.safetensors"))
    y = torch.randn(2, 1, 36, 36)
    with torch.no_grad():
        assert torch.equal(loaded.network(y), discriminator.eval()(y))


def test_a_state_is_saved_with_the_network_it_belongs_to(
    small_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    generator = small_generator()
    averaged = {name: tensor / 2 for name, tensor in generator.state_dict().items()}
    description = {"class": "Generator", "options": generator.options}
    loaded = load(save(averaged, tmp_path / "averaged.safetensors", network=description))
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, averaged[name])
    with pytest.raises(TypeError, match=r"^network: expected a class of Generator"):
        save(averaged, tmp_path / "nameless.safetensors")


def test_the_description_can_be_read_without_this_package(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    document = json.loads(header["__metadata__"]["deepbedmap"])
    assert document["network"]["options"]["features"] == 8
    assert document["seed"] == 3


def test_loading_leaves_the_random_numbers_alone(checkpoint: Path) -> None:
    before = torch.get_rng_state()
    load(checkpoint)
    assert torch.equal(torch.get_rng_state(), before)


def test_metadata_that_are_not_json_leave_the_earlier_checkpoint_and_nothing_else(
    checkpoint: Path, small_generator: Callable[..., Generator]
) -> None:
    before = checkpoint.read_bytes()
    with pytest.raises(TypeError):
        save(small_generator(), checkpoint, scores={1, 2})
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_write_that_fails_leaves_the_earlier_checkpoint_and_nothing_else(
    checkpoint: Path,
    small_generator: Callable[..., Generator],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError("No space left on device")

    before = checkpoint.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save(small_generator(), checkpoint)
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


@pytest.mark.parametrize("kept", [0, 5, 500, -1])
def test_a_checkpoint_cut_short_is_refused(checkpoint: Path, kept: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    _refused(lambda: load(checkpoint), str(checkpoint), "expected a complete safetensors file")


class _Trap:
    sprung = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _spring, ()


def _spring() -> None:
    _Trap.sprung = True


@pytest.mark.parametrize(
    "write", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))]
)
def test_a_pickle_is_refused_and_not_opened(
    write: Callable[[object, Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    write(_Trap(), path)
    _refused(lambda: load(path), str(path), "found a pickle")
    _refused(lambda: load_chainer_npz(path, Discriminator()), str(path), "expected a complete .npz")
    assert not _Trap.sprung


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    for read in (load, lambda path: load_chainer_npz(path, Discriminator())):
        with pytest.raises(MissingDataError, match=r"nowhere\.npz: .* found no such file"):
            read(tmp_path / "nowhere.npz")


def test_a_safetensors_file_from_elsewhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for metadata in (None, {"deepbedmap": "{"}, {"deepbedmap": '{"format": 99}'}):
        save_file({"weight": torch.zeros(2)}, path, metadata)
        _refused(lambda: load(path), str(path), "expected a checkpoint of this package")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"class": "Transformer", "options": {}}, ("found 'Transformer'", "one of Generator")),
        ({"class": "Generator", "options": {"depth": 3}}, ("options of Generator", "'depth'")),
        ({"class": "Generator", "options": {"features": -8}}, ("options of Generator", "-8")),
    ],
)
def test_an_unknown_architecture_is_refused(
    network: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "unknown.safetensors"
    document = {"format": 1, "network": network}
    save_file({"weight": torch.zeros(2)}, path, {"deepbedmap": json.dumps(document)})
    _refused(lambda: load(path), str(path), *words)


def test_arrays_that_do_not_fit_the_named_network_are_refused(
    small_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    generator = small_generator()
    wider = {"class": "Generator", "options": {**generator.options, "features": 9}}
    path = save(generator.state_dict(), tmp_path / "wrong.safetensors", network=wider)
    _refused(
        lambda: load(path), str(path), "final_conv_layer1.deform_conv.bias: expected shape (9,)"
    )


def test_weights_of_the_original_fill_both_networks(
    published: dict[str, Any], chainer_weights: Callable[[str], Arrays]
) -> None:
    for name, network in (("generator", Generator(1)), ("discriminator", Discriminator())):
        arrays = chainer_weights(name)
        load_chainer_npz(arrays, network)
        again = _as_chainer(network)
        assert again.keys() >= published[name].keys()
        assert all(np.array_equal(again[key], arrays[key]) for key in arrays)


@pytest.mark.parametrize("make", [Discriminator, lambda: Generator(1, features=8, growth=4)])
def test_an_npz_fills_a_network_running_statistics_included(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    trained, network = make(), make()
    for tensor in trained.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) * 9)
    np.savez(tmp_path / "weights.npz", **_as_chainer(trained))
    assert load_chainer_npz(tmp_path / "weights.npz", network) is network
    expected = trained.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in _state(network).items())


def test_weights_without_running_statistics_reset_them() -> None:
    discriminator = Discriminator()
    discriminator(torch.randn(2, 1, 36, 36))
    arrays = _as_chainer(discriminator)
    for name in list(arrays):
        if name.endswith(("avg_mean", "avg_var", "/N")):
            del arrays[name]
    load_chainer_npz(arrays, discriminator)
    assert not discriminator.get_buffer("batch_norm1.running_mean").any()
    assert (discriminator.get_buffer("batch_norm9.running_var") == 1).all()


def _without(name: str) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.__delitem__(name)


def _with(name: str, array: NDArray[Any]) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.__setitem__(name, array)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            _without("conv_layer3/W"),
            ("conv_layer3/W: expected shape (128, 128, 4, 4), found no such array",),
        ),
        (_without("batch_norm2/avg_var"), ("batch_norm2/avg_var: expected shape (128,)",)),
        (
            _with("linear_1/W", np.zeros((512, 100))),
            ("linear_1/W: expected shape (100, 512), found shape (512, 100)",),
        ),
        (
            _with("linear_3/W", np.zeros((2, 2))),
            ("linear_3/W: expected no such array, found shape (2, 2)",),
        ),
        (_with("linear_2/b", np.array([np.nan])), ("linear_2/b", "found NaN or infinity")),
        (_with("linear_2/b", np.array(["a"])), ("linear_2/b", "found dtype <U1")),
    ],
)
def test_arrays_that_are_missing_surplus_misshapen_or_not_numbers_are_refused_in_one_line(
    spoil: Callable[[Arrays], None], words: tuple[str, ...], tmp_path: Path
) -> None:
    discriminator = Discriminator()
    arrays = _as_chainer(discriminator)
    spoil(arrays)
    np.savez(tmp_path / "weights.npz", **arrays)
    before = _state(discriminator)
    with torch.no_grad():
        arrays["conv_layer0/W"][:] = 7
    _refused(
        lambda: load_chainer_npz(tmp_path / "weights.npz", discriminator), "weights.npz", *words
    )
    _refused(lambda: load_chainer_npz(arrays, discriminator), *words)
    assert all(torch.equal(tensor, before[name]) for name, tensor in _state(discriminator).items())


def test_another_number_of_residual_blocks_is_said(
    small_generator: Callable[..., Generator],
) -> None:
    arrays = _as_chainer(small_generator())
    other = Generator(2, features=8, growth=4, input_features=4)
    _refused(
        lambda: load_chainer_npz(arrays, other),
        "the weights hold 1 residual blocks and the generator 2",
        "num_residual_blocks=1",
    )


@pytest.mark.parametrize("kept", [0, 10, 3000, -30])
def test_an_npz_cut_short_is_refused(
    kept: int, small_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, **_as_chainer(small_generator()))
    path.write_bytes(path.read_bytes()[:kept])
    _refused(
        lambda: load_chainer_npz(path, small_generator()), str(path), "expected a complete .npz"
    )


def test_an_npz_with_a_damaged_array_is_refused(
    small_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, **_as_chainer(small_generator()))
    content = bytearray(path.read_bytes())
    content[300:310] = b"0123456789"
    path.write_bytes(content)
    _refused(lambda: load_chainer_npz(path, small_generator()), str(path))


def test_a_single_array_and_pickled_arrays_are_no_weights(
    small_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    np.save(tmp_path / "weights.npy", np.zeros(3))
    np.savez(tmp_path / "weights.npz", objects=np.array([None, {}], dtype=object))
    for path in (tmp_path / "weights.npy", tmp_path / "weights.npz"):
        _refused(
            lambda path=path: load_chainer_npz(path, small_generator()),
            str(path),
            "expected a complete .npz",
        )
