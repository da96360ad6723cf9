"""The catalog from elsewhere: over http, and without this package."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import re
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import intake
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import yaml

from deepbedmap import catalog, registry, repository
from deepbedmap.catalog import repositories
from deepbedmap.errors import DownloadError, InvalidDataError, MissingDataError


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with ranges of bytes and some answers by name."""

    answers: dict[str, tuple[int, str]]
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path in self.answers:
            code, location = self.answers[self.path]
            self.send_response(code)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, *_: object) -> None:
        pass


class Server:
    """A server of a folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: dict[str, tuple[int, str]] = {}
        self.requests: list[str] = []
        kind = type("Handling", (Handler,), {"answers": self.answers, "requests": self.requests})
        self._http = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(kind, directory=str(folder))
        )
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def picks() -> str:
    rows = [f"{300 * n},{-500_000 - 700 * m},{n * m - 50}" for n in range(9) for m in range(7)]
    return "\n".join(["x,y,bed", *rows, ""])


def raster() -> xr.DataArray:
    return xr.DataArray(
        np.arange(12, dtype="float32").reshape(3, 4),
        {"y": [-500_000.0, -500_100.0, -500_200.0], "x": [0.0, 100.0, 200.0, 300.0]},
        ("y", "x"),
        name="z",
    ).rio.write_crs(3031)


@pytest.fixture
def remote(server) -> str:
    """A repository behind a server: a survey of two seasons and a raster; its catalog's URL."""
    root = server.folder / "survey"
    (root / "highres").mkdir(parents=True)
    (root / "raw").mkdir()
    reader = {
        "type": "readers.text",
        "filename": "bed_????.csv",
        "header": "X,Y,Z",
        "separator": ",",
        "skip": 1,
        "override_srs": "EPSG:3031",
    }
    (root / "highres" / "bed.json").write_text(json.dumps({"pipeline": [reader]}))
    (root / "raw" / "bed_2010.csv").write_text(picks())
    (root / "raw" / "bed_2011.csv").write_text(picks())
    raster().rio.to_raster(root / "raw" / "surface.tif")
    survey = {
        "citekey": "MadeUp2020",
        "title": "A made-up survey",
        "folder": "highres",
        "crs": "EPSG:3031",
        "vertical_datum": "ellipsoid",
        "pipelines": ["bed.json"],
        "files": [_file(server, "bed_2010.csv"), _file(server, "bed_2011.csv")],
    }
    surface = {"citekey": "Surface2020", "title": "A surface", "folder": "misc"}
    surface["files"] = [_file(server, "surface.tif")]
    _list(root, survey, surface)
    catalog.build(root=root)
    return f"{server.url}/survey/catalog/catalog.yml"


def _file(server: Server, name: str) -> dict[str, str]:
    data = (server.folder / "survey" / "raw" / name).read_bytes()
    url = f"{server.url}/survey/raw/{name}"
    return {"filename": name, "url": url, "sha256": hashlib.sha256(data).hexdigest()}


def _list(root: Path, *datasets: dict[str, object]) -> None:
    content = {"schema_version": 2, "datasets": list(datasets)}
    (root / "data_list.yml").write_text(yaml.safe_dump(content))


def test_a_catalog_over_http_lists_and_reads_what_its_repository_has(remote, data_dir, server):
    opened = intake.open_catalog(remote)
    assert {name: list(opened[name]) for name in opened} == {
        "highres": ["bed", "bed_points"],
        "lowres": [],
        "misc": ["surface"],
        "open": ["surface"],
        "training": ["tiles"],
        "products": ["bed"],
    }
    source = opened.highres["bed_points"]
    assert source.metadata["citekey"] == "MadeUp2020"
    assert not [path for path in server.requests if "data_list" in path]  # nothing is read yet
    with pytest.raises(MissingDataError, match=r"`deepbedmap fetch MadeUp2020` gets it"):
        source.read()
    points = source(fetch=True, season="bed_2010").read()
    assert len(points) == 63
    assert points.attrs["vertical_datum"] == "ellipsoid"
    assert points.attrs["sources"][0]["citekey"] == "MadeUp2020"
    assert not [path for path in server.requests if path.endswith("bed_2011.csv")]
    assert len(source(fetch=True).read()) == 126
    assert opened.highres["bed"](spacing=500).read().rio.crs.to_epsg() == 3031
    surface = opened.misc["surface"](fetch=True, bounds=(0, -500_100, 100, -500_000)).read()
    assert surface.to_numpy().tolist() == [[0, 1], [4, 5]]
    # What it brought is kept apart from the data of the package's own registry.
    (copy,) = (data_dir / "repositories").iterdir()
    files = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()}
    assert {file for file in files if "/.fetched/" not in file} == {
        "data_list.yml",
        "highres/bed.json",
        "highres/bed_2010.csv",
        "highres/bed_2011.csv",
        "misc/surface.tif",
    }


def test_a_repository_over_http_is_read_as_it_is_now(remote, server, data_dir):
    source = intake.open_catalog(remote).highres["bed_points"](fetch=True)
    assert len(source.read()) == 126
    recipe = server.folder / "survey" / "highres" / "bed.json"
    recipe.write_text(recipe.read_text().replace("bed_????.csv", "bed_2011.csv"))
    assert len(source.read()) == 63


def test_raw_files_in_the_data_folder_serve_a_repository_over_http(remote, data_dir):
    (data_dir / "highres").mkdir(parents=True)
    (data_dir / "highres" / "bed_2010.csv").write_text(picks())
    assert len(intake.open_catalog(remote).highres["bed_points"].read()) == 63


def test_a_registry_over_http_may_not_name_files_of_this_machine(remote, server, tmp_path):
    (tmp_path / "secret.csv").write_text(picks())
    root = server.folder / "survey"
    listing = root / "data_list.yml"
    secret = (tmp_path / "secret.csv").as_uri()
    url = f"{server.url}/survey/raw/bed_2010.csv"
    listing.write_text(listing.read_text().replace(url, secret))
    with pytest.raises(InvalidDataError) as error:
        intake.open_catalog(remote).highres["bed_points"](fetch=True).read()
    assert "entry MadeUp2020, field files.bed_2010.csv: expected a URL of http" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("data_list.yml", (404, ""), "data_list.yml: the server answers 404"),
        ("highres/bed.json", (403, ""), "bed.json: the server answers 403"),
        (
            "data_list.yml",
            (302, "http://127.0.0.1:9/data_list.yml"),
            "sends on to http://127.0.0.1:9",
        ),
        ("highres/bed.json", (301, "/elsewhere.json"), "sends on to /elsewhere.json; open"),
    ],
)
def test_an_answer_other_than_the_file_is_one_line_that_names_the_address(
    name, answer, said, remote, server
):
    source = intake.open_catalog(remote).highres["bed_points"]
    server.answers[f"/survey/{name}"] = answer
    with pytest.raises(DownloadError) as error:
        source.read()
    assert str(error.value).startswith(f"{server.url}/survey/{name}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_went_away_and_a_text_too_large_are_one_line(remote, server, monkeypatch):
    source = intake.open_catalog(remote).highres["bed_points"]
    monkeypatch.setattr(repositories, "LARGEST_TEXT", 100)
    with pytest.raises(DownloadError, match=r"data_list\.yml: larger than 100 bytes"):
        source.read()
    server.stop()
    with pytest.raises(DownloadError, match=r"no connection to 127\.0\.0\.1"):
        source.read()


@pytest.mark.parametrize(
    "path",
    [
        "catalog/../highres/../../bed.json",
        "catalog/../secrets/bed.json",
        "catalog/../highres/.hidden.json",
        "catalog/../highres/C:bed.json",
        "highres/..",
    ],
)
def test_an_address_that_is_no_file_of_a_repository_is_refused(path, server):
    with pytest.raises(InvalidDataError, match="expected an address"):
        catalog.PointsSource(f"{server.url}/survey/{path}").read()
    with pytest.raises(InvalidDataError, match="expected an address"):
        catalog.RasterSource("s3://bucket/misc/surface.tif").read()
    assert server.requests == []


def test_a_file_that_a_registry_over_http_does_not_list_is_not_read(remote, server):
    with pytest.raises(MissingDataError, match=r"other\.tif: no such file, and no registry"):
        catalog.RasterSource(f"{server.url}/survey/misc/other.tif").read()


def test_open_holds_each_raster_that_is_served_as_it_is_and_nothing_else():
    entries = yaml.safe_load((repository.root() / "catalog" / "open.yml").read_text())["sources"]
    listed = {
        file.url: dataset
        for dataset in registry.load()
        for file in dataset.files
        if file.access == "open" and dataset.status not in ("retired", "withdrawn")
    }
    for name, entry in entries.items():
        assert set(entry) == {"description", "driver", "args", "metadata"}, name
        url = entry["args"]["urlpath"]
        dataset = listed[url]
        assert entry["metadata"]["citekey"] == dataset.citekey
        assert entry["metadata"]["licence"] == dataset.licence
        assert url.startswith(("http://", "https://"))
        assert (entry["driver"] == "netcdf") == (".nc" in url)
        assert not re.search(r"\.(zip|tgz|tar|gz)\b", url)
    expected = {
        url for url in listed if url and re.fullmatch(r"https?://[^?]*\.(tif|nc)(\?.*)?", url)
    }
    assert {entry["args"]["urlpath"] for entry in entries.values()} == expected


READ = """
import sys
sys.path.insert(0, sys.argv[1])
try:
    import deepbedmap
except ImportError:
    pass
else:
    raise SystemExit("deepbedmap is here")
import intake
catalog = intake.open_catalog(sys.argv[2] + "/catalog.yml").open
assert catalog["bed"].read()["z"].sum() == 66, catalog["bed"].read()
surface = catalog["surface"].to_dask()["band_data"]
assert surface.chunks and surface.sum().compute() == 66
assert surface.rio.crs.to_epsg() == 3031
entry = catalog._entries["surface"].describe()
assert entry["metadata"]["citekey"] == "MadeUp2020", entry
print(sorted(catalog))
"""


def test_open_is_read_by_intake_and_intake_xarray_alone(server, tmp_path):
    """In a Python whose packages are all of ours but this one."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    for kind in ("purelib", "platlib"):
        for path in Path(sysconfig.get_path(kind)).iterdir():
            ours = "deepbedmap" in path.name.lower() or path.suffix in (".pth", ".egg-link")
            if not ours and not (packages / path.name).exists():
                (packages / path.name).symlink_to(path)
    raster().rio.to_raster(server.folder / "surface.tif")
    raster().to_dataset().to_netcdf(server.folder / "bed.nc", engine="h5netcdf")
    root = tmp_path / "root"
    files = [
        {"filename": name, "url": f"http://data.example/{name}", "sha256": None}
        for name in ("surface.tif", "bed.nc")
    ]
    root.mkdir()
    _list(root, {"citekey": "MadeUp2020", "title": "Made up", "folder": "misc", "files": files})
    catalog.build(root=root)
    listing = root / "catalog" / "open.yml"
    listing.write_text(listing.read_text().replace("http://data.example", server.url))
    command = [sys.executable, "-I", "-S", "-c", READ, str(packages), str(root / "catalog")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['bed', 'surface']\n"
