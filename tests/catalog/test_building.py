from __future__ import annotations

import fnmatch
import functools
import hashlib
import json
import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

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
from deepbedmap import catalog, registry, repository, schemas
from deepbedmap.download.receipts import Receipt, now
from deepbedmap.errors import InvalidDataError, MissingDataError
from deepbedmap.extras import MissingExtraError
from deepbedmap.files.checksums import Digest

GENERATED = [
    "catalog/catalog.yml",
    "catalog/open.yml",
    "catalog/products.yml",
    "catalog/registry.sha256",
    "catalog/training.yml",
    *(
        f"{kind}"
        for folder in catalog.FOLDERS
        for kind in (f"catalog/{folder}.yml", f"{folder}/README.md")
    ),
]

SURVEYS = Path(__file__).parents[1] / "fixtures" / "surveys"  # samples of contributed surveys


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


def write_bedmap(path: Path) -> None:
    picks = made_up_picks()
    head = [f"#key {n}: value" for n in range(18)]
    names = (
        "trajectory_id,trace_number,longitude (degree_east),latitude (degree_north),date,time_UTC,"
        "surface_altitude (m),land_ice_thickness (m),bedrock_altitude (m),two_way_travel_time (m),"
        "aircraft_altitude (m),along_track_distance (m)"
    )
    rows = [
        f"7,{n},{p.lon % 360:.9f},{p.lat:.9f},2013-12-01,12:00:{n % 60:02d},1000,{1000 - p.z:.2f},"
        f"{-9999 if n % 10 == 9 else p.z},-9999,1500,{300 * n}"
        for n, p in enumerate(picks.itertuples())
    ]
    path.write_text("\n".join([*head, names, *rows, ""]))


def write_raw(path: Path, header: str) -> None:
    """Write a raw file in the format of the survey whose pipeline has this header."""
    for name, write in (
        ("BOTTOM", write_cresis),
        ("h_fc", write_pine_island),
        ("FlightID", write_wise),
        ("trajectory_id", write_bedmap),
        ("column", write_rutford),
    ):
        if name in header:
            write(path)
            return
    if (SURVEYS / path.name).is_file():
        shutil.copy(SURVEYS / path.name, path)
    else:
        write_carlson(path)


def made_up_raster(
    spacing: float, rows: int = 8, columns: int = 9, crs: str = "EPSG:3031"
) -> xr.DataArray:
    west, north = (-1_400_000, -400_000) if crs != "EPSG:4326" else (-30, -70)
    raster = xr.DataArray(
        np.arange(rows * columns, dtype="float32").reshape(rows, columns),
        {"y": north - spacing * np.arange(rows), "x": west + spacing * np.arange(columns)},
        ("y", "x"),
    )
    return raster.rio.write_crs(crs)


def write_raster(path: Path, dataset: registry.Dataset) -> None:
    crs = dataset.crs or "EPSG:3031"
    raster = made_up_raster(1 if crs == "EPSG:4326" else 450, crs=crs)
    if path.suffix == ".tif":
        raster.rio.to_raster(path)
    elif "_vel" in path.name:
        names = {"VX": raster, "VY": -raster, "STDX": raster * 0, "STDY": raster * 0}
        xr.Dataset(names).to_netcdf(path, engine="h5netcdf")
    else:
        raster.to_dataset(name="z").to_netcdf(path, engine="h5netcdf")


def write_outlines(path: Path, dataset: registry.Dataset) -> None:
    boxes = [shapely.box(0, 0, 1000, 1000), shapely.box(5000, 5000, 9000, 9000)]
    table = gpd.GeoDataFrame({"Id": [0, 1]}, geometry=boxes, crs=dataset.crs or "EPSG:3031")
    table.to_file(path)
    for part in {".prj", ".cpg"} if path.suffix == ".shp" else ():
        if path.with_suffix(part).name not in [file.name for file in dataset.files]:
            path.with_suffix(part).unlink()


def write_files_of(args: dict[str, str], dataset: registry.Dataset, data: Path) -> None:
    """Write what an entry reads under the data folder, as its registry and pipeline name it."""
    folder = data / dataset.folder
    folder.mkdir(parents=True, exist_ok=True)
    if "pipeline" in args:
        recipe = json.loads(
            (repository.root() / "highres" / Path(args["pipeline"]).name).read_text()
        )
        reader = recipe["pipeline"][0]
        listed = fnmatch.filter((file.name for file in dataset.files), reader["filename"])
        some = reader["filename"].replace("*", "made_up_{}").replace("?", "{}")
        for name in listed[:3] or dict.fromkeys((some.format(1, 1), some.format(2, 2))):
            write_raw(folder / name, reader.get("header", ""))
        return
    name = Path(args["path"]).name
    (file,) = (f for f in dataset.files if name == (f.filename if f.members else f.name))
    if file.members:
        name = file.members.replace("*", "made_up")
        members = {name: Digest("0" * 64, 0)}
        receipt = Receipt(None, None, None, now(), members=members)
        receipt.write(folder / file.filename)
    write = write_outlines if Path(name).suffix in (".shp", ".gpkg", ".geojson") else write_raster
    write(folder / name, dataset)


@functools.cache
def listing() -> registry.Registry:
    return registry.load()


@functools.cache
def entries() -> dict[str, dict[str, Any]]:
    """Every entry of the bundled catalog but those of ``open``, by "folder/name"."""
    return {
        f"{folder}/{name}": entry
        for folder in catalog.FOLDERS
        for name, entry in schemas.load(repository.root() / "catalog" / f"{folder}.yml")
        .content["sources"]
        .items()
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
def opened(copy):
    return intake.open_catalog(copy / "catalog" / "catalog.yml")


@pytest.fixture
def source_of(opened, tmp_path, monkeypatch):
    """Open an entry, once made-up files of the names that it reads are there."""
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "data"))

    def source_of(entry: str) -> intake.source.base.DataSource:
        said = entries()[entry]
        write_files_of(said["args"], listing()[said["metadata"]["citekey"]], tmp_path / "data")
        folder, name = entry.split("/")
        return opened[folder][name]

    return source_of


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
    return {f"{folder}/{n}": cat[folder][n] for folder in catalog.FOLDERS for n in cat[folder]}


def test_the_generated_files_of_the_repository_are_up_to_date():
    catalog.check()


def test_the_catalog_opens_in_three_ways_from_any_folder(tmp_path, monkeypatch):
    path = os.path.relpath(repository.root() / "catalog" / "catalog.yml", tmp_path)
    monkeypatch.chdir(tmp_path)
    expected = list(_sources(deepbedmap.open_catalog()))
    assert list(entries()) == expected
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


def test_the_training_set_has_an_entry_that_says_how_it_is_made(opened, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path))
    source = opened.training["tiles"]
    assert "`deepbedmap tiles GRID... --out training/tiles.zarr` makes them" in source.description
    path = tmp_path / "training" / "tiles.zarr"
    with pytest.raises(MissingDataError, match=rf"^{path}: no such .*deepbedmap tiles"):
        source.read()


def test_every_dataset_has_the_entries_that_its_files_allow():
    found = {entry["metadata"]["citekey"] for entry in entries().values()}
    for dataset in listing():
        names = [file.members or file.name for file in dataset.files]
        opens = [n for n in names if n.endswith((".tif", ".nc", ".shp", ".gpkg", ".geojson"))]
        usable = bool(dataset.pipelines or opens) and dataset.status != "withdrawn"
        assert (dataset.citekey in found) == usable, dataset.citekey


@pytest.mark.parametrize("entry", entries())
def test_an_entry_is_read_and_says_what_it_is(entry, source_of):
    source = source_of(entry)
    dataset = listing()[source.metadata["citekey"]]
    data = source.read()
    assert source.discover()["npartitions"] == 1
    assert source.metadata["title"] == dataset.title
    assert source.metadata["doi"]["literature"] == dataset.doi_literature
    assert {"citation", "notes", "licence", "built_from"} <= {*source.metadata}
    for field in ("version", "status", "superseded_by", "vertical_datum", "units", "nodata"):
        assert source.metadata[field] == getattr(dataset, field)
    kind = entries()[entry]["driver"].removeprefix("deepbedmap_")
    if kind == "points":
        picks = made_up_picks()
        assert len(data) % len(picks) == 0
        first = data.iloc[: len(picks)]
        np.testing.assert_allclose(first[["x", "y", "z"]], picks[["x", "y", "z"]], atol=0.01)
        assert data.attrs["crs"] == source.metadata["crs"] == "EPSG:3031"
        assert data.attrs["vertical_datum"] == dataset.vertical_datum
    elif kind == "grid":
        assert data.dims == ("y", "x")
        assert data.rio.crs.to_epsg() == 3031
        assert np.isfinite(data).mean() > 0.5
        assert -1000 < float(data.mean()) < -800
    elif kind == "raster":
        bands = data if data.ndim == 3 else data.expand_dims("band")
        np.testing.assert_array_equal(abs(bands[0]), np.arange(72).reshape(8, 9))
        assert data.rio.crs.to_string() == (dataset.crs or "EPSG:3031")
        assert data.attrs.get("vertical_datum") == dataset.vertical_datum
    else:
        assert kind == "vector"
        assert len(data) == 2
        assert data.crs == pyproj.CRS(dataset.crs or "EPSG:3031")


def test_an_entry_without_its_raw_files_says_which_command_or_person_gets_them(
    opened, tmp_path, monkeypatch
):
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path))
    for name, source in _sources(opened).items():
        if f"{name}_points" in entries():
            continue  # a grid is made of what the points are
        with pytest.raises(MissingDataError) as error:
            source.read()
        dataset = listing()[source.metadata["citekey"]]
        if name == "highres/Data_20141121_05_points":
            assert "ask the authors (Paden, J. and others) of https://doi.org/" in str(error.value)
        elif any(file.urls and file.access != "manual" for file in dataset.files):
            assert f"`deepbedmap fetch {dataset.citekey}` gets it" in str(error.value)
        else:
            assert f"put {dataset.files[0].filename} into {dataset.folder}/" in str(error.value)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_parameters_of_a_grid_change_what_is_read(source_of):
    rutford = source_of("highres/bed_WGS84_grid")
    by_default = rutford.read()
    coarse = rutford(spacing=500).read()
    stiff = rutford(tension=1).read()
    narrow = rutford(max_gap=0).read()
    cut = rutford(region=(-1_399_000, -399_000, -1_398_000, -398_000)).read()
    box = (-1_399_400, -399_700, -1_397_500, -397_000)
    near = rutford(bounds=np.array(box)).read()
    assert np.diff(coarse.x[:2]) == 2 * np.diff(by_default.x[:2]) == 500
    assert float(abs(stiff - by_default).max()) > 1
    assert 0 < int(narrow.count()) < int(by_default.count())
    assert cut.shape == (4, 4)
    assert 0 < near.size < by_default.size
    assert box[0] - 500 <= near.x.min() <= near.x.max() <= box[2] + 500
    assert rutford.read().shape == by_default.shape
    with pytest.raises(ValueError, match="tension"):
        rutford(tension=2)
    season = source_of("highres/istarxx")
    with pytest.raises(InvalidDataError, match=r"istar08\.txt"):
        season(season="2010*").read()


def test_parameters_of_points_change_what_is_read(source_of):
    survey = source_of("highres/20xx_Antarctica_TO_points")
    everything = survey.read()
    one = survey(season="2011_Antarctica_TO").read()
    assert len(everything) == 3 * len(one)
    assert set(one["line"].str.split("/").str[0]) == {"2011_Antarctica_TO"}
    assert len(survey(season="2009*").read()) == 2 * len(one)
    both = survey(season=["2011_Antarctica_TO", "2009_Antarctica_TO.csv"]).read()
    assert len(both) == 2 * len(one)
    box = (-1_399_500, -399_500, -1_398_500, -397_000)
    inside = survey(bounds=box, season="2011_Antarctica_TO.csv").read()
    assert 0 < len(inside) < len(one)
    assert inside["x"].between(box[0], box[2]).all()
    assert inside["y"].between(box[1], box[3]).all()
    located = survey(geometry=True)(season="2011_Antarctica_TO").read()
    assert isinstance(located, gpd.GeoDataFrame)
    assert located.crs.to_epsg() == 3031
    np.testing.assert_array_equal(located.geometry.x, one["x"])
    assert not isinstance(one, gpd.GeoDataFrame)
    with pytest.raises(ValueError, match="engine"):
        survey(engine="gdal")
    try:
        import pdal  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="python-pdal"):
            survey(engine="pdal").read()
    again = survey(season="2011_Antarctica_TO", bounds=box)(season=None, bounds=None).read()
    assert len(again) == len(everything)


def test_bounds_of_rasters_and_outlines_change_what_is_read(source_of):
    raster = source_of("misc/REMA_100m_dem")
    box = (-1_400_000, -402_000, -1_398_500, -400_400)
    part = raster(bounds=box).read()
    assert part.shape == (4, 4)
    np.testing.assert_array_equal(part, raster.read()[1:5, :4])
    outlines = source_of("misc/GroundingLine_Antarctica_v2")
    assert list(outlines(bounds=(0, 0, 10, 10)).read()["Id"]) == [0]
    with pytest.raises(ValueError, match="bounds: expected"):
        raster(bounds=(0, 0, 0, 1))
    with pytest.raises(ValueError, match="bounds: expected four numbers"):
        raster(bounds="everywhere")


def test_every_parameter_is_described_and_metadata_stays_when_one_is_given():
    given: dict[str, Any] = {"season": "x", "engine": "pdal", "bounds": (0, 0, 1, 1)}
    for name, source in _sources(deepbedmap.open_catalog()).items():
        described = {p["name"] for p in source.describe()["user_parameters"]}
        if name.endswith("_points"):
            assert described == {"geometry", "season", "bounds", "engine", "fetch"}
        elif "spacing" in described:
            expected = {"spacing", "tension", "max_gap", "region", "season", "bounds", "engine"}
            assert described == {*expected, "fetch"}
        else:
            assert described == {"bounds", "fetch"}
        changed = source(**{key: value for key, value in given.items() if key in described})
        assert changed.metadata == source.metadata
        assert changed.metadata["citekey"] in listing()


def test_no_one_is_warned_of_shell_commands(copy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, source in _sources(intake.open_catalog(copy / "catalog/catalog.yml")).items():
            source(fetch=False, bounds=(0, 0, 1, 1))
            if name.endswith("_points"):
                source(season="2010*", engine="pdal")
                source(season=["2010*", "2011*"])


def test_fetch_gets_the_files_of_a_repository_of_ones_own_and_puts_them_beside_it(own, tmp_path):
    catalog.build(registry.load(own), root=own)
    opened = intake.open_catalog(own / "catalog" / "catalog.yml")
    listed = [list(opened[folder]) for folder in opened]
    assert listed == [["bed", "bed_points"], [], [], [], ["tiles"], ["bed"]]
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


@pytest.mark.parametrize(
    ("entry", "parameters", "expected"),
    [
        ("highres/bed_WGS84_grid", {}, ["bed_WGS84_grid.txt"]),
        ("highres/20xx_Antarctica_TO_points", {"season": "2011*"}, ["2011_Antarctica_TO.csv"]),
        ("highres/201x_Antarctica_P3", {}, ["2013_Antarctica_P3.csv", "2017_Antarctica_P3.csv"]),
        ("highres/Data_20141121_05_points", {}, []),
        (
            "misc/GroundingLine_Antarctica_v2",
            {},
            [f"GroundingLine_Antarctica_v2.{part}" for part in ("shp", "shx", "dbf")],
        ),
    ],
)
def test_fetch_asks_for_just_the_files_that_are_read_and_puts_them_into_the_data_folder(
    entry, parameters, expected, monkeypatch, tmp_path
):
    from deepbedmap import download

    asked = []

    def fetch(names: list[str], **options: object) -> None:
        asked.append((names, options["data_dir"]))

    monkeypatch.setattr(download, "fetch", fetch)
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path))
    folder, name = entry.split("/")
    source = deepbedmap.open_catalog()[folder][name](fetch=True, **parameters)
    with pytest.raises(MissingDataError):
        source.read()
    assert asked == [([f"{folder}/{name}" for name in expected], tmp_path)]


def test_reading_twice_gives_independent_data(source_of):
    for source in (source_of("highres/2007tx_points"), source_of("misc/REMA_100m_dem")):
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


STATUSES = {
    "superseded": ("Old2020 is superseded; New2024 replaces it", "Raster (superseded by New2024)"),
    "retired": ("Old2020 is retired; New2024 replaces it", "Raster (retired)"),
    "active": (None, "Raster"),
}


@pytest.mark.parametrize("status", STATUSES)
def test_a_dataset_that_is_not_the_newest_is_read_with_one_warning(status, own, caplog):
    warning, kind = STATUSES[status]
    _outdated_registry(own, status=status)
    catalog.build(root=own)
    write_raster(own / "misc" / "old.tif", registry.load(own)["Old2020"])
    source = intake.open_catalog(own / "catalog" / "misc.yml")["old"]
    assert source.describe()["description"] == f"{kind}: Old"
    assert source.metadata["status"] == status
    with caplog.at_level(logging.WARNING):
        source.read()
    assert [record.getMessage() for record in caplog.records] == [warning] * (warning is not None)
    text = (own / "misc" / "README.md").read_text()
    assert ("## Not the newest" in text) == (status != "active")
    if warning:
        assert f"- Old2020 is {status}; use New2024." in text


def test_a_withdrawn_dataset_has_no_entry_and_is_neither_read_nor_fetched(own):
    from deepbedmap import download
    from deepbedmap.catalog import RasterSource

    _outdated_registry(own, status="withdrawn", notes="Its heights are wrong.")
    catalog.build(root=own)
    assert "old" not in intake.open_catalog(own / "catalog" / "misc.yml")
    text = (own / "misc" / "README.md").read_text()
    reason = "- Old2020 is withdrawn and opens no more (Its heights are wrong.); use New2024."
    assert reason in text
    assert "fetch Old2020" not in text
    write_raster(own / "misc" / "old.tif", registry.load(own)["Old2020"])
    for read in (
        RasterSource(own / "misc" / "old.tif").read,
        lambda: download.fetch("Old2020", registry=registry.load(own), data_dir=own),
        lambda: download.fetch("old.tif", registry=registry.load(own), data_dir=own),
    ):
        with pytest.raises(InvalidDataError, match=r"entry Old2020.*wrong.*use New2024"):
            read()


def _outdated_registry(root: Path, **fields: object) -> None:
    file = {"url": "http://127.0.0.1:9/old.tif", "sha256": None}
    old = {"citekey": "Old2020", "title": "Old", "folder": "misc", "crs": "EPSG:3031"}
    old |= {"files": [{"filename": "old.tif", **file}], **fields}
    new = {**old, "citekey": "New2024", "title": "New", "status": "active"}
    new["files"] = [{"filename": "new.tif", **file}]
    if old["status"] != "active":
        old["superseded_by"] = "New2024"
    (root / "misc").mkdir(exist_ok=True)
    (root / "data_list.yml").write_text(
        yaml.safe_dump({"schema_version": 2, "datasets": [old, new]})
    )


def test_build_writes_the_same_text_every_time_and_nothing_else(own):
    written = catalog.build(registry.load(own))
    assert sorted(str(path.relative_to(own)) for path in written) == sorted(GENERATED)
    texts = {path: path.read_text() for path in written}
    firsts = [text.split("\n")[0] for path, text in texts.items() if path.suffix != ".sha256"]
    assert all("Written by `deepbedmap catalog build`" in line for line in firsts)
    assert not [text for text in texts.values() if str(own) in text]
    assert catalog.build(root=own) == written
    assert texts == {path: path.read_text() for path in written}
    files = {path for path in own.rglob("*") if path.is_file()}
    assert files == {*written, own / "data_list.yml", own / "highres" / "bed.json"}


def test_readmes_tell_of_every_dataset_and_how_to_get_it():
    for dataset in listing():
        text = (repository.root() / dataset.folder / "README.md").read_text()
        if any(file.urls and file.access != "manual" for file in dataset.files):
            assert f"\ndeepbedmap fetch {dataset.citekey}\n" in text
        else:
            assert f"\n- {dataset.citekey}: " in text
        (row,) = (line for line in text.split("\n") if line.startswith(f"| {dataset.citekey} |"))
        assert row.count("|") == 12
        assert dataset.title in row
        assert f"https://doi.org/{dataset.doi_dataset or dataset.doi_literature}" in row
        for file in dataset.files[: catalog.MOST_FILES]:
            assert f"`{file.name}`" in row
        more = len(dataset.files) - catalog.MOST_FILES
        assert (f" and {more} more |" in row) == (more > 0)


def test_readmes_count_what_is_known(own):
    files = [
        {"filename": f"{n}.csv", "url": None, "sha256": h} for n, h in ((1, "0" * 64), (2, None))
    ]
    known = {"bounds": [0, 0, 1000, 1000], "licence": "CC-BY-4.0", "vertical_datum": "ellipsoid"}
    first = {"citekey": "A2020", "title": "A", "folder": "misc", "files": files[:1], **known}
    second = {"citekey": "B2020", "title": "B", "folder": "misc", "files": files[1:]}
    third = {**second, "citekey": "C2020", "doi": {"dataset": "10.1234/c"}, "files": []}
    (own / "data_list.yml").write_text(yaml.safe_dump([first, second, third]))
    catalog.build(root=own)
    text = (own / "misc" / "README.md").read_text()
    expected = (
        "Of 3 datasets, 1 have a checksum for every file, 1 a licence, 1 bounds and "
        "1 a vertical datum."
    )
    assert expected in text
    assert "- C2020: see https://doi.org/10.1234/c for the files of C2020" in text
    assert (
        "- B2020: ask the authors of 'B' for the files of B2020, and put 2.csv into misc/" in text
    )


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
