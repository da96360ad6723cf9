"""Curves: errors by size, power by wavelength, losses by epoch."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError, WrongCallError
from deepbedmap.figures.sheet import COLOURS, counted, drawing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import pandas as pd

    from deepbedmap.evaluation.spectral import Spectra
    from deepbedmap.figures.sheet import Sheet

Values = npt.NDArray[np.float64]
WIDTH = 15.0
_BINS = 60
_LOSSES = ("g_loss", "d_loss")
_ERRORS = ("train_rmse", "validation_rmse", "bicubic_rmse")
_NAMES = {
    "g_loss": "generator",
    "d_loss": "discriminator",
    "train_rmse": "training tiles",
    "validation_rmse": "validation tiles",
    "bicubic_rmse": "validation tiles, bicubic prior",
}


def pens_of(names: Iterable[str]) -> dict[str, str]:
    """A pen for each curve."""
    return {name: f"0.9p,{COLOURS[n % len(COLOURS)]}" for n, name in enumerate(names)}


def draw_axes(
    sheet: Sheet,
    region: Sequence[float],
    height: float,
    across: str | None,
    up: str,
    projection: str | None = None,
    frame: Sequence[str] = ("xaf", "yafg"),
) -> dict[str, Any]:
    """Draw a box from the current origin; return what curves in it are plotted with."""
    where = {
        "region": list(region),
        "projection": projection or f"X{WIDTH}c/{height}c",
    }
    x, y = frame
    sides = "WSrt" if across else "Wsrt"
    sheet.figure.basemap(**where, frame=[sides, f"{x}+l{across}" if across else x, f"{y}+l{up}"])
    return where


def draw_curve(sheet: Sheet, x: Values, y: Values, pen: str, where: Mapping[str, Any]) -> None:
    """Draw a curve, with gaps where it is NaN; what stands alone between two is a dot."""
    known = np.isfinite(y)
    if not known.any():
        return
    sheet.figure.plot(x=x, y=y, pen=pen, **where)
    beside = np.append(False, known[:-1]) | np.append(known[1:], False)
    alone = known & ~beside
    if alone.any():
        colour = pen.split(",")[1]
        sheet.figure.plot(x=x[alone], y=y[alone], style="c0.09c", fill=colour, **where)


def padded_range(values: Values) -> tuple[float, float]:
    """Edges around values, which do not touch them."""
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or max(1.0, 0.01 * abs(low))
    return low - margin, high + margin


def error_histogram(
    errors: Mapping[str, npt.ArrayLike], path: str | os.PathLike[str], source: str = ""
) -> Path:
    """Draw how often a bed is off by how much.

    Parameters
    ----------
    errors
        By bed, bed minus pick (metres); NaN is left out.
    path, source
        As of :func:`transect`.

    Raises
    ------
    InvalidDataError
        No error is finite.
    """
    known = {name: np.asarray(values, np.float64).ravel() for name, values in errors.items()}
    known = {name: values[np.isfinite(values)] for name, values in known.items()}
    known = {name: values for name, values in known.items() if values.size}
    if not known:
        raise InvalidDataError(Fault("errors", expected="some finite ones", found="none"))
    reach = max(float(np.percentile(np.abs(values), 99)) for values in known.values()) or 1.0
    edges = np.linspace(-reach, reach, _BINS + 1)
    shares = {
        name: 100 * np.histogram(values, edges)[0] / values.size for name, values in known.items()
    }
    pens = pens_of(known)
    most = max(float(share.max()) for share in shares.values())
    with drawing(path, source) as sheet:
        rows = len(known)
        sheet.go(-1.8, -1.6 - 0.42 * rows, WIDTH + 2.1)
        sheet.go(0, 0)
        where = draw_axes(
            sheet,
            [-reach, reach, 0, 1.08 * most],
            7,
            "bed minus pick (m)",
            f"picks in {edges[1] - edges[0]:.2g} m (%)",
        )
        sheet.figure.plot(x=[0, 0], y=[0, 1.08 * most], pen="0.5p,gray40,4_2", **where)
        for name, share in shares.items():
            x = np.repeat(edges, 2)[1:-1]
            sheet.figure.plot(x=x, y=np.repeat(share, 2), pen=pens[name], **where)
        entries = []
        for name, values in known.items():
            rmse = math.sqrt(float(np.mean(values**2)))
            beyond = float((np.abs(values) > reach).mean())
            entries.append(
                (
                    f"{name}: RMSE {rmse:.1f} m, bias {values.mean():+.1f} m, median "
                    f"{np.median(values):+.1f} m, {counted(values.size, 'pick')}"
                    + (f", {beyond:.1%} beyond the axis" if beyond else ""),
                    "line",
                    pens[name],
                )
            )
        sheet.legend(entries, 0, -1.2, WIDTH)
    return Path(path)


def spectrum(
    spectra: Mapping[str, Spectra], path: str | os.PathLike[str], source: str = ""
) -> Path:
    """Draw power along track of picks and beds, and beneath it how coherent they are.

    Parameters
    ----------
    spectra
        By bed, as :func:`deepbedmap.evaluation.spectra` gives them. The picks' spectrum is that
        of the first.
    path, source
        As of :func:`transect`.

    Raises
    ------
    ValueError
        There is none.
    """
    if not spectra:
        raise WrongCallError("a figure of spectra has at least one")
    first = next(iter(spectra.values()))
    pens = {"picks": "0.9p,black", **pens_of(spectra)}
    powers = {"picks": (first.wavelength, first.truth)}
    powers |= {name: (each.wavelength, each.grid) for name, each in spectra.items()}
    positive = np.concatenate([power[power > 0] for _, power in powers.values()])
    if not positive.size:
        raise InvalidDataError(Fault("spectra", expected="some power", found="none"))
    top = 10 ** math.ceil(math.log10(positive.max()) + 0.1)
    # What is left of a smooth bed at the shortest wavelengths would squeeze the rest.
    low = max(10 ** math.floor(math.log10(positive.min())), top / 1e8)
    lengths = np.concatenate([each.wavelength for each in spectra.values()]) / 1000
    longest, shortest = float(lengths.max()), float(lengths.min())
    with drawing(path, source) as sheet:
        rows = len(spectra) + 1
        sheet.go(-2, -5.6 - 0.42 * rows, WIDTH + 2.3)
        sheet.go(0, 0)
        where = draw_axes(
            sheet,
            [shortest, longest, low, top],
            5.6,
            None,
            "power (m@+2@+ per cycle/m)",
            f"X-{WIDTH}cl/5.6cl",
            ("xa2f3g3", "ya1pg1"),
        )
        for name, (wavelength, power) in powers.items():
            shown = np.where(power > 0, power, np.nan)
            draw_curve(sheet, wavelength / 1000, shown, pens[name], where)
        sheet.go(0, -4.2)
        where = draw_axes(
            sheet,
            [shortest, longest, 0, 1],
            3.6,
            "wavelength (km)",
            "coherence",
            f"X-{WIDTH}cl/3.6c",
            ("xa2f3g3", "ya0.5f0.1g0.5"),
        )
        entries = [("picks", "line", pens["picks"])]
        for name, each in spectra.items():
            draw_curve(sheet, each.wavelength / 1000, each.coherence, pens[name], where)
            resolved = each.resolved_wavelength()
            said = "incoherent at all wavelengths"
            if resolved is not None:
                said = f"coherent down to {resolved / 1000:.1f} km"
                sheet.figure.plot(
                    x=[resolved / 1000] * 2,
                    y=[0, 1],
                    pen=f"0.5p,{pens[name].split(',')[1]},2_2",
                    **where,
                )
            entries.append(
                (f"{name}: {said}; {counted(each.windows, 'window')}", "line", pens[name])
            )
        chance = max(each.significance() for each in spectra.values())
        sheet.figure.plot(x=[shortest, longest], y=[chance, chance], pen="0.5p,gray40,4_2", **where)
        entries.append(("chance, at 95 %", "line", "0.5p,gray40,4_2"))
        sheet.legend(entries, 0, -1.25, WIDTH)
    return Path(path)


def training_curves(
    metrics: str | os.PathLike[str] | pd.DataFrame | Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    source: str = "",
) -> Path:
    """Draw losses and errors of a training, epoch by epoch.

    Parameters
    ----------
    metrics
        ``metrics.jsonl`` as ``deepbedmap train`` leaves it in its folder, that folder, a CSV file,
        or the rows: one an epoch, or a step where there is no ``epoch``.
    path, source
        As of :func:`transect`.

    Raises
    ------
    MissingDataError
        There is no such file.
    InvalidDataError
        It is no table of metrics, or has neither losses nor errors.
    """
    table, name = _metrics(metrics)
    across = next((column for column in ("epoch", "step") if column in table), None)
    x = table[across].to_numpy(np.float64) if across else np.arange(1.0, len(table) + 1)
    panels = []
    for label, columns in (("RMSE (m)", _ERRORS), ("loss", _LOSSES)):
        curves = {c: table[c].to_numpy(np.float64) for c in columns if c in table}
        curves = {c: values for c, values in curves.items() if np.isfinite(values).any()}
        if curves:
            panels.append((label, curves))
    if not panels:
        raise InvalidDataError(
            Fault(
                name,
                expected=f"a column of {', '.join((*_ERRORS, *_LOSSES))}",
                found=", ".join(map(str, table.columns)) or "none",
            )
        )
    low, high = float(x.min()), float(x.max())
    if high == low:
        low, high = low - 0.5, high + 0.5
    with drawing(path, source) as sheet:
        for number, (label, curves) in enumerate(panels):
            bottom = -number * 7.4
            sheet.go(-1.8, bottom - 1.7, WIDTH + 2.1)
            sheet.go(0, bottom)
            values = np.concatenate([each[np.isfinite(each)] for each in curves.values()])
            pens = pens_of(curves)
            where = draw_axes(sheet, [low, high, *padded_range(values)], 5, across or "row", label)
            for column, each in curves.items():
                known = np.isfinite(each)  # validation is not at every epoch
                sheet.figure.plot(x=x[known], y=each[known], pen=pens[column], **where)
                if known.sum() < 60:
                    fill = pens[column].split(",")[1]
                    sheet.figure.plot(x=x[known], y=each[known], style="c0.1c", fill=fill, **where)
            entries = [(_NAMES[column], "line", pens[column]) for column in curves]
            sheet.legend(entries, 0, -1.15, WIDTH, 3)
    return Path(path)


def _metrics(given: Any) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    if isinstance(given, pd.DataFrame):
        table, name = given, "metrics"
    elif not isinstance(given, str | os.PathLike):
        table, name = pd.DataFrame(list(given)), "metrics"
    else:
        file = Path(given)
        file = file / "metrics.jsonl" if file.is_dir() else file
        name = str(file)
        if not file.is_file():
            raise MissingDataError(f"{file}: no such file; `deepbedmap train` writes metrics.jsonl")
        try:
            if file.suffix == ".csv":
                table = pd.read_csv(file)
            else:
                lines = file.read_text(encoding="utf-8").splitlines()
                table = pd.DataFrame([json.loads(line) for line in lines if line.strip()])
        except (ValueError, UnicodeDecodeError) as error:
            expected = "a line of JSON an epoch, or CSV"
            raise InvalidDataError(Fault(name, expected=expected, found=str(error))) from error
    if table.empty:
        raise InvalidDataError(Fault(name, expected="metrics of an epoch", found="none"))
    return table, name
