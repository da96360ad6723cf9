"""Citations: of datasets, and of what was made of them."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  # gives grids their CRS
import torch
import xarray as xr
from support.citing import sources_of

from deepbedmap import cli, rasters, registry
from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.model import checkpoints
from deepbedmap.model.networks import Generator
from deepbedmap.provenance import describe_file
from deepbedmap.registry import Registry

Listed = Callable[..., Registry]


def survey(citekey: str, **fields: Any) -> dict[str, Any]:
    """A made-up entry of a registry; its file holds its own name."""
    checksum = hashlib.sha256(citekey.encode()).hexdigest()
    return {
        "citekey": citekey,
        "title": f"Survey {citekey}",
        "folder": "highres",
        "files": [{"filename": f"{citekey}.csv", "url": None, "sha256": checksum}],
    } | fields


@pytest.fixture
def listed(listed_datasets: Listed) -> Listed:
    return listed_datasets


@pytest.fixture
def call(call):
    """Run `deepbedmap cite`; give code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        return call("cite", *arguments)

    return run


def bibtex_entries(text: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Read BibTeX strictly: balanced braces, nothing between entries."""
    entries, position = {}, 0
    while position < len(text):
        head = re.compile(r"@(\w+)\{([^,\s]+),\n").match(text, position)
        assert head, text[position:]
        depth, end = 1, head.end()
        while depth:
            if text[end] in "{}" and text[end - 1] != "\\":
                depth += 1 if text[end] == "{" else -1
            end += 1
        assert head[2] not in entries
        fields = dict(re.findall(r"  (\w+) = \{(.*)\},\n", text[head.end() : end]))
        entries[head[2]] = (head[1], fields)
        position = re.compile(r"\s*").match(text, end).end()
    return entries


# What CSL-JSON's schema (csl-data.json, version 1.0.2) says of the fields in use here.
CSL_TEXT = {
    *("id", "title", "version", "publisher", "container-title", "volume", "issue", "page"),
    *("note", "DOI"),
}
CSL_TYPES = {"dataset", "article-journal", "paper-conference", "document"}


def csl_items(text: str) -> dict[str, dict[str, Any]]:
    """Read CSL-JSON strictly."""
    items = json.loads(text)
    for item in items:
        assert item["type"] in CSL_TYPES
        assert item.keys() <= {*CSL_TEXT, "type", "author", "issued"}
        assert all(isinstance(item[key], str) and item[key] for key in CSL_TEXT & item.keys())
        for name in item.get("author", []):
            assert set(name) in ({"family", "given"}, {"literal"})
            assert all(isinstance(part, str) and part for part in name.values())
        if "issued" in item:
            ((year,),) = item["issued"]["date-parts"]
            assert isinstance(year, int)
        if "DOI" in item:
            assert item["DOI"].startswith("10.")
    assert len({item["id"] for item in items}) == len(items)
    return {item["id"]: item for item in items}


def keys(text: str, style: str) -> list[str]:
    """Keys of what a citation cites."""
    return list(bibtex_entries(text) if style == "bibtex" else csl_items(text))


def test_bibtex_cites_dataset_and_paper_once_each():
    text = registry.load().bibtex(["King2016Rutford", "Shi2010CRESIS", "King2016Rutford"])
    entries = bibtex_entries(text)
    assert {key: kind for key, (kind, _) in entries.items()} == {
        "King2016Rutford": "misc",
        "King2016Rutford_paper": "article",
        "Shi2010CRESIS": "misc",
        "Shi2010CRESIS_paper": "inproceedings",
    }
    _, dataset = entries["King2016Rutford"]
    assert dataset["doi"] == "10.5285/54757cbe-0b13-4385-8b31-4dfaa1dab55e"
    _, paper = entries["King2016Rutford_paper"]
    assert paper["author"] == "King, Edward C. and Pritchard, Hamish D. and Smith, Andrew M."
    assert paper["journal"] == "Earth System Science Data"
    assert (paper["year"], paper["volume"], paper["pages"]) == ("2016", "8", "151--158")
    assert paper["doi"] == "10.5194/essd-8-151-2016"


def test_every_dataset_can_be_cited_in_every_style():
    listing = registry.load()
    citekeys = [dataset.citekey for dataset in listing]
    entries = bibtex_entries(registry.cite(listing, citekeys))
    items = csl_items(registry.cite(listing, citekeys, "csl-json"))
    references = registry.cite(listing, citekeys, "text").splitlines()
    assert list(entries) == list(items)
    assert len(references) == len(items) >= len(listing)
    for reference, (kind, fields), item in zip(
        references, entries.values(), items.values(), strict=True
    ):
        assert fields.get("title") or fields["note"]
        assert (kind == "misc") == (item["type"] in ("dataset", "document"))
        assert (kind == "article") == ("journal" in fields)
        assert (kind == "inproceedings") == ("booktitle" in fields)
        assert fields.get("doi") == item.get("DOI")
        assert reference.endswith(f"https://doi.org/{item['DOI']}" if "DOI" in item else ".")
        assert "None" not in reference
        assert "  " not in reference
        assert ".." not in reference.replace("...", "")


def test_a_reference_reads_as_one_in_a_paper(listed):
    listing = listed(
        survey(
            "A",
            title="Is this the bed?",
            authors=["Möller, Jürgen", "British Antarctic Survey"],
            year=2020,
            version="1.1",
            publisher="Polar Data Centre",
            doi={"dataset": "10.5285/x", "literature": "10.5194/y"},
            paper={
                "title": "The bed.",
                "year": 2021,
                "journal": "The Cryosphere",
                "volume": 7,
                "number": 1,
                "pages": "1-9",
            },
        ),
        survey("B", title="Velocity, Version 2", version="2"),
    )
    assert registry.cite(listing, ["A", "B"], "text").splitlines() == [
        "Möller, Jürgen; British Antarctic Survey (2020). Is this the bed? (version 1.1) "
        "[Data set]. Polar Data Centre. https://doi.org/10.5285/x",
        "Möller, Jürgen; British Antarctic Survey (2021). The bed. The Cryosphere, 7(1), 1-9. "
        "https://doi.org/10.5194/y",
        "Velocity, Version 2 [Data set]. (n.d.).",
    ]
    assert bibtex_entries(listing.bibtex("A"))["A"][1]["note"] == "Data set, version 1.1"


def test_csl_json_has_its_own_types_and_names(listed):
    paper = {"booktitle": "Symposium", "publisher": "IEEE", "number": 3, "pages": "1-2"}
    listing = listed(
        survey("A", authors=["King, E. C.", "BAS"], year=2016, version="2", publisher="PDC"),
        survey("B", paper=paper | {"title": "Radar"}),
        survey("C", doi={"literature": "10.5194/c"}),
    )
    items = csl_items(registry.cite(listing, ["A", "B", "C"], "csl-json"))
    assert items["A"] == {
        "id": "A",
        "type": "dataset",
        "title": "Survey A",
        "author": [{"family": "King", "given": "E. C."}, {"literal": "BAS"}],
        "issued": {"date-parts": [[2016]]},
        "version": "2",
        "publisher": "PDC",
    }
    assert items["B_paper"] == {
        "id": "B_paper",
        "type": "paper-conference",
        "title": "Radar",
        "container-title": "Symposium",
        "publisher": "IEEE",
        "issue": "3",
        "page": "1-2",
    }
    assert items["C_paper"]["type"] == "document"
    assert items["C_paper"]["note"] == "Paper that describes Survey C"


@pytest.mark.parametrize("style", ["bibtex", "csl-json"])
def test_what_two_datasets_share_is_cited_once(style, listed):
    shared = {"doi": {"literature": "10.5194/x"}, "paper": {"journal": "The Cryosphere"}}
    listing = listed(
        survey("A", **shared),
        survey("B", **{**shared, "doi": {"literature": "10.5194/X"}}),
        survey("C", doi={"dataset": "10.5285/c"}),
        survey("D", doi={"dataset": "10.5285/C"}),
        survey("E", paper={"title": "One paper", "journal": "Polar Record"}),
        survey("F", paper={"title": "One paper", "journal": "Polar Record"}),
        survey("G", doi={"literature": "10.5194/g"}),
        survey("H", doi={"literature": "10.5194/g"}, paper={"journal": "Polar Record"}),
    )
    text = registry.cite(listing, ["B", "A", "C", "D", "E", "F"], style)
    assert keys(text, style) == ["B", "B_paper", "A", "C", "E", "E_paper", "F"]
    assert keys(registry.cite(listing, ["A", "A"], style), style) == ["A", "A_paper"]
    # The one that knows the paper's title describes it.
    text = registry.cite(listing, ["G", "H"], style)
    assert keys(text, style) == ["G", "G_paper", "H"]
    assert "Polar Record" in text


def test_nothing_is_cited_for_nothing(listed):
    listing = listed(survey("A"))
    assert registry.cite(listing, []) == registry.cite(listing, [], "text") == ""
    assert json.loads(registry.cite(listing, [], "csl-json")) == []


def test_a_style_or_citekey_that_is_not_known_is_refused(listed, call):
    listing = listed(survey("A"))
    with pytest.raises(ValueError, match="bibtex, text, csl-json, found 'ris'"):
        registry.cite(listing, "A", "ris")
    with pytest.raises(InvalidDataError, match="entry B"):
        registry.cite(listing, "B")
    code, out, err = call("King2016Rutford", "--format", "ris")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_special_characters_are_written_for_latex(listed):
    entry = survey(
        "A",
        title="100 % of {Möller} & Ferrigno_2: #1 ~ $5 ^ C:\\x",
        authors=["Forsberg, René", "Žák, Jürgen", "Nøst, Å.", "NERC & BAS"],
    )
    listing = listed(entry)
    text = listing.bibtex("A")
    assert text.isascii()
    _, fields = bibtex_entries(text)["A"]
    assert fields["author"] == (
        r"Forsberg, Ren{\'{e}} and {\v{Z}}{\'{a}}k, J{\"{u}}rgen and N{\o}st, {\r{A}}. and "
        r"{NERC \& BAS}"
    )
    assert fields["title"] == (
        r"{100 \% of \{M{\"{o}}ller\} \& Ferrigno\_2: \#1 \textasciitilde{} \$5 "
        r"\textasciicircum{} C:\textbackslash{}x}"
    )
    assert csl_items(registry.cite(listing, "A", "csl-json"))["A"]["title"] == entry["title"]


def grid_of(*sources: Any, **attrs: Any) -> xr.DataArray:
    """A grid as `deepbedmap grid` writes it."""
    centres = np.array([500.0, 1500.0])
    attrs = attrs or {"provenance": json.dumps({"sources": list(sources), "method": "GMT"})}
    values = np.zeros((2, 2), "float32")
    grid = xr.DataArray(values, {"y": centres, "x": centres}, ("y", "x"), name="z", attrs=attrs)
    return grid.rio.write_crs(3031)


def write(grid: xr.DataArray, path: Path) -> Path:
    writer = rasters.write_netcdf if path.suffix == ".nc" else rasters.write_geotiff
    return writer(grid, path)


def raw(citekey: str) -> dict[str, str]:
    """The file of a survey as a source, without its citekey."""
    checksum = hashlib.sha256(citekey.encode()).hexdigest()
    return {"file": f"{citekey}.csv", "sha256": checksum, "pipeline": "x.json"}


@pytest.mark.parametrize("name", ["bed.nc", "bed.tif"])
def test_a_grid_cites_each_of_its_sources_once(name, listed, tmp_path):
    listing = listed(
        survey("A"),
        survey("B"),
        survey("C", files=[{"filename": "c.csv", "url": None, "sha256": None}]),
        survey(
            "D",
            files=[
                {"filename": "d.zip", "unpacked": "d.txt", "url": None, "sha256": "0" * 64},
            ],
        ),
    )
    by_name = {"file": "c.csv", "sha256": "1" * 64}
    unpacked = {"file": "d.txt", "sha256": "2" * 64}
    renamed = {"file": "mine.csv", "sha256": raw("A")["sha256"], "citekey": None}
    stated = {"file": "season.csv", "sha256": "3" * 64, "citekey": "B"}
    path = write(grid_of(stated, by_name, raw("B"), unpacked, renamed), tmp_path / name)
    assert sources_of(path, listing) == ["B", "C", "D", "A"]
    assert sources_of(str(path), listing) == ["B", "C", "D", "A"]


def test_of_two_datasets_with_the_same_bytes_the_name_tells_which(listed, tmp_path):
    checksum = raw("A")["sha256"]
    same = [{"filename": "other.csv", "url": None, "sha256": checksum}]
    listing = listed(survey("A"), survey("B", files=same))
    for name, found in (("A.csv", ["A"]), ("other.csv", ["B"])):
        path = write(grid_of({"file": name, "sha256": checksum}), tmp_path / "bed.nc")
        assert sources_of(path, listing) == found
    path = write(grid_of({"file": "third.csv", "sha256": checksum}), tmp_path / "bed.nc")
    with pytest.raises(InvalidDataError, match=r"third\.csv"):
        sources_of(path, listing)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ({"file": "mine.csv", "sha256": "f" * 64}, "mine.csv"),
        # The registry knows another checksum of this file.
        ({"file": "A.csv", "sha256": "f" * 64}, "A.csv"),
        # Two datasets have a file of this name.
        ({"file": "same.csv", "sha256": "f" * 64}, "same.csv"),
        ({"file": "C.csv", "citekey": "Elsewhere2020", "sha256": None}, "Elsewhere2020"),
        ({}, "without citekey"),
        ("A.csv", "'A.csv'"),
        (["A.csv"], "A.csv"),
        (None, "None"),
        ({"citekey": ["A"], "file": {"A.csv": 1}, "sha256": 5}, "A.csv"),
        ({"file": "network.safetensors", "sources": []}, "network.safetensors"),
    ],
)
def test_a_source_of_no_known_dataset_is_named_and_never_left_out(
    source, named, listed, call, tmp_path
):
    same = [{"filename": "same.csv", "url": None, "sha256": None}]
    listing = listed(
        survey("A"),
        survey("B", files=same),
        survey("B2", files=same, folder="misc"),
        survey("C", files=[{"filename": "C.csv", "url": None, "sha256": None}]),
    )
    path = write(grid_of(raw("A"), source), tmp_path / "bed.nc")
    with pytest.raises(InvalidDataError, match=r"field provenance: expected sources"):
        sources_of(path, listing)
    attribution = registry.attribute(path, listing)
    assert attribution.citekeys == ("A",)
    (fault,) = attribution.faults
    assert named in str(fault)
    code, out, err = call(path, "--registry", listing.path)
    assert code == 1
    assert list(bibtex_entries(out)) == ["A"]
    assert err.count("\n") == 1
    assert named in err


def test_a_prediction_cites_its_inputs_and_what_its_checkpoint_was_trained_on(
    listed, call, tmp_path
):
    listing = listed(*map(survey, "ABCD"))
    network = Generator(1, features=4, growth=4, input_features=4)
    path = tmp_path / "network.safetensors"
    checkpoints.save(network, path, sources=[raw("D"), {"citekey": "B"}])
    assert sources_of(path, listing) == ["D", "B"]
    prior = write(grid_of(raw("C"), raw("B")), tmp_path / "prior.tif")
    surface = tmp_path / "surface.xyz"
    surface.write_text("A")  # the very file of survey A, by another name
    inputs = [(prior, "prior"), (surface, "surface"), (path, "checkpoint")]
    sources = [describe_file(file, role) for file, role in inputs]
    assert [source["role"] for source in sources] == ["prior", "surface", "checkpoint"]
    bed = write(grid_of(*sources), tmp_path / "bed.tif")
    assert sources_of(bed, listing) == ["C", "B", "A", "D"]
    code, out, err = call(bed, "A", path, "--registry", tmp_path, "--format", "csl-json")
    assert (code, err) == (0, "")
    assert list(csl_items(out)) == ["C", "B", "A", "D"]


def test_the_command_line_s_prediction_tells_what_it_was_made_of(listed, tmp_path, monkeypatch):
    cells = {"prior": 1_000, "surface": 100, "velocity": 500, "accumulation": 1_000}
    arguments: list[Any] = []
    files = []
    for number, (name, spacing) in enumerate(cells.items()):
        centres = np.arange(spacing / 2, 4_000, spacing)
        values = np.full((centres.size,) * 2, number, "float32")
        field = xr.DataArray(values, {"y": centres, "x": centres}, ("y", "x")).rio.write_crs(3031)
        path = tmp_path / f"{name}.nc"
        data = xr.Dataset({"VX": field, "VY": field}) if name == "velocity" else field
        rasters.write_netcdf(data, path)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append({"filename": f"Made{path.name}", "url": None, "sha256": checksum})
        arguments += [f"--{name}", path]
    listing = listed(
        *(survey(file["filename"][:-3], folder="misc", files=[file]) for file in files), survey("A")
    )
    torch.manual_seed(0)
    network = Generator(1, features=4, growth=4, input_features=4)
    checkpoint, bed = tmp_path / "network.safetensors", tmp_path / "bed.nc"
    called = ["deepbedmap", "predict", checkpoint, *arguments, "--out", bed]
    monkeypatch.setattr(sys, "argv", [*map(str, called)])
    checkpoints.save(network, checkpoint, sources=[raw("A")])
    _run()
    expected = ["Madeprior", "Madesurface", "Madevelocity", "Madeaccumulation", "A"]
    assert sources_of(bed, listing) == expected
    # Of a network that does not say what made it, the prediction cannot be cited in full.
    checkpoints.save(network, checkpoint)
    _run()
    attribution = registry.attribute(bed, listing)
    assert list(attribution.citekeys) == expected[:-1]
    assert ["network.safetensors" in str(fault) for fault in attribution.faults] == [True]


def _run() -> None:
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code


def test_a_table_of_picks_cites_its_surveys(listed, tmp_path):
    listing = listed(survey("A"), survey("B"))
    picks = pd.DataFrame({"x": [0.0], "y": [0.0], "z": [0.0]})
    picks.attrs = {"crs": "EPSG:3031", "sources": [raw("B"), raw("A"), raw("B")]}
    path = tmp_path / "picks.parquet"
    picks.to_parquet(path)
    assert sources_of(path, listing) == ["B", "A"]


def test_every_raster_of_a_file_is_cited(listed, tmp_path):
    both = xr.Dataset({"bed": grid_of(raw("A")), "surface": grid_of(raw("B"))})
    path = rasters.write_netcdf(both, tmp_path / "both.nc")
    assert sources_of(path, listed(survey("A"), survey("B"))) == ["A", "B"]


def test_a_raw_file_is_cited_by_its_checksum_or_its_name(listed, call, tmp_path):
    listing = listed(
        survey("A"),
        survey("B", files=[{"filename": "b.nc", "url": None, "sha256": None}]),
        survey("B2", folder="misc", files=[{"filename": "two.csv", "url": None, "sha256": None}]),
        survey("B3", folder="lowres", files=[{"filename": "two.csv", "url": None, "sha256": None}]),
    )
    renamed = tmp_path / "renamed.txt"
    renamed.write_text("A")
    assert sources_of(renamed, listing) == ["A"]
    assert sources_of("A.csv", listing) == ["A"]  # nothing of this name is here
    foreign = tmp_path / "b.nc"
    foreign.write_bytes(b"CDF\x01 a raw file in another form of NetCDF")
    assert sources_of(foreign, listing) == ["B"]
    with pytest.raises(MissingDataError, match="files of B2 and B3; name the dataset"):
        sources_of("two.csv", listing)
    code, out, _ = call("A.csv", "B", "A", "--registry", listing.path, "--format", "text")
    assert code == 0
    assert out.count("\n") == 2


def test_a_name_of_nothing_is_told_with_the_nearest(call):
    for name, near in (
        ("King2016Rutfrod", "King2016Rutford"),
        ("bedmap2_bde.tif", "bedmap2_bed.tif"),
    ):
        code, out, err = call(name)
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert f"did you mean {near}" in err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"text", "no provenance"),
        ("bed.nc", b"not a grid", "a complete .nc file"),
        ("bed.tif", b"not a grid", "a complete .tif file"),
        ("network.safetensors", b"not weights", "a complete .safetensors file"),
        ("picks.parquet", b"not a table", "a complete .parquet file"),
        ("network.safetensors", b"\x02\0\0\0\0\0\0\0{}", "no provenance"),
        ("empty.nc", b"", "a complete .nc file"),
    ],
)
def test_a_file_of_somebody_else_s_is_refused_in_one_line(name, content, message, call, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    code, out, err = call(path)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert str(path) in err
    assert message in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("made by hand", "made by hand"),
        ("[1, 2]", "a mapping with a list of sources"),
        ('{"sources": {"A": 1}}', "a mapping with a list of sources"),
        ("[" * 100_000, "a mapping with a list of sources"),
        ("{}", "at least one source, found none"),
        ('{"sources": []}', "at least one source, found none"),
        (None, "no provenance"),
    ],
)
def test_provenance_that_names_no_source_is_a_fault(text, message, call, listed, tmp_path):
    attrs = {"units": "m"} if text is None else {"provenance": text}
    path = write(grid_of(**attrs), tmp_path / "bed.tif")
    with pytest.raises(InvalidDataError, match=re.escape(message)):
        sources_of(path, listed(survey("A")))
    code, out, err = call(path)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert len(err) < 1_000


def test_a_folder_has_a_name_and_no_checksum(tmp_path):
    assert describe_file(tmp_path, "prior") == {"role": "prior", "file": tmp_path.name}
