"""Run the command line, with all its commands.

Importing this module registers every command.
"""

from __future__ import annotations

import os
import sys

import typer

from deepbedmap.cli import (  # noqa: F401 - registers the commands, in the order of --help
    datasets,
    demonstration,
    learning,
    maintenance,
    predicting,
    raster_files,
    retrieval,
    scoring,
    surveys,
    tiling,
)
from deepbedmap.cli.options import app

__all__ = ["app", "main"]

from typing import Annotated


def main() -> None:
    """Run the command line; exit with 0 (done), 1 (data or run at fault) or 2 (call at fault)."""
    from deepbedmap.errors import DeepBedMapError
    from deepbedmap.extras import required_extra

    try:
        with required_extra():
            app()
    except (DeepBedMapError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except ValueError as error:  # as everywhere in the package: a wrong call
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)


@app.callback()
def _start(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell what is done.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    import logging

    from deepbedmap import __version__

    if version:
        typer.echo(f"deepbedmap {__version__}")
        raise typer.Exit
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    if verbose:
        logging.getLogger("deepbedmap").setLevel(logging.INFO)
