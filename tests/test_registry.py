from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deepbedmap import registry, repository
from deepbedmap.errors import InvalidDataError, MissingDataError


@pytest.fixture
def entry() -> dict[str, Any]:
    """A made-up survey with no more than a registry needs."""
    return {
        "citekey": "MadeUp1",
        "title": "A made-up survey",
        "folder": "highres",
        "files": [{"filename": "bed.csv", "url": None, "sha256": None}],
    }


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Path]:
    def listed(*entries: dict[str, Any]) -> Path:
        path = tmp_path / "data_list.yml"
        path.write_text(yaml.safe_dump(list(entries), sort_keys=False))
        return path

    return listed


def test_it_lists_what_the_original_lists(shared_datasets):
    original = yaml.safe_load((shared_datasets / "original_data_list.yml").read_text())

    def known(value: object) -> object:
        return None if str(value) == "nan" else value

    def doi(value: object) -> object:
        return None if known(value) is None else str(value).removeprefix("https://doi.org/")

    ours = registry.load()
    assert [dataset.citekey for dataset in ours] == [entry["citekey"] for entry in original]
    for dataset, entry in zip(ours, original, strict=True):
        assert (dataset.folder, dataset.location) == (entry["folder"], entry["location"])
        assert dataset.doi_dataset == doi(entry["doi"]["dataset"])
        assert dataset.doi_literature == doi(entry["doi"]["literature"])
        assert [(file.filename, file.url, file.sha256) for file in dataset.files] == [
            (file["filename"], known(file["url"]), known(file["sha256"])) for file in entry["files"]
        ]
        metres = re.fullmatch(r"(\d+)m", str(entry["resolution"]))
        assert dataset.resolution == (float(metres[1]) if metres else None)
    assert len(ours.files) == 33


def test_titles_and_authors_are_those_of_the_references(shared_datasets):
    def words(text: str) -> set[str]:
        return set(re.sub(r"[^a-z ]", "", re.sub(r"\s+", " ", text).lower()).split())

    references = {
        doi.lower(): words(body)
        for body, doi in re.findall(
            r"(@\w+\{.*?doi = +\{(.*?)\}.*?\n\})",
            (shared_datasets / "references.bib").read_text(),
            re.DOTALL,
        )
    }
    checked = 0
    for dataset in registry.load():
        for doi, title, authors in (
            (dataset.doi_dataset, dataset.title, dataset.authors),
            (dataset.doi_literature, dataset.paper.title, dataset.paper.authors),
        ):
            if doi and doi.lower() in references:
                checked += 1
                assert words(title) <= references[doi.lower()]
                families = {word for name in authors for word in words(name.split(",")[0])}
                assert families <= references[doi.lower()]
    assert checked == 12


def test_every_pipeline_belongs_to_a_dataset_and_every_dataset_has_its_pipelines():
    listing = registry.load()
    listed = {name for dataset in listing for name in dataset.pipelines}
    assert listed == {path.name for path in (listing.root / "highres").glob("*.json")}
    assert listing.for_pipeline("istarxx.json").citekey == "Bingham2018PIG"
    assert listing.for_pipeline("unknown.json") is None


def test_datums_are_stated_where_they_are_known_and_nowhere_else():
    datums = {dataset.citekey: dataset.vertical_datum for dataset in registry.load()}
    assert datums == {
        "Fretwell2013BEDMAP2": "EIGEN-GL04C",
        "Noh2018REMA": "ellipsoid",
        "Mouginot2019MEASURES": None,
        "King2016Rutford": "ellipsoid",
        "Bingham2018PIG": None,
        "Shi2010CRESIS": "ellipsoid",
        "Ferraccioli2018Wilkes": None,
        "Arthern2006Accumulation": None,
        "Mouginot2017MEASURES": None,
        "King2011Carlson": None,
    }


def test_a_registry_loads_from_a_file_a_folder_or_text(entry, listed):
    path = listed(entry)
    for given in (path, path.parent, str(path), str(path.parent)):
        listing = registry.load(given)
        assert (listing.path, listing.root) == (path, path.parent)
    assert registry.load().path == repository.root() / "data_list.yml"
    with pytest.raises(MissingDataError, match="elsewhere"):
        registry.load(path.parent / "elsewhere.yml")


def test_what_is_left_out_is_unknown_like_null(entry, listed):
    left_out = registry.load(listed(entry))["MadeUp1"]
    nullable = (
        "authors year publisher location bounds resolution doi paper licence crs vertical_datum "
        "units firn_correction pipelines notes"
    )
    said = dict.fromkeys(nullable.split())
    files = [{**entry["files"][0], "mirrors": None, "member": None, "unpacked": None}]
    assert registry.load(listed({**entry, **said, "files": files}))["MadeUp1"] == left_out
    assert left_out.authors == left_out.pipelines == ()
    assert left_out.resolution is left_out.crs is left_out.firn_correction is None


def test_datasets_are_reached_by_citekey_and_in_order():
    listing = registry.load()
    assert len(listing) == len(list(listing)) == 10
    assert "King2011Carlson" in listing
    assert "King2011" not in listing
    assert listing["King2011Carlson"] is list(listing)[-1]
    with pytest.raises(InvalidDataError, match=r"entry King2016Rutfrod.*mean King2016Rutford"):
        listing["King2016Rutfrod"]
    with pytest.raises(AttributeError):
        listing["King2011Carlson"].crs = "EPSG:4326"


URL = "https://example.org/bed.csv"


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"citekey": "made up"}, "citekey", "'made up'"),
        ({"citekey": None}, "citekey", "found null"),
        ({"title": ""}, "title", "some text"),
        ({"folder": "high"}, "folder", "highres, lowres or misc"),
        ({"year": "2016"}, "year", "a whole number"),
        ({"year": 16}, "year", "a whole number"),
        ({"authors": "King, E. C."}, "authors", "a list of names"),
        ({"resolution": "250m"}, "resolution", "without its unit"),
        ({"resolution": 0}, "resolution", "a positive number"),
        ({"doi": {"dataset": "https://doi.org/10.5285/x"}}, "doi.dataset", "a DOI without"),
        ({"doi": {"literature": "10.5285"}}, "doi.literature", "a DOI without"),
        ({"doi": "10.5285/x"}, "doi", "a mapping with dataset and literature"),
        ({"paper": {"pages": "1-2"}}, "paper", "journal or booktitle"),
        ({"licence": "Creative Commons"}, "licence", "an SPDX identifier"),
        ({"crs": 3031}, "crs", "EPSG:3031"),
        ({"crs": "WGS84"}, "crs", "EPSG:3031"),
        ({"vertical_datum": "WGS84"}, "vertical_datum", "ellipsoid, EIGEN-GL04C"),
        ({"firn_correction": "yes"}, "firn_correction", "true, false or null"),
        ({"pipelines": ["bed.yml"]}, "pipelines[0]", "ends in .json"),
        ({"pipelines": ["../bed.json"]}, "pipelines[0]", "ends in .json"),
        ({"bounds": [0, 0, 1]}, "bounds", "four numbers"),
        ({"bounds": [0, 5, 1, 4]}, "bounds", "xmin < xmax and ymin < ymax"),
        ({"unknown": 1}, "unknown", "the unknown key"),
        ({"files": []}, "files", "at least one"),
        ({"files": [{"url": None, "sha256": None}]}, "files[0].filename", "nothing"),
    ],
)
def test_a_broken_entry_is_named_with_file_line_entry_and_field(change, field, said, entry, listed):
    other = {**entry, "citekey": "MadeUp2", "files": [{**entry["files"][0], "filename": "x"}]}
    path = listed(other, {**entry, **change})
    with pytest.raises(InvalidDataError) as error:
        registry.load(path)
    (line,) = str(error.value).splitlines()
    name = "number 2" if "citekey" in change and not change["citekey"] else None
    name = name or change.get("citekey", "MadeUp1")
    match = re.match(rf"{re.escape(str(path))}, line (\d+), entry {name}, field (\S+): ", line)
    assert match, line
    assert match[2] == field
    assert said in line
    text = path.read_text().splitlines()
    key = re.sub(r"\[\d+\]", "", field).split(".")[-1]
    assert int(match[1]) > 7
    assert key in text[int(match[1]) - 1] or "- " in text[int(match[1]) - 1]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *(
            ({"filename": name}, "filename")
            for name in (
                "a/b.csv", "../b.csv", "/b.csv", "a\\b.csv", ".", "..", ".b.csv", "", "C:b.csv",
                "b.csv\n", "b\0.csv", None, 3,
            )
        ),
        *(
            ({"url": url}, "url")
            for url in (
                "sftp://example.org/b", "doi:10.5285/x", "example.org/b", "/data/b", "nan", "", 1,
                "https://", "https://example.org/a b", "file:b.csv", "http://example.org/b\n",
                "file://elsewhere/b.csv",
            )
        ),
        *(
            ({"sha256": value}, "sha256")
            for value in (
                "0" * 63, "0" * 65, "A" * 64, "g" * 64, "sha256:" + "0" * 64, "0" * 64 + "\n", "",
                int("1" * 64),
            )
        ),
        ({"mirrors": ["gopher://example.org"]}, "mirrors[0]"),
        ({"mirrors": URL}, "mirrors"),
        ({"mirrors": [URL, URL]}, "mirrors"),
        ({"unpacked": "bed.txt"}, "unpacked"),
        ({"filename": "bed.zip"}, "unpacked"),
        ({"filename": "bed.tar.gz", "unpacked": "../bed.txt"}, "unpacked"),
        ({"md5": "0"}, "md5"),
    ],
)  # fmt: skip
def test_a_broken_file_is_named_with_its_field(change, field, entry, listed):
    entry["files"].append({"filename": "b", "url": URL, "sha256": None, **change})
    path = listed(entry)
    with pytest.raises(InvalidDataError) as error:
        registry.load(path)
    (line,) = str(error.value).splitlines()
    assert re.match(
        rf"{re.escape(str(path))}, line \d+, entry MadeUp1, field files\[1\]\.{re.escape(field)}: ",
        line,
    )


@pytest.mark.parametrize("url", [URL, "http://example.org", "ftp://example.org/a%20b", "file:///a"])
def test_urls_of_four_schemes_are_taken(url, entry, listed):
    entry["files"][0]["url"] = url
    assert registry.load(listed(entry))["MadeUp1"].files[0].url == url


def test_names_that_stand_twice_are_named_with_the_first_ones_line(entry, listed):
    again = {
        **entry,
        "citekey": "madeup1",
        "pipelines": ["bed.json"],
        "files": [{"filename": "BED.csv", "url": None, "sha256": None}],
    }
    path = listed({**entry, "pipelines": ["bed.json"]}, again)
    with pytest.raises(InvalidDataError) as error:
        registry.load(path)
    lines = str(error.value).splitlines()
    assert [re.search(r"line (\d+), .* field (\S+):", line).groups() for line in lines] == [
        ("10", "citekey"),
        ("14", "files[0].filename"),
        ("18", "pipelines[0]"),
    ]
    assert "madeup1 again (first on line 1)" in lines[0]
    elsewhere = {**again, "citekey": "MadeUp2", "folder": "misc", "pipelines": None}
    assert len(registry.load(listed(entry, elsewhere))) == 2


def test_a_key_given_twice_is_an_error(entry, listed):
    path = listed(entry)
    path.write_text(path.read_text() + "  title: Another title\n")
    with pytest.raises(
        InvalidDataError, match="entry MadeUp1, field title: expected each key once"
    ):
        registry.load(path)


def test_all_faults_are_told_at_once(entry, listed):
    path = listed({**entry, "year": "x"}, {**entry, "folder": "x"})
    with pytest.raises(InvalidDataError) as error:
        registry.load(path)
    fields = re.findall(r"field ([^:]+):", str(error.value))
    assert fields == ["year", "citekey", "folder"]


@pytest.mark.parametrize("text", ["citekey: A\n", "a string\n", "- a string\n", "3\n", "- null\n"])
def test_a_registry_that_is_no_list_of_datasets_is_refused(text, tmp_path):
    path = tmp_path / "data_list.yml"
    path.write_text(text)
    with pytest.raises(
        InvalidDataError,
        match=r"expected a (list of datasets|dataset|mapping with schema_version and datasets)",
    ):
        registry.load(path)


def test_the_table_has_one_row_a_file():
    table = registry.load().files.set_index("filename")
    assert len(table) == 33
    assert table.index.is_unique
    row = table.loc["bedmap2_bed.tif"]
    assert (row.citekey, row.folder, row.resolution) == ("Fretwell2013BEDMAP2", "lowres", 1000)
    assert (row.crs, row.vertical_datum) == ("EPSG:3031", "EIGEN-GL04C")
    assert int(table.url.isna().sum()) == 10
    assert table.loc["istar07.txt", "firn_correction"]
    assert table.loc["WISE_ISODYN_RadarByFlight_ASCII.zip", "unpacked"].endswith(".txt")


@pytest.mark.parametrize(
    ("query", "citekeys"),
    [
        ({"text": "rutford"}, ["King2016Rutford"]),
        ({"text": "KING carlson"}, ["King2011Carlson"]),
        ({"text": "mouginot", "folder": "misc"}, ["Mouginot2019MEASURES", "Mouginot2017MEASURES"]),
        ({"folder": "lowres"}, ["Fretwell2013BEDMAP2"]),
        ({"text": "Greenland"}, []),
    ],
)
def test_search_finds_words_in_citekey_title_authors_and_location(query, citekeys):
    assert registry.load().search(**query).citekey.tolist() == citekeys


def test_search_by_bounds_keeps_what_touches_and_flags_what_is_unknown(entry, listed):
    def survey(citekey: str, bounds: list[float] | None) -> dict[str, Any]:
        file = {**entry["files"][0], "filename": f"{citekey}.csv"}
        return {**entry, "citekey": citekey, "bounds": bounds, "files": [file]}

    listing = registry.load(
        listed(
            survey("Inside", [0, 0, 1000, 1000]),
            survey("Touching", [2000, 0, 3000, 500.5]),
            survey("Beyond", [2001, 0, 3000, 1000]),
            survey("Unknown", None),
        )
    )
    found = listing.search(bounds=(-500, -500, 2000, 0))
    assert found[["citekey", "bounds_known"]].values.tolist() == [
        ["Inside", True],
        ["Touching", True],
        ["Unknown", False],
    ]
    with pytest.raises(ValueError, match="xmin < xmax"):
        listing.search(bounds=(0, 0, -1, 1))
    with pytest.raises(ValueError, match="folder"):
        listing.search(folder="high")


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


def test_every_dataset_can_be_cited():
    listing = registry.load()
    entries = bibtex_entries(listing.bibtex([dataset.citekey for dataset in listing]))
    assert len(entries) == 20
    for kind, fields in entries.values():
        assert fields["author"]
        assert fields["title"]
        assert fields["year"]
        if kind != "misc":
            assert fields["doi"]
            assert fields.get("journal") or fields.get("booktitle")


def test_a_paper_that_two_datasets_share_is_cited_once(entry, listed):
    shared = {"doi": {"literature": "10.5194/x"}, "paper": {"journal": "The Cryosphere"}}
    other = {**entry, "citekey": "MadeUp2", "folder": "misc"}
    listing = registry.load(listed({**entry, **shared}, {**other, **shared}))
    entries = bibtex_entries(listing.bibtex(["MadeUp2", "MadeUp1"]))
    assert list(entries) == ["MadeUp2", "MadeUp2_paper", "MadeUp1"]


def test_special_characters_are_written_for_latex(entry, listed):
    entry["title"] = "100 % of {Möller} & Ferrigno_2: #1 ~ $5 ^ C:\\x"
    entry["authors"] = ["Forsberg, René", "Žák, Jürgen", "Nøst, Å.", "NERC & BAS"]
    text = registry.load(listed(entry)).bibtex("MadeUp1")
    assert text.isascii()
    _, fields = bibtex_entries(text)["MadeUp1"]
    assert fields["author"] == (
        r"Forsberg, Ren{\'{e}} and {\v{Z}}{\'{a}}k, J{\"{u}}rgen and N{\o}st, {\r{A}}. and "
        r"{NERC \& BAS}"
    )
    assert fields["title"] == (
        r"{100 \% of \{M{\"{o}}ller\} \& Ferrigno\_2: \#1 \textasciitilde{} \$5 "
        r"\textasciicircum{} C:\textbackslash{}x}"
    )


def test_it_says_which_command_or_person_gets_a_file(entry, listed):
    listing = registry.load()
    wilkes = listing["Ferraccioli2018Wilkes"]
    assert "deepbedmap fetch Ferraccioli2018Wilkes" in wilkes.how_to_get(
        "WISE_ISODYN_RadarByFlight.txt"
    )
    said = listing["Shi2010CRESIS"].how_to_get("Data_20141121_05.csv")
    assert "fetch" not in said
    for part in ("Paden, J.", "https://doi.org/10.5067/GDQ0CUCVTE2Q", "Data_20141121_05.csv"):
        assert part in said
    said = registry.load(listed(entry))["MadeUp1"].how_to_get()
    assert said == (
        "ask the authors of 'A made-up survey' for the files of MadeUp1, "
        "and put bed.csv into highres/"
    )
