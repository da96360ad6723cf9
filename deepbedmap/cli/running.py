"""Run the command line, with all its commands.

Importing this module registers every command.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Annotated

import typer

from deepbedmap.cli import (  # noqa: F401 - registers the commands, in the order of --help
    datasets,
    demonstration,
    evaluation,
    prediction,
    rasters,
    surveys,
    training,
)
from deepbedmap.cli.options import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line.

    The exit code is 0 (done), 1 (the data or the run is at fault, or there is a bug) or 2 (the
    call is at fault).
    """
    from deepbedmap.errors import DeepBedMapError, WrongCallError
    from deepbedmap.extras import required_extra

    logger = logging.getLogger("deepbedmap")
    level = logger.level
    try:
        with required_extra():
            app(prog_name="deepbedmap")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (DeepBedMapError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except WrongCallError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        typer.echo(
            "This is a bug of deepbedmap: please report it, with the command and the lines above.",
            err=True,
        )
        sys.exit(1)
    finally:
        logger.setLevel(level)


def _print_version(value: bool) -> None:
    from deepbedmap import __version__

    if value:
        typer.echo(f"deepbedmap {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[  # noqa: ARG001
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
