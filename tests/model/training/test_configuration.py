from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.model import losses
from deepbedmap.model.networks import NETWORKS, NORMALISATION
from deepbedmap.model.training import PRESETS, Configuration
from deepbedmap.model.training.configuration import load, of


def _written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_complete_and_comes_back_from_its_tables(preset: str) -> None:
    configuration = load(preset)
    assert of(configuration.to_dict()) == configuration
    options = dict(vars(configuration.network))
    assert options.pop("name") in NETWORKS


def test_the_paper_preset_holds_the_published_codes_settings() -> None:
    paper = load("paper")
    assert paper.losses.detached
    assert paper.losses.content == "absolute"
    assert (
        paper.losses.content_weight,
        paper.losses.adversarial_weight,
        paper.losses.topographic_weight,
        paper.losses.structural_weight,
    ) == (
        losses.CONTENT_WEIGHT,
        losses.ADVERSARIAL_WEIGHT,
        losses.TOPOGRAPHIC_WEIGHT,
        losses.STRUCTURAL_WEIGHT,
    )
    adam = paper.optimizer
    assert (adam.name, adam.learning_rate, adam.eps) == ("paper_adam", 1.7e-4, 1e-8)
    assert (adam.beta1, adam.beta2, adam.clipping) == (0.9, 0.999, 0)
    assert (paper.network.num_residual_blocks, paper.network.features) == (12, 64)
    assert (paper.training.batch, paper.training.average) == (128, 0)


def test_a_file_says_only_what_differs_from_its_base(tmp_path: Path) -> None:
    text = "[training]\nbatch = 16\n[optimizer]\neps = 1\n"
    mine = load(_written(tmp_path, text))
    assert mine == load("default").with_values(training__batch=16, optimizer__eps=1)
    mine = load(_written(tmp_path, f'base = "paper"\n{text}'))
    assert mine == load("paper").with_values(training__batch=16, optimizer__eps=1)
    assert mine != load("paper")


def test_constants_of_the_normalisation_are_optional_each(tmp_path: Path) -> None:
    default = load("default").network.normalisation
    assert default == NORMALISATION
    text = "[network.normalisation]\nsurface = 40\n"
    mine = load(_written(tmp_path, text)).network
    assert mine.normalisation == {**default, "surface": 40}
    mine = load(
        _written(tmp_path, f'base = "paper"\nnetwork.name = "FlowAlignedGenerator"\n{text}')
    ).network
    assert mine.normalisation == {"surface": 40}


def test_the_published_generator_takes_raw_metres_whatever_its_base(tmp_path: Path) -> None:
    assert load("paper").network.normalisation == {}
    mine = load(_written(tmp_path, "[network]\nname = 'Generator'\n"))
    assert mine.network.normalisation == {}
    assert of(mine.to_dict()) == mine


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[training]\nbach = 4", "training.bach: expected one of seed, batch, "),
        ("[training]\nbach = 4", "did you mean batch?"),
        ("[trainin]\nbatch = 4", "field trainin: expected one of network, "),
        ("[training]\nbatch = 0", "training.batch: expected a whole number of at least 1, found 0"),
        ("[training]\nbatch = 2.0", "expected a whole number of at least 1, found 2.0"),
        ("[training]\nbatch = true", "expected a whole number of at least 1, found True"),
        ("[optimizer]\neps = 0", "optimizer.eps: expected a number over 0, found 0"),
        ("[optimizer]\neps = nan", "found nan"),
        ("[optimizer]\neps = '1e-8'", "found '1e-8'"),
        ("[schedule]\nwarm_up = 1.5", "expected a number of at least 0, of at most 1, found 1.5"),
        ("[losses]\ncontent = 'huber '", "expected one of 'absolute', 'huber', found 'huber '"),
        ("[losses]\ndetached = 1", "losses.detached: expected true or false, found 1"),
        ("losses = 1", "field losses: expected a table, found 1"),
        ("[network]\nnormalisation = 1", "network.normalisation: expected a table, found 1"),
        (
            "[network.normalisation]\nsurfaces = 1",
            "network.normalisation.surfaces: expected one of bed, correction, surface, ",
        ),
        (
            "[network.normalisation]\nbed = 0",
            "normalisation.bed: expected a number over 0, found 0",
        ),
        ("[network.normalisation]\nmean_accumulation = inf", "expected a number, found inf"),
        (
            "[network]\nname = 'Generator'\nnormalisation.bed = 200",
            "normalisation: expected none with the Generator, which takes raw metres, found bed",
        ),
        ("training.batch = {}", "found a table"),
        ("base = 'papers'", "base: expected one of default, paper, found 'papers'; did you mean"),
        ("[schedule]\npretraining_epochs = 0", "at least one epoch in one of the phases"),
        (
            "[losses]\ncontent_weight = 0\nstructural_weight = 0\ntopographic_weight = 0",
            "expected a weight over 0 for a term of the first phase",
        ),
        (
            "[schedule]\nadversarial_epochs = 1\n[training]\nbatch = 1",
            "training.batch: expected at least 2, since the discriminator normalises by batch",
        ),
        ("[training\nbatch = 4", "expected TOML, found "),
    ],
)
def test_an_unknown_or_impossible_setting_is_told_in_one_line(
    text: str, words: str, tmp_path: Path
) -> None:
    path = _written(tmp_path, text)
    with pytest.raises(InvalidDataError) as caught:
        load(path)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(path))
    assert "\n" not in message


def test_all_faults_of_a_file_are_told(tmp_path: Path) -> None:
    text = "[training]\nbach = 4\nseed = -1\n[losses]\nscale = 0"
    with pytest.raises(InvalidDataError) as caught:
        load(_written(tmp_path, text))
    assert len(caught.value.faults) == 3


def test_a_missing_key_of_a_whole_document_is_told() -> None:
    document: dict[str, Any] = load("paper").to_dict()
    del document["training"]["batch"]
    with pytest.raises(InvalidDataError, match=r"training\.batch: expected a value, found none"):
        of(document)


def test_a_file_that_is_not_there_is_told_with_the_presets(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="one of the presets default, paper, found no such"):
        load(tmp_path / "mine.toml")
    with pytest.raises(MissingDataError, match="did you mean paper"):
        load("papre")


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(AttributeError):
        load("paper").training.batch = 4  # type: ignore[misc]


def test_reading_a_configuration_loads_nothing_heavy() -> None:
    code = (
        "import sys; from deepbedmap.model.training.configuration import load; load('paper');"
        "heavy = {'torch', 'pandas', 'xarray', 'jsonschema', 'yaml'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_presets_say_where_the_papers_table_differs() -> None:
    folder = Path(sys.modules[Configuration.__module__].__file__ or "").parent / "presets"
    text = (folder / "paper.toml").read_text()
    assert "beta2 = 0.999  # the paper's table: 0.99" in text
    assert "eps = 1e-8  # the paper's table: 0.1" in text
