"""A page on which PyGMT draws: parts placed in centimetres, any text, written complete or not."""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pygmt
from pygmt.encodings import charset
from pygmt.exceptions import GMTError

from deepbedmap import files
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError
from deepbedmap.figures.scales import Scale

SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".tif", ".eps")
"""Formats of a figure; an ``.svg`` contains an image of 300 dpi."""

_MIDDLE = 300.0  # cm of GMT's unbounded page that stay free on each side
_LETTER = 0.5  # upper limit of the average width of a letter divided by the size of its font
_POINT = 2.54 / 72
_LETTERS = {*map(chr, range(32, 127)), *charset["ISOLatin1+"].values()} - {"\ufffd"}


def escape(text: object) -> str:
    r"""Return text on one line as GMT draws it verbatim; letters that GMT lacks lose their accents.

    Examples
    --------
    >>> escape("me@there\n+t50 \\ m")
    'me@@there +t50 \\\\ m'
    >>> escape("Nioghalvfjerdsbræ, Ōtākou")
    'Nioghalvfjerdsbræ, Otakou'
    """
    letters = []
    for letter in " ".join(str(text).split()):
        if letter in _LETTERS:
            letters.append(letter)
        elif letter.isprintable():
            plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
            letters.append(plain or "?")
    return "".join(letters).replace("\\", "\\\\").replace("@", "@@")


def counted(number: int, noun: str) -> str:
    """Return a number and a noun, in the plural if necessary.

    Examples
    --------
    >>> counted(1, "pick"), counted(2000, "pick")
    ('1 pick', '2,000 picks')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


class Sheet:
    """A figure whose parts are placed in centimetres: x to the right, y upwards."""

    def __init__(self) -> None:
        self.figure = pygmt.Figure()
        self.left = self.bottom = np.inf
        self.right = -np.inf

    def go(self, x: float, y: float, width: float = 0) -> None:
        """Move the origin to a place (cm) for the next part, which has a width (cm)."""
        self.left, self.right = min(self.left, x), max(self.right, x + width)
        self.bottom = min(self.bottom, y)
        self.figure.shift_origin(xshift=f"f{_MIDDLE + x:.4f}c", yshift=f"f{_MIDDLE + y:.4f}c")

    def write(
        self,
        text: object,
        x: float,
        y: float,
        justify: str = "BL",
        font: str = "8p",
    ) -> None:
        """Write one line of text at a place in centimetres from the current origin."""
        line = escape(text)
        if not line.strip():
            return
        self.figure.text(
            x=[x],
            y=[y],
            text=[line],
            justify=justify,
            font=font,
            region=[0, 1, 0, 1],
            projection="X1c/1c",
            no_clip=True,
        )

    def write_fitted(
        self,
        text: object,
        x: float,
        y: float,
        width: float,
        justify: str = "BL",
        font: str = "Helvetica-Bold",
        size: float = 11,
    ) -> None:
        """Write one line, reduced down to 5.5 points until it fits and otherwise truncated."""
        line = " ".join(str(text).split())
        fitting = width / (max(len(line), 1) * 1.1 * _LETTER * _POINT)
        points = min(size, max(fitting, 5.5))
        most = int(width / (points * 1.1 * _LETTER * _POINT))
        if len(line) > most + 1:
            line = line[: max(most - 3, 1)] + "..."
        self.write(line, x, y, justify, f"{points:.1f}p,{font}")

    def legend(
        self,
        entries: Sequence[tuple[str, str, str]],
        x: float,
        y: float,
        width: float,
        columns: int = 1,
    ) -> None:
        """Draw a legend of symbols and lines from a place downwards, row by row.

        Parameters
        ----------
        entries
            For each: label; ``"line"``, ``"box"`` or ``"dot"``; pen or colour.
        x, y
            Upper left corner in centimetres.
        width
            Width of all columns in centimetres.
        columns
            Number of columns.
        """
        step, mark = 0.42, 0.55
        for number, (label, symbol, look) in enumerate(entries):
            left = x + (number % columns) * width / columns
            middle = y - step * (number // columns + 0.5)
            self.figure.plot(
                x=[left + mark / 2],
                y=[middle],
                style={"line": f"-{mark}c", "box": "s0.24c", "dot": "c0.12c"}[symbol],
                **({"pen": look} if symbol == "line" else {"fill": look}),
                region=[0, 1, 0, 1],
                projection="X1c/1c",
                no_clip=True,
            )
            label_width = width / columns - mark - 0.25
            self.write_fitted(label, left + mark + 0.15, middle, label_width, "ML", "Helvetica", 8)

    def colour_bar(self, scale: Scale, x: float, y: float, width: float) -> None:
        """Draw the colour bar of a scale, or its classes; x, y (cm) is the middle of its top."""
        if scale.classes:
            entries = [
                (meaning, "box", colour)
                for (_, meaning), colour in zip(scale.classes, scale.colours, strict=True)
            ]
            self.legend(entries, x - width / 2, y + 0.1, width, 2 if len(entries) > 2 else 1)
            return
        scale.make()
        ends = f"+e{scale.clipped}" if scale.clipped else ""
        self.figure.colorbar(
            position=f"x{x}c/{y}c+jTC+w{width}c/0.25c+h{ends}",
            frame=["xa2f3" if scale.logarithmic and scale.high - scale.low < 2.5 else "xaf"],
            log=scale.logarithmic,
            region=[0, 1, 0, 1],
            projection="X1c/1c",
        )
        self.write_fitted(scale.label, x, y - 0.85, 1.2 * width, "TC", "Helvetica", 8.5)

    def write_source(self, source: str) -> None:
        """Write the sources below all parts, in lines as long as the figure is wide."""
        if not source.strip():
            return
        letters = max(20, int((self.right - self.left) / (7 * _LETTER * _POINT)))
        wrapped = textwrap.wrap(" ".join(source.split()), letters)
        self.go(self.left, self.bottom)
        for number, line in enumerate(wrapped):
            self.write(line, 0, -0.35 * number - 0.25, "TL", "7p,gray30")


@contextmanager
def drawing(path: str | os.PathLike[str], source: str = "") -> Iterator[Sheet]:
    """Yield a sheet to draw on, then write the figure, complete or not at all.

    Raises
    ------
    ValueError
        The suffix of the path is not one of :data:`SUFFIXES`.
    InvalidDataError
        GMT cannot draw the figure.
    """
    path = Path(path)
    require_suffix(path)
    with pygmt.config(
        FONT_LABEL="8.5p",
        FONT_ANNOT_PRIMARY="8p",
        MAP_FRAME_TYPE="plain",
        MAP_FRAME_PEN="0.7p,gray20",
        MAP_TICK_PEN_PRIMARY="0.5p,gray20",
        MAP_TICK_LENGTH_PRIMARY="3p/1.5p",
        MAP_ANNOT_OFFSET_PRIMARY="3p",
        MAP_LABEL_OFFSET="4p",
        MAP_GRID_PEN_PRIMARY="0.25p,gray85",
        COLOR_NAN="gray85",
        PROJ_LENGTH_UNIT="c",
    ):
        sheet = Sheet()
        try:
            yield sheet
            sheet.write_source(source)
            _save(sheet.figure, path)
        except GMTError as error:
            reason = " ".join(str(error).split())
            raise InvalidDataError(
                Fault(str(path), expected="a figure that GMT can draw", found=reason)
            ) from error


def require_suffix(path: str | os.PathLike[str]) -> None:
    """Raise :class:`ValueError` unless the suffix of a path is one of :data:`SUFFIXES`."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise WrongCallError(
            f"a figure's name: expected one that ends in {', '.join(SUFFIXES)}, found {suffix!r}"
        )


def _save(figure: pygmt.Figure, path: Path) -> None:
    # GMT would interpret a '+' or a space in the path.
    suffix = path.suffix.lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="figure") as folder, files.beside(path) as part:
        image = Path(folder) / f"figure{'.png' if suffix == '.svg' else suffix}"
        figure.savefig(image, dpi=300 if suffix == ".svg" else 150, crop="+m0.2c")
        if suffix == ".svg":
            part.write_text(_as_svg(image), encoding="ascii")
        else:
            shutil.copyfile(image, part)


def _as_svg(image: Path) -> str:
    """Return an SVG document that contains a PNG image, since Ghostscript writes no SVG."""
    content = image.read_bytes()
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width / 300 * 96:.0f}" height="{height / 300 * 96:.0f}">'
        f'<image width="{width}" height="{height}" href="data:image/png;base64,{data}"/></svg>\n'
    )
