"""A page that is drawn on with PyGMT: parts placed in centimetres, any text, complete or absent."""

from __future__ import annotations

import base64
import math
import os
import shutil
import tempfile
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pygmt
from pygmt.encodings import charset
from pygmt.exceptions import GMTError

from deepbedmap import files
from deepbedmap.errors import Fault, InvalidDataError, WrongCallError

SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".tif", ".eps")
"""What a figure may be written as; in an ``.svg`` it is an image of 300 dpi."""

_DISTINCT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D", "#8C6D1F")


def _blend(colour: str, other: int, share: float) -> str:
    """A colour mixed with black (0) or white (255)."""
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * part + share * other):02X}" for part in parts)


COLOURS = (
    *_DISTINCT,
    *(_blend(colour, 0, 0.45) for colour in _DISTINCT),
    *(_blend(colour, 255, 0.55) for colour in _DISTINCT),
)
"""To tell surveys apart; the first six, after Okabe & Ito (2008), with any colour vision."""

MOST_CLASSES = 8
"""Values of flags, at most, that have a colour each."""

Kind = Literal["elevation", "difference", "roughness", "speed", "amount", "flags"]

_MIDDLE = 300.0  # cm of GMT's page, whose size has no bound, that stay free on each side
_LETTER = 0.5  # width of a letter over the height of its font, at most on average
_POINT = 2.54 / 72
_LETTERS = {*map(chr, range(32, 127)), *charset["ISOLatin1+"].values()} - {"\ufffd"}


def escape(text: object) -> str:
    r"""Text as GMT draws it letter by letter, on one line; letters that it lacks become plain ones.

    Examples
    --------
    >>> escape("me@there\n+t50 \\ m")
    'me@@there +t50 \\\\ m'
    >>> escape("Nioghalvfjerdsbræ, Ōtākou")
    'Nioghalvfjerdsbræ, Otakou'
    """
    known = []
    for letter in " ".join(str(text).split()):
        if letter in _LETTERS:
            known.append(letter)
        elif letter.isprintable():
            plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
            known.append(plain or "?")
    return "".join(known).replace("\\", "\\\\").replace("@", "@@")


def counted(number: int, what: str) -> str:
    """So many of something.

    Examples
    --------
    >>> counted(1, "pick"), counted(2000, "pick")
    ('1 pick', '2,000 picks')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


@dataclass(frozen=True)
class Scale:
    """Values and their colours.

    Attributes
    ----------
    low, high
        Values of the first and the last colour; of a speed their decimal logarithms.
    clipped
        Where values lie beyond: ``b`` below, ``f`` above, for the triangles of the colour bar.
    classes
        Of flags: each value and what it means.
    """

    kind: Kind
    low: float
    high: float
    label: str
    clipped: str = ""
    classes: tuple[tuple[float, str], ...] = ()

    @property
    def logarithmic(self) -> bool:
        """Whether colours go by the order of magnitude."""
        return self.kind == "speed"

    def make(self) -> None:
        """Make this the current colour table."""
        if self.classes:
            pygmt.makecpt(
                cmap=",".join(self.colours),
                series=[0, len(self.classes), 1],
                background=True,
                overrule_bg=True,
            )
            return
        pygmt.makecpt(
            cmap=_PALETTES[self.kind],
            series=[self.low, self.high],
            background=True,
            overrule_bg=True,
            log=self.logarithmic,
        )

    @property
    def colours(self) -> list[str]:
        """Colours of the classes."""
        return [COLOURS[number % len(COLOURS)] for number in range(len(self.classes))]

    def place(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Values as the colour table has them: of flags the number of their class."""
        if not self.classes:
            return values
        placed = np.full(values.shape, np.nan, np.float32)
        for number, (value, _) in enumerate(self.classes):
            placed[values == value] = number + 0.5
        return placed


_PALETTES: dict[str, str] = {
    "elevation": "batlow",
    "difference": "vik",
    "roughness": "lapaz",
    "speed": "lapaz",
    "amount": "lapaz",
}
_LABELS: dict[str, str] = {
    "elevation": "bed elevation (m)",
    "difference": "difference (m)",
    "roughness": "roughness (m)",
    "speed": "ice speed (m/a)",
    "amount": "value",
    "flags": "",
}
_SLOWEST = 1.0


def scale_of(
    arrays: Sequence[npt.ArrayLike],
    kind: Kind,
    label: str | None = None,
    meanings: Mapping[float, str] | None = None,
    name: str = "",
) -> Scale:
    """Scale between robust quantiles of all values: a difference about zero, amounts from zero.

    Raises
    ------
    InvalidDataError
        No value is finite.
    """
    values = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise InvalidDataError(
            Fault(name or "figure", expected="some finite values to draw", found="none")
        )
    label = _LABELS[kind] if label is None else label
    least, most = float(values.min()), float(values.max())
    if kind == "flags":
        told = meanings or {}
        distinct = np.unique(values)
        if distinct.size <= MOST_CLASSES:
            classes = tuple((float(v), told.get(float(v), f"{v:g}")) for v in distinct)
            return Scale(kind, least, most, label, classes=classes)
        kind = "amount"
    if kind == "speed":
        low = math.log10(max(float(np.percentile(values, 1)), _SLOWEST))
        high = max(math.log10(max(float(np.percentile(values, 99.8)), _SLOWEST)), low + 1)
        return Scale(kind, low, high, label, _beyond(least, most, 10**low, 10**high))
    if kind == "difference":
        high = float(np.percentile(np.abs(values), 99)) or max(-least, most) or 1.0
        low = -high
    elif kind in ("roughness", "amount") and least >= 0:
        low, high = 0.0, float(np.percentile(values, 99)) or most or 1.0
    else:
        low, high = (float(edge) for edge in np.percentile(values, [0.5, 99.5]))
    if not high - low > 1e-6 * max(abs(low), abs(high), 1e-3):
        margin = max(1.0, 0.01 * abs(low))
        low, high = low - margin, high + margin
    return Scale(kind, low, high, label, _beyond(least, most, low, high))


def _beyond(least: float, most: float, low: float, high: float) -> str:
    return ("b" if least < low else "") + ("f" if most > high else "")


class Sheet:
    """A figure, whose parts stand at places in centimetres: x to the right, y upwards."""

    def __init__(self) -> None:
        self.figure = pygmt.Figure()
        self.left = self.bottom = np.inf
        self.right = -np.inf

    def go(self, x: float, y: float, width: float = 0) -> None:
        """Make a place the origin of what is drawn next, which is so wide."""
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
        """Write a line of text at a place in centimetres from the current origin."""
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
        """Write a line in letters so small, down to 5 points, that it fits; else its beginning."""
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
        """Explain symbols and lines: from a place down, row by row.

        Parameters
        ----------
        entries
            Label; ``"line"``, ``"box"`` or ``"dot"``; pen or colour.
        x, y
            Upper left corner, centimetres.
        width
            Of all columns.
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
            room = width / columns - mark - 0.25
            self.write_fitted(label, left + mark + 0.15, middle, room, "ML", "Helvetica", 8)

    def colour_bar(self, scale: Scale, x: float, y: float, width: float) -> None:
        """Draw the colour bar of a scale, or its classes: the middle of its upper edge."""
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
        """Say below everything what it was made from, in lines as long as the figure is wide."""
        if not source.strip():
            return
        letters = max(20, int((self.right - self.left) / (7 * _LETTER * _POINT)))
        wrapped = textwrap.wrap(" ".join(source.split()), letters)
        self.go(self.left, self.bottom)
        for number, line in enumerate(wrapped):
            self.write(line, 0, -0.35 * number - 0.25, "TL", "7p,gray30")


@contextmanager
def drawing(path: str | os.PathLike[str], source: str = "") -> Iterator[Sheet]:
    """Give a sheet to draw on; what was drawn is then written, complete or not at all.

    Raises
    ------
    ValueError
        The path ends in none of :data:`SUFFIXES`.
    InvalidDataError
        GMT refuses.
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
    """Check that a figure can be written under a name; :class:`ValueError` where it cannot."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise WrongCallError(
            f"a figure's name ends in one of {', '.join(SUFFIXES)}, not {suffix!r}"
        )


def _save(figure: pygmt.Figure, path: Path) -> None:
    # GMT takes a '+' or a space of a path for its own.
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
    """An image as a drawing, since ghostscript writes no SVG."""
    content = image.read_bytes()
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width / 300 * 96:.0f}" height="{height / 300 * 96:.0f}">'
        f'<image width="{width}" height="{height}" href="data:image/png;base64,{data}"/></svg>\n'
    )
