from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path

import geopandas as gpd
import intake
import numpy as np
import pandas as pd
import pyproj
import pytest
import rioxarray  # noqa: F401
import shapely
import xarray as xr
import yaml

import deepbedmap
from deepbedmap import catalog, registry, repository
from deepbedmap.errors import InvalidDataError, MissingDataError

GENERATED = [
    "catalog/catalog.yml",
    *(
        f"{kind}"
        for folder in catalog.FOLDERS
        for kind in (f"catalog/{folder}.yml", f"{folder}/README.md")
    ),
]


def made_up_picks() -> pd.DataFrame:
    """Picks in the corner of the Thwaites test area, on a rough bed."""
    x, y = (
        axis.ravel()
        for axis in np.meshgrid(-1_400_000 + 300.0 * np.arange(12), -400_000 + 700.0 * np.arange(6))
    )
    longitude, latitude = pyproj.Transformer.from_crs(3031, 4326, always_xy=True).transform(x, y)
    z = (-900 + 80 * np.sin(x / 400) + 60 * np.cos(y / 900)).round(2)
    z[5] = 0.0
    return pd.DataFrame({"x": x, "y": y, "lon": longitude, "lat": latitude, "z": z})


def write_cresis(path: Path) -> None:
    picks = made_up_picks()
    pd.DataFrame(
        {
            "LAT": picks["lat"],
            "LON": picks["lon"],
            "UTCTIMESOD": 40_000.0 + np.arange(len(picks)),
            "THICK": 1500 - picks["z"] - 500,
            "ELEVATION": 1500.0,
            "FRAME": f"{path.name[:4]}111501001",
            "SURFACE": 500.0,
            "BOTTOM": 1500 - picks["z"],
            "QUALITY": 1,
        }
    ).to_csv(path, index=False)


def write_pine_island(path: Path) -> None:
    picks = made_up_picks()
    columns = {
        "X": picks["x"],
        "Y": picks["y"],
        "z_surf": 1000.0,
        "twt": 10.0,
        "h": 990 - picks["z"],
        "h_fc": 1000 - picks["z"],
        "z_bed": picks["z"] + 10,
        "z_bed_fc": picks["z"],
    }
    if path.name.startswith("2010"):
        columns["z_surf_2"] = 1000.0
    pd.DataFrame(columns).to_csv(path, sep="\t", index=False)


def write_rutford(path: Path) -> None:
    picks = made_up_picks()
    head = "".join(f"a line of the header, {n}\n" for n in range(1, 21))
    columns = picks[["x", "y", "z"]].assign(column=1, row=2)
    path.write_text(head + columns.to_csv(sep="\t", index=False, header=False))


def write_carlson(path: Path) -> None:
    made_up_picks()[["x", "y", "z"]].to_csv(path, index=False)


def write_wise(path: Path) -> None:
    picks = made_up_picks()
    head = "".join(f"/ a line of the header, {n}\n" for n in range(1, 12))
    rows = [
        f"W01 L001 {p.lon:.9f} {p.lat:.9f} {p.x} {p.y} 1500.0 20051220 08:20:{n % 60:02d} W01.sgy "
        f"{n} {n} 300.0 700.0 {p.z} {p.z} 0 {p.z} 1000.0 {1000 - p.z}\n"
        for n, p in enumerate(picks.itertuples())
    ]
    path.write_text(head + "".join(rows))


def made_up_raster(spacing: float, rows: int = 8, columns: int = 9) -> xr.DataArray:
    raster = xr.DataArray(
        np.arange(rows * columns, dtype="float32").reshape(rows, columns),
        {"y": -400_000 - spacing * np.arange(rows), "x": -1_400_000 + spacing * np.arange(columns)},
        ("y", "x"),
    )
    return raster.rio.write_crs(3031)


def write_geotiff(path: Path) -> None:
    made_up_raster(100).rio.to_raster(path)


def write_velocity(path: Path) -> None:
    vx = made_up_raster(450)
    names = {"VX": vx, "VY": -vx, "STDX": vx * 0, "STDY": vx * 0}
    xr.Dataset(names).to_netcdf(path, engine="h5netcdf")


def write_grounding_line(path: Path) -> None:
    boxes = [shapely.box(0, 0, 1000, 1000), shapely.box(5000, 5000, 9000, 9000)]
    gpd.GeoDataFrame({"Id": [0, 1]}, geometry=boxes, crs=3031).to_file(path)
    for part in (".prj", ".cpg"):  # the published grounding line has neither
        path.with_suffix(part).unlink()


WRITERS = {
    "bedmap2_bed.tif": write_geotiff,
    "REMA_100m_dem.tif": write_geotiff,
    "REMA_200m_dem_filled.tif": write_geotiff,
    "Arthern_accumulation_bedmap2_grid1.tif": write_geotiff,
    "antarctic_ice_vel_phase_map_v01.nc": write_velocity,
    "GroundingLine_Antarctica_v2.shp": write_grounding_line,
    "bed_WGS84_grid.txt": write_rutford,
    "2007t1.txt": write_pine_island,
    "2007tr.txt": write_pine_island,
    "2010tr.txt": write_pine_island,
    **{f"istar{n}.txt": write_pine_island for n in ("07", "08", "13", "15", "17", "18")},
    **{
        f"{season}.csv": write_cresis
        for season in (
            "2009_Antarctica_DC8",
            "2009_Antarctica_TO",
            "2009_Antarctica_TO_Gambit",
            "2010_Antarctica_DC8",
            "2011_Antarctica_DC8",
            "2011_Antarctica_TO",
            "2012_Antarctica_DC8",
            "2013_Antarctica_Basler",
            "2013_Antarctica_P3",
            "2014_Antarctica_DC8",
            "2016_Antarctica_DC8",
            "2017_Antarctica_P3",
            "2017_Antarctica_Basler",
        )
    },
    "Data_20141121_05.csv": write_cresis,
    "WISE_ISODYN_RadarByFlight.txt": write_wise,
    "bed_depth_below_WGS84_datum.csv": write_carlson,
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The repository's flat files, where no real survey lies beside the pipelines."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copy(repository.root() / "data_list.yml", folder)
    shutil.copytree(repository.root() / "catalog", folder / "catalog")
    (folder / "highres").mkdir()
    for pipeline in (repository.root() / "highres").glob("*.json"):
        shutil.copy(pipeline, folder / "highres")
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Made-up files with the names of the registry's, each in its survey's own format."""
    folder = tmp_path_factory.mktemp("data")
    folders = {file.name: d.folder for d in registry.load() for file in d.files}
    for name, write in WRITERS.items():
        path = folder / folders.get(name, "highres") / name
        path.parent.mkdir(exist_ok=True)
        write(path)
    return folder


@pytest.fixture
def opened(copy, raw, monkeypatch):
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(raw))
    return intake.open_catalog(copy / "catalog" / "catalog.yml")


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A repository of one's own, whose survey and outline wait at a file: URL."""
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "elsewhere"))
    published = tmp_path / "published"
    published.mkdir()
    write_carlson(published / "bed.csv")
    root = tmp_path / "own"
    (root / "highres").mkdir(parents=True)
    recipe = json.loads(
        (repository.root() / "highres" / "bed_depth_below_WGS84_datum.json").read_text()
    )
    recipe["pipeline"][0]["filename"] = "bed.csv"
    (root / "highres" / "bed.json").write_text(json.dumps(recipe))
    return _registry(
        root,
        citekey="MadeUp2020",
        folder="highres",
        crs="EPSG:3031",
        pipelines=["bed.json"],
        files=[_file(published / "bed.csv")],
    )


def _file(path: Path) -> dict[str, str]:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"filename": path.name, "url": path.as_uri(), "sha256": sha256}


def _registry(root: Path, **entry: object) -> Path:
    entry = {"title": "A made-up survey", **entry}
    (root / "data_list.yml").write_text(yaml.safe_dump([entry], allow_unicode=True))
    return root


def _sources(cat: intake.catalog.Catalog) -> dict[str, intake.source.base.DataSource]:
    return {name: cat[folder][name] for folder in cat for name in cat[folder]}


def test_the_generated_files_of_the_repository_are_up_to_date():
    catalog.check()


def test_the_catalog_opens_in_three_ways_from_any_folder(tmp_path, monkeypatch):
    path = os.path.relpath(repository.root() / "catalog" / "catalog.yml", tmp_path)
    monkeypatch.chdir(tmp_path)
    expected = list(_sources(deepbedmap.open_catalog()))
    assert len(expected) == 2 * 12 + 6
    assert list(_sources(intake.open_catalog(path))) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # intake looks for conda as of old
        assert list(_sources(intake.cat.deepbedmap)) == expected
    for source in _sources(intake.open_catalog(path)).values():
        (arguments,) = (
            entry["args"] for entry in yaml.safe_load(source.yaml())["sources"].values()
        )
        file = Path(os.path.normpath(arguments.get("path") or arguments["pipeline"]))
        assert file.parent.parent == repository.root()


def test_every_entry_is_read_once_its_raw_files_are_there(opened):
    read = {}
    for name, source in _sources(opened).items():
        read[name] = source.read()
        assert source.discover()["npartitions"] == 1
        assert source.metadata["citekey"] in registry.load()
    grids = {name for name in read if f"{name}_points" in read}
    assert len(grids) == 12
    picks = made_up_picks()
    for name in grids:
        points = read[f"{name}_points"]
        assert len(points) % len(picks) == 0
        first = points.iloc[: len(picks)]
        np.testing.assert_allclose(first[["x", "y", "z"]], picks[["x", "y", "z"]], atol=0.01)
        assert points.attrs["crs"] == opened.highres[name].metadata["crs"] == "EPSG:3031"
        grid = read[name]
        assert grid.dims == ("y", "x")
        assert grid.rio.crs.to_epsg() == 3031
        assert np.isfinite(grid).mean() > 0.5
        assert -1000 < float(grid.mean()) < -800
    seasons = {len(read[f"{n}_points"]) // len(picks) for n in ("istarxx", "20xx_Antarctica_TO")}
    assert seasons == {6, 3}
    for name in ("bedmap2_bed", "REMA_100m_dem", "Arthern_accumulation_bedmap2_grid1"):
        np.testing.assert_array_equal(read[name], made_up_raster(100))
    velocity = read["antarctic_ice_vel_phase_map_v01"]
    assert list(velocity.band.to_numpy()) == ["VX", "VY"]
    np.testing.assert_array_equal(velocity, [made_up_raster(450), -made_up_raster(450)])
    outline = read["GroundingLine_Antarctica_v2"]
    assert len(outline) == 2
    assert outline.crs.to_epsg() == 3031


def test_a_raster_has_the_vertical_datum_that_the_registry_states(opened):
    assert opened.lowres["bedmap2_bed"].read().attrs["vertical_datum"] == "EIGEN-GL04C"
    assert opened.misc["REMA_100m_dem"].read().attrs["vertical_datum"] == "ellipsoid"
    assert "vertical_datum" not in opened.misc["antarctic_ice_vel_phase_map_v01"].read().attrs


def test_an_entry_without_its_raw_files_says_which_command_or_person_gets_them(
    copy, tmp_path, monkeypatch
):
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path))
    for name, source in _sources(intake.open_catalog(copy / "catalog" / "catalog.yml")).items():
        with pytest.raises(MissingDataError) as error:
            source.read()
        citekey = source.metadata["citekey"]
        if name.startswith("Data_20141121_05"):
            assert "ask the authors (Paden, J. and others) of https://doi.org/" in str(error.value)
        else:
            assert f"`deepbedmap fetch {citekey}` gets it" in str(error.value)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_parameters_change_what_is_read_and_no_one_is_warned_of_shell_commands(opened):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rutford = opened.highres["bed_WGS84_grid"]
        by_default = rutford.read()
        coarse = rutford(spacing=500).read()
        stiff = rutford(tension=1).read()
        narrow = rutford(max_gap=0).read()
        cut = rutford(region=(-1_399_000, -399_000, -1_398_000, -398_000)).read()
    assert np.diff(coarse.x[:2]) == 2 * np.diff(by_default.x[:2]) == 500
    assert float(abs(stiff - by_default).max()) > 1
    assert 0 < int(narrow.count()) < int(by_default.count())
    assert cut.shape == (4, 4)
    assert rutford.read().shape == by_default.shape
    with pytest.raises(ValueError, match="tension"):
        rutford(tension=2)
    with pytest.raises(ValueError, match="engine"):
        opened.highres["2010tr_points"](engine="gdal").read()


def test_fetch_gets_the_files_of_a_repository_of_ones_own_and_puts_them_beside_it(own, tmp_path):
    catalog.build(registry.load(own), root=own)
    opened = intake.open_catalog(own / "catalog" / "catalog.yml")
    assert [list(opened[folder]) for folder in opened] == [["bed", "bed_points"], [], []]
    with pytest.raises(MissingDataError, match="deepbedmap fetch MadeUp2020"):
        opened.highres["bed_points"](fetch=False).read()
    points = opened.highres["bed_points"](fetch=True).read()
    np.testing.assert_allclose(points["z"], made_up_picks()["z"])
    assert (own / "highres" / "bed.csv").is_file()
    assert not (tmp_path / "elsewhere").exists()
    assert opened.highres["bed"].read().attrs["vertical_datum"] == "unknown"


def test_a_file_with_another_checksum_is_not_read(own, tmp_path):
    catalog.build(registry.load(own))
    (tmp_path / "published" / "bed.csv").write_text("x,y,z\n0,0,0\n")
    entry = intake.open_catalog(own / "catalog" / "highres.yml")["bed_points"]
    with pytest.raises(deepbedmap.errors.DownloadError, match="sha256"):
        entry(fetch=True).read()


def test_fetch_puts_files_of_the_packages_registry_into_the_data_folder(monkeypatch, tmp_path):
    from deepbedmap import download

    asked = []

    def fetch(citekey: str, **options: object) -> None:
        asked.append((citekey, options["data_dir"]))

    monkeypatch.setattr(download, "fetch", fetch)
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path))
    for name in ("bed_WGS84_grid", "bed_WGS84_grid_points"):
        source = deepbedmap.open_catalog().highres[name](fetch=True)
        with pytest.raises(MissingDataError):
            source.read()
    assert asked == [("King2016Rutford", tmp_path)] * 2


def test_reading_twice_gives_independent_data(opened):
    for source in (opened.highres["2007tx_points"], opened.misc["REMA_100m_dem"]):
        first, second = source.read(), source.read()
        first.attrs.clear()
        if isinstance(first, pd.DataFrame):
            first["z"] = 0.0
            assert (second["z"] != 0).any()
        else:
            first[:] = 0.0
            assert float(second.max()) > 0
        assert second.attrs
        assert source.read().equals(second)


def test_build_writes_the_same_text_every_time_and_nothing_else(own):
    written = catalog.build(registry.load(own))
    assert sorted(str(path.relative_to(own)) for path in written) == sorted(GENERATED)
    texts = {path: path.read_text() for path in written}
    assert all("Written by `deepbedmap catalog build`" in t.split("\n")[0] for t in texts.values())
    assert not [text for text in texts.values() if str(own) in text]
    assert catalog.build(root=own) == written
    assert texts == {path: path.read_text() for path in written}
    files = {path for path in own.rglob("*") if path.is_file()}
    assert files == {*written, own / "data_list.yml", own / "highres" / "bed.json"}


def test_readmes_tell_of_every_dataset_and_how_to_get_it():
    for dataset in registry.load():
        text = (repository.root() / dataset.folder / "README.md").read_text()
        assert f"\ndeepbedmap fetch {dataset.citekey}\n" in text
        (row,) = (line for line in text.split("\n") if line.startswith(f"| {dataset.citekey} |"))
        assert row.count("|") == 10
        assert dataset.title in row
        assert dataset.doi_literature in row
        for name in (*dataset.pipelines, *(file.name for file in dataset.files)):
            assert f"`{name}`" in row


def test_a_dataset_without_address_names_its_authors_in_the_readme(own, tmp_path):
    file = {"filename": "bed.csv", "url": None, "sha256": None}
    _registry(own, citekey="Lost1999", authors=["Lost, A."], folder="highres", files=[file])
    catalog.build(root=own)
    text = (own / "highres" / "README.md").read_text()
    assert "- Lost1999: ask the authors (Lost, A.) of 'A made-up survey'" in text
    assert "deepbedmap fetch Lost1999" not in text
    assert "There is no such dataset yet" in (own / "misc" / "README.md").read_text()


@pytest.mark.parametrize("name", GENERATED)
def test_check_names_a_generated_file_that_was_edited_or_removed(name, own):
    catalog.build(root=own)
    catalog.check(root=own)
    path = own / name
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:2], "# by hand", *lines[2:]]))
    with pytest.raises(InvalidDataError) as error:
        catalog.check(root=own)
    (line,) = str(error.value).split("\n")
    assert line.startswith(f"{path}, line 3: expected ")
    assert "found '# by hand'; change data_list.yml, and run `deepbedmap catalog build`" in line
    path.unlink()
    with pytest.raises(InvalidDataError, match=r"found no such file; run `deepbedmap catalog"):
        catalog.check(root=own)


def test_check_finds_every_fault_at_once_and_what_should_not_be_there(own):
    catalog.build(root=own)
    (own / "catalog" / "old.yml").write_text("sources: {}\n")
    (own / "catalog" / "broken.yml").write_text("sources: [\n")
    (own / "misc" / "README.md").unlink()
    with pytest.raises(InvalidDataError) as error:
        catalog.check(registry.load(own), own)
    lines = str(error.value).split("\n")
    assert len(lines) == 4
    assert "misc/README.md: found no such file" in lines[0]
    assert "broken.yml: found a file that the registry gives no reason for; remove it" in lines[1]
    assert "old.yml: found a file that the registry gives no reason for" in lines[2]
    assert "broken.yml, line" in lines[3]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("      spacing: '{{ spacing }}'\n", "", "none"),
        ("'{{ spacing }}'", "'{{ width }}'", "'{{ width }}'"),
        ("'{{ spacing }}'", "250", "250"),
    ],
)
def test_check_finds_a_parameter_that_intake_would_swallow(before, after, found, own):
    catalog.build(root=own)
    path = own / "catalog" / "highres.yml"
    assert path.read_text().count(before) == 1
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(InvalidDataError) as error:
        catalog.check(root=own)
    assert "field sources.bed.parameters.spacing: expected an argument spacing" in str(error.value)
    assert f"found {found}; without it the parameter has no effect" in str(error.value)


def test_text_of_the_registry_is_never_run_as_a_template(own, monkeypatch):
    title = "{{ env('HOME') }} {% raw %} {# x #} {{{ a }} {"
    name = "bed{{ 6 * 7 }}.tif"
    file = {"filename": name, "url": None, "sha256": None}
    _registry(own, citekey="Sly2020", title=title, authors=["{{ 1 }}"], folder="misc", files=[file])
    catalog.build(root=own)
    catalog.check(root=own)
    source = intake.open_catalog(own / "catalog" / "misc.yml")["bed___6___7___"]
    assert source.metadata["title"] == title
    assert source.metadata["citation"] == f"{{{{ 1 }}}}. {title}"
    with pytest.raises(MissingDataError) as error:
        source.read()
    assert name in str(error.value)


def test_two_files_that_would_have_one_name_are_a_fault(own):
    files = [{"filename": n, "url": None, "sha256": None} for n in ("bed.tif", "bed.nc")]
    _registry(own, citekey="Twice2020", folder="misc", files=files)
    with pytest.raises(InvalidDataError, match=r"entry Twice2020.*would call bed;"):
        catalog.build(root=own)
    assert not (own / "catalog").exists()


def test_a_pipeline_that_is_not_there_is_a_fault(own):
    (own / "highres" / "bed.json").unlink()
    with pytest.raises(MissingDataError, match=r"bed\.json"):
        catalog.build(root=own)
    assert not (own / "catalog").exists()
