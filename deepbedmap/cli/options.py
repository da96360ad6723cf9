"""What the commands share: the Typer apps, the form of their help, and common options."""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from deepbedmap.errors import WrongCallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PANELS = {
    "Data": ("list", "search", "show", "cite", "fetch", "verify"),
    "Surveys": ("points", "crossovers", "new", "validate", "catalog"),
    "Grids": ("grid", "tiles", "resample", "convert", "map"),
    "Model": ("train", "tune", "predict"),
    "Evaluation": ("evaluate", "demo"),
}
"""The commands in the groups and the order of the help."""

_WIDEST = 100  # of a help page; longer lines are hard to read
_LEVELS = {"quiet": logging.ERROR, "verbose": logging.INFO}


def _set_level(context: typer.Context, parameter: typer.CallbackParam, value: bool) -> None:
    """Make the package's loggers quieter or more verbose, wherever the option was given."""
    if value and not context.resilient_parsing:
        logging.getLogger("deepbedmap").setLevel(_LEVELS[str(parameter.name)])


@functools.cache
def _volume_options() -> list[Any]:
    """Return -q and -v, which the program takes before the command, and every command itself."""
    program = typer.Typer(add_completion=False)

    @program.command()
    def volume(
        quiet: Annotated[
            bool,
            typer.Option(
                *("--quiet", "-q"),
                callback=_set_level,
                expose_value=False,
                help="No progress and no warnings; errors only.",
            ),
        ] = False,
        verbose: Annotated[
            bool,
            typer.Option(
                *("--verbose", "-v"),
                callback=_set_level,
                expose_value=False,
                help="Report what is being done.",
            ),
        ] = False,
    ) -> None: ...

    return list(typer.main.get_command(program).params)


class Command(TyperCommand):
    """A command: it takes -q and -v, and reports a wrong argument by the name of its option."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params = [*self.params, *_volume_options()]

    def invoke(self, ctx: Any) -> Any:
        """Run the command; name the option at fault where the package names its own argument."""
        try:
            return super().invoke(ctx)
        except WrongCallError as error:
            names = {parameter.name: parameter.opts[0] for parameter in self.params}
            if error.argument in names:
                raise WrongCallError(error.message, names[error.argument]) from error
            raise

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write each example on lines of its own, as it can be pasted into a shell."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(_examples(self.epilog.splitlines(), formatter.width))


class Commands(TyperGroup):
    """A group of commands: it takes -q and -v too, and its help lists the commands by panel."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params = [*self.params, *_volume_options()]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands by panel."""
        texts: dict[str, str] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            first = re.split(r"\n\s*\n", command.help or "")[0]
            texts[name] = " ".join(first.split())
        listed = {name for names in PANELS.values() for name in names}
        width = max(map(len, texts))

        def write(names: Iterable[str]) -> None:
            formatter.write_dl([(f"{n:{width}}", texts[n]) for n in names if n in texts])

        with formatter.section("Commands"):
            if texts.keys() - listed:
                write(name for name in texts if name not in listed)
                return
            for panel, names in PANELS.items():
                with formatter.section(panel):
                    write(names)


def _examples(examples: Iterable[str], width: int) -> str:
    """Lay examples out so that they can be pasted into a shell.

    A line that is too long is continued after a backslash, and its comment stands above it.
    """
    label = "Example: "
    indent = " " * len(label)
    lines: list[str] = []
    for example in examples:
        code, hash_mark, comment = example.partition("  # ")
        if len(indent) + len(example) > width:
            lines += [f"{indent}# {comment}"] if hash_mark else []
            lines += _continued(code, indent, width)
        else:
            lines.append(indent + example)
    lines[0] = label + lines[0][len(label) :]
    return "\n".join(lines) + "\n"


def _continued(code: str, indent: str, width: int) -> list[str]:
    """Break a command into lines; all but the last end in a backslash."""
    lines, line = [], ""
    for word in re.findall(r"'[^']*'|\S+", code):
        if line and len(indent) + len(line) + len(word) > width - 3:
            lines.append(f"{indent}{line} \\")
            line = f"  {word}"
        else:
            line = f"{line} {word}" if line else word
    return [*lines, indent + line]


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST}

app = typer.Typer(
    name="deepbedmap",
    cls=Commands,
    help="Antarctic bed elevation: find, cite and fetch surveys, grid them, predict the bed.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)
catalog_app = typer.Typer(
    cls=Commands,
    help="Write and check the intake catalogs.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=_SETTINGS,
)


def command(*examples: str, name: str | None = None) -> Callable[[Any], Any]:
    """Register a function as a command, with examples of its use."""
    return app.command(name, cls=Command, epilog="\n".join(examples))


def is_quiet() -> bool:
    """Return whether -q was given: then nothing but errors goes to standard error."""
    return not logging.getLogger("deepbedmap").isEnabledFor(logging.WARNING)


def complete_citekey(incomplete: str) -> list[str]:
    """Complete the citekey of a dataset."""
    from deepbedmap import repository

    text = (repository.root() / "data_list.yml").read_text(encoding="utf-8")
    citekeys = re.findall(r"^ *- citekey: *([\w-]+)", text, re.MULTILINE)
    return [citekey for citekey in citekeys if citekey.startswith(incomplete)]


Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Box = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option(metavar="XMIN YMIN XMAX YMAX", help="Box in metres, EPSG:3031."),
]
Region = tuple[float, float, float, float] | None
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder with highres/, lowres/ and misc/; else $DEEPBEDMAP_DATA_DIR."),
]
Season = Annotated[
    list[str] | None,
    typer.Option(help="A raw file's name, its stem or a glob; may be given again."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or cuda:N; by default a GPU, if there is one.")
]
RegistryFile = Annotated[
    Path | None,
    typer.Option(help="A data_list.yml, or its folder; by default the package's own."),
]


def pairs_of(values: list[str] | None, option: str) -> dict[str, str]:
    """Read NAME=VALUE of an option that may be given several times."""
    pairs = [item.partition("=")[::2] for item in values or ()]
    if not all(name and value for name, value in pairs):
        raise typer.BadParameter("expected NAME=FILE", param_hint=f"--{option}")
    return dict(pairs)


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a table: as wide as the terminal on one; whole, one line per row, elsewhere.

    Neither words nor cells of the first column are broken: a table may then be wider than a narrow
    terminal. Colours are left out where NO_COLOR is set.
    """
    from rich.console import Console
    from rich.table import Table

    style = "none" if os.environ.get("NO_COLOR") else "bold"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=style)
    columns = list(zip(header, *rows, strict=True))
    words = [
        max(len(word) for cell in column for word in (*cell.split(), "")) for column in columns
    ]
    for number, title in enumerate(header):
        table.add_column(title, no_wrap=number == 0, overflow="fold", min_width=words[number])
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, emoji=False, highlight=False)
    if console.is_terminal:
        whole = max(map(len, columns[0])), *words[1:]  # no word is broken, nor the first column
        console.width = max(console.width, sum(whole) + 2 * len(header))
        console.print(table)
        return
    console.width = sum(max(map(len, column)) + 2 for column in columns)
    with console.capture() as capture:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def wrapped(text: str, label: str = "", indent: int = 0) -> list[str]:
    """Break a text into lines that fit on the terminal, the label before the first."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDEST
    return textwrap.wrap(label + text, min(columns, _WIDEST), subsequent_indent=" " * indent)


def interrupted(hint: str) -> typer.Exit:
    """Say how an interrupted run can be resumed; the exit code is that of Ctrl-C."""
    typer.echo(f"interrupted: {hint}" if hint else "interrupted", err=True)
    return typer.Exit(130)


def stderr_is_terminal() -> bool:
    """Return whether standard error is a terminal, where bars show the progress."""
    return sys.stderr.isatty()


def is_first_process() -> bool:
    """Return whether this process reports, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def calm_threads() -> None:
    """Keep torch's threads from spinning while they wait, which slows a busy machine down.

    It has an effect only before torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
