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
    files = 0
    for entry in original:
        dataset = ours[entry["citekey"]]
        files += len(dataset.files)
        assert (dataset.folder, dataset.location) == (entry["folder"], entry["location"])
        assert dataset.doi_dataset == doi(entry["doi"]["dataset"])
        assert dataset.doi_literature == doi(entry["doi"]["literature"])
        assert [(file.filename, file.url, file.sha256) for file in dataset.files] == [
            (file["filename"], known(file["url"]), known(file["sha256"])) for file in entry["files"]
        ]
        metres = re.fullmatch(r"(\d+)m", str(entry["resolution"]))
        assert dataset.resolution == (float(metres[1]) if metres else None)
    assert (len(original), files) == (10, 33)


def test_the_files_alike_of_bedmap3_are_at_the_addresses_that_the_data_centre_lists(
    shared_datasets,
):
    urls = (shared_datasets / "bedmap3_points_urls.txt").read_text().split()
    files = registry.load()["Fremand2022BEDMAP3"].files
    assert len(urls) == 84
    assert [file.url for file in files] == urls
    assert all(file.filename.endswith("_BM3.csv") for file in files)


def test_every_checksum_is_one_of_the_facts(shared_datasets):
    facts = (shared_datasets / "candidates.md").read_text()
    original = (shared_datasets / "original_data_list.yml").read_text()
    known = set(re.findall(r"\b[0-9a-f]{64}\b", facts + original))
    ours = {file.sha256 for dataset in registry.load() for file in dataset.files if file.sha256}
    assert ours <= known


def test_every_bed_pick_dataset_that_the_data_centre_cites_has_an_entry(shared_datasets):
    cited = {}
    for line in (shared_datasets / "bas_bed_picks_citations.txt").read_text().splitlines():
        doi = re.search(r"10\.5285/[0-9A-Za-z-]+", line)[0].lower()
        cited[doi] = " ".join(line.split())
    ours = {
        dataset.doi_dataset.lower(): dataset for dataset in registry.load() if dataset.doi_dataset
    }
    assert len(cited) == 27
    for doi, citation in cited.items():
        dataset = ours[doi]
        assert dataset.title in citation
        assert all(
            name.split(",")[0] in citation.replace("Nichols", "Nicholls")
            for name in dataset.authors
        )
        version = re.search(r"\(Version ([\d.]+)\)", citation)
        assert version is None or dataset.version == version[1]
        if dataset.citekey not in ("King2016Rutford", "Ferraccioli2018Wilkes"):
            assert f"({dataset.year})" in citation
            assert (dataset.survey_type, dataset.files) == ("airborne", ())
            assert any(str(year)[2:] in dataset.title for year in dataset.epoch)


def test_a_product_names_what_it_was_made_of_and_a_survey_what_else_holds_it():
    listing = registry.load()
    compilations = ("Lythe2022BEDMAP1", "Fretwell2022BEDMAP2", "Fremand2022BEDMAP3")
    assert listing["Pritchard2024BEDMAP3"].built_from.surveys == compilations
    assert listing["Morlighem2025BEDMACHINE"].built_from.until == 2020
    assert "Bingham2018PIG" in listing["Leong2020DEEPBEDMAP"].built_from.surveys
    for dataset in listing:
        for other in dataset.overlaps_with:
            assert dataset.citekey in listing[other].overlaps_with, (dataset.citekey, other)
    for season in ("Shi2010CRESIS", "Ross2020IMAFI", "King2016Rutford"):
        assert "Fremand2022BEDMAP3" in listing[season].overlaps_with


def test_every_dataset_has_a_status_and_what_is_out_of_date_names_its_successor():
    listing = registry.load()
    out_of_date = {d.citekey: (d.status, d.superseded_by) for d in listing if d.status != "active"}
    assert out_of_date == {
        "Fretwell2013BEDMAP2": ("superseded", "Pritchard2024BEDMAP3"),
        "Noh2018REMA": ("superseded", "Howat2022REMA"),
        "Morlighem2022BEDMACHINE": ("retired", "Morlighem2025BEDMACHINE"),
        "Morlighem2019BEDMACHINE": ("superseded", "Morlighem2025BEDMACHINE"),
    }


def test_bounds_are_boxes_that_surely_hold_the_data():
    continent = (-2700000, -2200000, 2800000, 2300000)
    bounds = {dataset.citekey: dataset.bounds for dataset in registry.load() if dataset.bounds}
    local = {citekey: box for citekey, box in bounds.items() if box != continent}
    # The original's training tiles and the rows and columns of its grids of 250 m.
    tiles = {
        "King2016Rutford": ((-1296750, 126000, -1260750, 153000), (127, 191)),
        "King2011Carlson": ((-1347500, 180500, -1320500, 213500), (155, 131)),
    }
    for citekey, ((xmin, ymin, xmax, ymax), (rows, columns)) in tiles.items():
        height, width = 250 * rows, 250 * columns
        assert local.pop(citekey) == (xmax - width, ymax - height, xmin + width, ymin + height)
    assert local == {"Bingham2018PIG": (-1631500, -259000, -1536500, -95000)}


def test_licences_are_stated_where_a_source_states_them_and_nowhere_else():
    licences = {d.citekey: d.licence for d in registry.load() if d.licence}
    assert licences == {
        "Fremand2022BEDMAP3": "CC-BY-4.0",
        "Pritchard2024BEDMAP3": "CC-BY-4.0",
        "Dorschel2022IBCSO": "CC-BY-4.0",
        "Howat2022REMA": "CC-BY-4.0",
        "EIGEN6C4": "CC-BY-4.0",
        "Corr2020PIG": "OGL-UK-3.0",
        "Ferraccioli2020Jutulstraumen": "OGL-UK-3.0",
    }


def test_it_says_how_to_get_what_no_program_can_fetch():
    listing = registry.load()
    for citekey, message in (
        ("Graham2016HRES", "Australian Antarctic Data Centre"),
        ("Rignot2017MEASURES", "antarctica_ice_velocity_450m_v2.nc"),
        ("Corr2020Dufek", "https://doi.org/10.5285/5e2cf315"),
    ):
        how = listing[citekey].how_to_get()
        assert "deepbedmap fetch" not in how
        assert message in how
    assert listing["Rignot2017MEASURES"].files[0].access == "manual"
    nasa = [file for d in listing for file in d.files if file.access == "earthdata"]
    assert all("earthdatacloud.nasa.gov" in file.urls[-1] for file in nasa)
    assert {file.filename for file in nasa} > {"BedMachineAntarctica-v3.nc"}


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
        paper = dataset.paper
        for doi, title, authors in (
            (dataset.doi_dataset, dataset.title, dataset.authors),
            *(((dataset.doi_literature, paper.title, paper.authors),) if paper else ()),
        ):
            if doi and doi.lower() in references:
                checked += 1
                assert words(title) <= references[doi.lower()]
                families = {word for name in authors for word in words(name.split(",")[0])}
                assert families <= references[doi.lower()]
    assert checked == 23


def test_every_pipeline_belongs_to_a_dataset_and_every_dataset_has_its_pipelines():
    listing = registry.load()
    listed = {name for dataset in listing for name in dataset.pipelines}
    assert listed == {path.name for path in (listing.root / "highres").glob("*.json")}
    assert listing.for_pipeline("istarxx.json").citekey == "Bingham2018PIG"
    assert listing.for_pipeline("unknown.json") is None


def test_datums_are_stated_where_they_are_known_and_nowhere_else():
    datums = {d.citekey: d.vertical_datum for d in registry.load() if d.vertical_datum}
    assert datums == {
        "Fretwell2013BEDMAP2": "EIGEN-GL04C",
        "Noh2018REMA": "ellipsoid",
        "King2016Rutford": "ellipsoid",
        "Shi2010CRESIS": "ellipsoid",
        "Lythe2022BEDMAP1": "ellipsoid",
        "Fretwell2022BEDMAP2": "ellipsoid",
        "Fremand2022BEDMAP3": "ellipsoid",
        "Pritchard2024BEDMAP3": "EIGEN-GL04C",
        "Morlighem2025BEDMACHINE": "EIGEN-6C4",
        "Morlighem2022BEDMACHINE": "EIGEN-6C4",
        "Morlighem2019BEDMACHINE": "EIGEN-6C4",
        "Howat2022REMA": "ellipsoid",
        "EIGEN6C4": "ellipsoid",
        "Fretwell2022GL04C": "ellipsoid",
    }


def test_a_registry_loads_from_a_file_a_folder_or_text(entry, listed):
    path = listed(entry)
    for given in (path, path.parent, str(path), str(path.parent)):
        listing = registry.load(given)
        assert (listing.path, listing.root) == (path, path.parent)
    assert registry.load().path == repository.root() / "data_list.yml"
    with pytest.raises(MissingDataError, match="elsewhere"):
        registry.load(path.parent / "elsewhere.yml")


def test_a_registry_is_read_once_and_again_when_its_file_has_changed(entry, listed):
    path = listed(entry)
    first = registry.load(path)
    assert registry.load(path.parent) is first
    path.write_text(path.read_text().replace(entry["citekey"], entry["citekey"][::-1]))
    assert [dataset.citekey for dataset in registry.load(path)] == [entry["citekey"][::-1]]
    path.write_text("datasets: 5\n")
    for _ in range(2):
        with pytest.raises(InvalidDataError):
            registry.load(path)


def test_what_is_left_out_is_unknown_like_null(entry, listed):
    left_out = registry.load(listed(entry))["MadeUp1"]
    nullable = (
        "authors year publisher location bounds resolution doi paper licence crs vertical_datum "
        "units firn_correction pipelines notes"
    )
    nulls = dict.fromkeys(nullable.split())
    files = [{**entry["files"][0], "mirrors": None, "member": None, "unpacked": None}]
    assert registry.load(listed({**entry, **nulls, "files": files}))["MadeUp1"] == left_out
    assert left_out.authors == left_out.pipelines == ()
    assert left_out.resolution is left_out.crs is left_out.firn_correction is None


def test_datasets_are_reached_by_citekey_and_in_order():
    listing = registry.load()
    assert len(listing) == len(list(listing)) == 52
    assert "King2011Carlson" in listing
    assert "King2011" not in listing
    assert listing["King2011Carlson"] is list(listing)[9]
    with pytest.raises(InvalidDataError, match=r"entry King2016Rutfrod.*mean King2016Rutford"):
        listing["King2016Rutfrod"]
    with pytest.raises(AttributeError):
        listing["King2011Carlson"].crs = "EPSG:4326"


URL = "https://example.org/bed.csv"


@pytest.mark.parametrize(
    ("change", "field", "message"),
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
def test_a_broken_entry_is_named_with_file_line_entry_and_field(
    change, field, message, entry, listed
):
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
    assert message in line
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
                "rsync://example.org/b", "doi:10.5285/x", "example.org/b", "/data/b", "nan", "", 1,
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
        ({"content_sha256": "0" * 64}, "content_sha256"),
        ({"unpacked_sha256": "0" * 64}, "unpacked_sha256"),
        *(
            ({"filename": "b.zip", "unpacked": "b.txt", field: "0" * 63}, field)
            for field in ("content_sha256", "unpacked_sha256")
        ),
        ({"filename": "b.zip", "members": "*", "unpacked_sha256": "0" * 64}, "unpacked_sha256"),
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
    assert len(table) == 161
    assert table.index.is_unique
    row = table.loc["bedmap2_bed.tif"]
    assert (row.citekey, row.folder, row.resolution) == ("Fretwell2013BEDMAP2", "lowres", 1000)
    assert (row.crs, row.vertical_datum) == ("EPSG:3031", "EIGEN-GL04C")
    assert int(table.url.isna().sum()) == 11
    assert table.loc["istar07.txt", "firn_correction"]
    assert table.loc["WISE_ISODYN_RadarByFlight_ASCII.zip", "unpacked"].endswith(".txt")


def test_it_says_which_command_or_person_gets_a_file(entry, listed):
    listing = registry.load()
    wilkes = listing["Ferraccioli2018Wilkes"]
    assert "deepbedmap fetch Ferraccioli2018Wilkes" in wilkes.how_to_get(
        "WISE_ISODYN_RadarByFlight.txt"
    )
    message = listing["Shi2010CRESIS"].how_to_get("Data_20141121_05.csv")
    assert "fetch" not in message
    for part in ("Paden, J.", "https://doi.org/10.5067/GDQ0CUCVTE2Q", "Data_20141121_05.csv"):
        assert part in message
    message = registry.load(listed(entry))["MadeUp1"].how_to_get()
    assert message == (
        "ask the authors of 'A made-up survey' for the files of MadeUp1, "
        "and put bed.csv into highres/"
    )
