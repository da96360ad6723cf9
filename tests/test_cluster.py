"""What runs on a cluster of the caller's: two worker processes on this machine."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

from deepbedmap import catalog, grids


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=str(tmp_path_factory.mktemp("cluster")),
        ) as cluster,
        Client(cluster, timeout=60) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        yield client


def picks(count, seed=0):
    rng = np.random.default_rng(seed)
    along = np.linspace(0, 40_000, count)
    x = 1e6 + np.concatenate([along, along + rng.normal(0, 5, count)])
    y = np.concatenate([0.8 * along, 30_000 - 0.6 * along])
    points = pd.DataFrame({"x": x, "y": y, "z": 300 * np.sin(x / 2000) * np.cos(y / 3000)})
    points.attrs = {"crs": "EPSG:3031", "vertical_datum": "ellipsoid", "sources": []}
    return points


def test_regions_solved_on_a_cluster_give_the_same_file(client, tmp_path):
    told = []
    options = {"side": 64, "progress": lambda *done: told.append(done)}
    ours = grids.write_grid(picks(2000), tmp_path / "ours.nc", **options)
    theirs = grids.write_grid(picks(2000), tmp_path / "theirs.nc", client=client, **options)
    assert told[0][1] > 4
    assert (
        hashlib.sha256(theirs.read_bytes()).digest() == hashlib.sha256(ours.read_bytes()).digest()
    )


def test_an_interrupted_run_goes_on_on_a_cluster(client, tmp_path):
    path = tmp_path / "bed.zarr"

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grids.write_grid(picks(500), path, side=64, client=client, progress=stop)
    told = []
    grids.write_grid(
        picks(500), path, side=64, client=client, progress=lambda *done: told.append(done)
    )
    assert told[0][0] == 2
    assert told[-1] == (told[0][1], told[0][1])


def test_picks_of_many_files_are_read_on_a_cluster(client, tmp_path):
    rng = np.random.default_rng(1)
    for name in "abc":
        x, y, z = rng.normal(size=(3, 50)) * [[1e5], [1e5], [500]]
        rows = [f"{x[i]:.3f},{y[i]:.3f},{z[i]:.3f}" for i in range(50)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["X,Y,Z", *rows]) + "\n")
    reader = {"type": "readers.text", "filename": "?.csv", "header": "X,Y,Z", "separator": ","}
    pipeline = {"pipeline": [reader | {"skip": 1, "override_srs": "EPSG:3031"}]}
    (tmp_path / "survey.json").write_text(json.dumps(pipeline))
    source = catalog.PointsSource(str(tmp_path / "survey.json"))
    lazily = source.to_dask()
    assert lazily.npartitions == 3
    found = client.compute(lazily).result(timeout=60)
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), source.read().reset_index(drop=True), check_categorical=False
    )
