"""What every test may use: where the real data and the reference outputs are."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.servers import Server

from deepbedmap import cli, registry

Call = Callable[..., tuple[int, str, str]]

# Programs that tests start find tests/support too.
_PATHS = (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _PATHS))

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = _SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the real data of ../shared/{name} are not on this machine")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Small real files: surveys, rasters, a grounding line."""
    return _folder("data")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Outputs of the original DeepBedMap code."""
    return _folder("reference")


@pytest.fixture(scope="session")
def shared_datasets() -> Path:
    """Facts for the registry."""
    return _folder("datasets")


@pytest.fixture(autouse=True)
def _log_levels() -> Iterator[None]:
    """Leave the package's loggers as they were: commands set the levels of some."""
    before = {name: logger.level for name, logger in _loggers()}
    yield
    for name, logger in _loggers():
        logger.setLevel(before.get(name, logging.NOTSET))


def _loggers() -> list[tuple[str, logging.Logger]]:
    return [
        (name, logger)
        for name, logger in logging.root.manager.loggerDict.items()
        if name.startswith("deepbedmap") and isinstance(logger, logging.Logger)
    ]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line; give exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["deepbedmap", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def listed_datasets(tmp_path: Path) -> Callable[..., registry.Registry]:
    """Make a registry of entries."""

    def listed(*entries: dict[str, Any]) -> registry.Registry:
        path = tmp_path / "data_list.yml"
        content = {"schema_version": 2, "datasets": list(entries)}
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return registry.load(path)

    return listed


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a certificate of this machine, which nobody vouches for, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("a certificate is made with openssl, which is not on this machine")
    folder = tmp_path_factory.mktemp("tls")
    pair = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            *("-out", str(pair[0]), "-keyout", str(pair[1])),
        ],
        check=True,
        capture_output=True,
        timeout=20,
    )
    return pair


@pytest.fixture
def server() -> Iterator[Server]:
    """Start a server on this machine that answers as a test tells it to."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def one_thread():
    """Let torch use one thread: the tests' networks are too small for more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
