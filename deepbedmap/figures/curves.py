"""Curves: histograms of errors, power by wavelength, losses by epoch."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deepbedmap.errors import Fault, InvalidDataError, MissingDataError, WrongCallError
from deepbedmap.figures.scales import COLOURS
from deepbedmap.figures.sheet import counted, drawing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import pandas as pd

    from deepbedmap.evaluation.spectral import Spectra
    from deepbedmap.figures.sheet import Sheet
    from deepbedmap.points.tracks import Floats

WIDTH = 15.0  # cm
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
    """Return a pen for each curve."""
    return {name: f"0.9p,{COLOURS[n % len(COLOURS)]}" for n, name in enumerate(names)}


def draw_axes(
    sheet: Sheet,
    region: Sequence[float],
    height: float,
    x_label: str | None,
    y_label: str,
    projection: str | None = None,
    frame: Sequence[str] = ("xaf", "yafg"),
) -> dict[str, Any]:
    """Draw axes at the current origin; return the region and projection of curves in them."""
    axes = {
        "region": list(region),
        "projection": projection or f"X{WIDTH}c/{height}c",
    }
    x, y = frame
    sides = "WSrt" if x_label else "Wsrt"
    x_frame = f"{x}+l{x_label}" if x_label else x
    sheet.figure.basemap(**axes, frame=[sides, x_frame, f"{y}+l{y_label}"])
    return axes


def draw_curve(sheet: Sheet, x: Floats, y: Floats, pen: str, axes: Mapping[str, Any]) -> None:
    """Draw a curve with gaps where it is NaN; a value between two gaps is drawn as a dot."""
    finite = np.isfinite(y)
    if not finite.any():
        return
    sheet.figure.plot(x=x, y=y, pen=pen, **axes)
    has_neighbour = np.append(False, finite[:-1]) | np.append(finite[1:], False)
    isolated = finite & ~has_neighbour
    if isolated.any():
        colour = pen.split(",")[1]
        sheet.figure.plot(x=x[isolated], y=y[isolated], style="c0.09c", fill=colour, **axes)


def padded_range(values: Floats) -> tuple[float, float]:
    """Return the range of values with a margin on both sides."""
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or max(1.0, 0.01 * abs(low))
    return low - margin, high + margin


def error_histogram(
    errors: Mapping[str, npt.ArrayLike], path: str | os.PathLike[str], source: str = ""
) -> Path:
    """Draw a histogram of errors for each bed.

    Parameters
    ----------
    errors
        Bed minus pick (m) by name of the bed, of any shape; NaN is ignored.
    path, source
        The same arguments as for :func:`transect`.

    Returns
    -------
    pathlib.Path
        The path of the figure.

    Raises
    ------
    InvalidDataError
        No error is finite.
    """
    finite = {name: np.asarray(values, np.float64).ravel() for name, values in errors.items()}
    finite = {name: values[np.isfinite(values)] for name, values in finite.items()}
    finite = {name: values for name, values in finite.items() if values.size}
    if not finite:
        raise InvalidDataError(Fault("errors", expected="finite values", found="none"))
    limit = max(float(np.percentile(np.abs(values), 99)) for values in finite.values()) or 1.0
    edges = np.linspace(-limit, limit, _BINS + 1)
    shares = {
        name: 100 * np.histogram(values, edges)[0] / values.size for name, values in finite.items()
    }
    pens = pens_of(finite)
    highest = max(float(share.max()) for share in shares.values())
    with drawing(path, source) as sheet:
        rows = len(finite)
        sheet.go(-1.8, -1.6 - 0.42 * rows, WIDTH + 2.1)
        sheet.go(0, 0)
        axes = draw_axes(
            sheet,
            [-limit, limit, 0, 1.08 * highest],
            7,
            "bed minus pick (m)",
            f"picks per {edges[1] - edges[0]:.2g} m (%)",
        )
        sheet.figure.plot(x=[0, 0], y=[0, 1.08 * highest], pen="0.5p,gray40,4_2", **axes)
        for name, share in shares.items():
            x = np.repeat(edges, 2)[1:-1]
            sheet.figure.plot(x=x, y=np.repeat(share, 2), pen=pens[name], **axes)
        entries = []
        for name, values in finite.items():
            rmse = math.sqrt(float(np.mean(values**2)))
            beyond = float((np.abs(values) > limit).mean())
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
    """Draw along-track power spectra of picks and beds and, below, their coherence.

    Parameters
    ----------
    spectra
        By bed, from :func:`deepbedmap.evaluation.spectra`. The spectrum of the picks is taken from
        the first.
    path, source
        The same arguments as for :func:`transect`.

    Returns
    -------
    pathlib.Path
        The path of the figure.

    Raises
    ------
    InvalidDataError
        No spectrum has any power.
    ValueError
        There are no spectra.
    """
    if not spectra:
        raise WrongCallError("spectra: expected at least one, found none")
    first = next(iter(spectra.values()))
    pens = {"picks": "0.9p,black", **pens_of(spectra)}
    powers = {"picks": (first.wavelength, first.truth)}
    powers |= {name: (each.wavelength, each.grid) for name, each in spectra.items()}
    if not any((power > 0).any() for _, power in powers.values()):
        raise InvalidDataError(Fault("spectra", expected="some power", found="none"))
    lengths = np.concatenate([each.wavelength for each in spectra.values()]) / 1000
    wavelengths = float(lengths.min()), float(lengths.max())
    with drawing(path, source) as sheet:
        rows = len(spectra) + 1
        sheet.go(-2, -5.6 - 0.42 * rows, WIDTH + 2.3)
        sheet.go(0, 0)
        _draw_powers(sheet, powers, pens, wavelengths)
        sheet.go(0, -4.2)
        _draw_coherences(sheet, spectra, pens, wavelengths)
    return Path(path)


def _draw_powers(
    sheet: Sheet,
    powers: Mapping[str, tuple[Floats, Floats]],
    pens: Mapping[str, str],
    wavelengths: tuple[float, float],
) -> None:
    """Draw power by wavelength (m); the axis is from the shortest to the longest (km)."""
    positive = np.concatenate([power[power > 0] for _, power in powers.values()])
    top = 10 ** math.ceil(math.log10(positive.max()) + 0.1)
    # The tiny power of a smooth bed at the shortest wavelengths would compress all other curves.
    low = max(10 ** math.floor(math.log10(positive.min())), top / 1e8)
    axes = draw_axes(
        sheet,
        [*wavelengths, low, top],
        5.6,
        None,
        "power (m@+2@+ per cycle/m)",
        f"X-{WIDTH}cl/5.6cl",
        ("xa2f3g3", "ya1pg1"),
    )
    for name, (wavelength, power) in powers.items():
        values = np.where(power > 0, power, np.nan)
        draw_curve(sheet, wavelength / 1000, values, pens[name], axes)


def _draw_coherences(
    sheet: Sheet,
    spectra: Mapping[str, Spectra],
    pens: Mapping[str, str],
    wavelengths: tuple[float, float],
) -> None:
    """Draw coherence with the picks by wavelength, what chance would give, and a legend."""
    axes = draw_axes(
        sheet,
        [*wavelengths, 0, 1],
        3.6,
        "wavelength (km)",
        "coherence",
        f"X-{WIDTH}cl/3.6c",
        ("xa2f3g3", "ya0.5f0.1g0.5"),
    )
    entries = [("picks", "line", pens["picks"])]
    for name, each in spectra.items():
        draw_curve(sheet, each.wavelength / 1000, each.coherence, pens[name], axes)
        resolved = each.resolved_wavelength()
        verdict = "incoherent at all wavelengths"
        if resolved is not None:
            verdict = f"coherent down to {resolved / 1000:.1f} km"
            sheet.figure.plot(
                x=[resolved / 1000] * 2,
                y=[0, 1],
                pen=f"0.5p,{pens[name].split(',')[1]},2_2",
                **axes,
            )
        entries.append(
            (f"{name}: {verdict}; {counted(each.windows, 'window')}", "line", pens[name])
        )
    chance = max(each.significance() for each in spectra.values())
    sheet.figure.plot(x=wavelengths, y=[chance, chance], pen="0.5p,gray40,4_2", **axes)
    entries.append(("chance, at 95 %", "line", "0.5p,gray40,4_2"))
    sheet.legend(entries, 0, -1.25, WIDTH)


def training_curves(
    metrics: str | os.PathLike[str] | pd.DataFrame | Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    source: str = "",
) -> Path:
    """Draw losses and errors of a training run, epoch by epoch.

    Parameters
    ----------
    metrics
        ``metrics.jsonl`` as ``deepbedmap train`` writes it, its folder, a CSV file, or a table or
        list of rows: one per epoch, or one per step if there is no ``epoch``.
    path, source
        The same arguments as for :func:`transect`.

    Returns
    -------
    pathlib.Path
        The path of the figure.

    Raises
    ------
    MissingDataError
        The file does not exist.
    InvalidDataError
        It is no table of metrics, or has neither losses nor errors.
    """
    table, name = _metrics(metrics)
    x_column = next((column for column in ("epoch", "step") if column in table), None)
    x = table[x_column].to_numpy(np.float64) if x_column else np.arange(1.0, len(table) + 1)
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
            axes = draw_axes(sheet, [low, high, *padded_range(values)], 5, x_column or "row", label)
            for column, each in curves.items():
                finite = np.isfinite(each)  # not every epoch is validated
                sheet.figure.plot(x=x[finite], y=each[finite], pen=pens[column], **axes)
                if finite.sum() < 60:
                    fill = pens[column].split(",")[1]
                    sheet.figure.plot(x=x[finite], y=each[finite], style="c0.1c", fill=fill, **axes)
            entries = [(_NAMES[column], "line", pens[column]) for column in curves]
            sheet.legend(entries, 0, -1.15, WIDTH, 3)
    return Path(path)


def _metrics(source: Any) -> tuple[pd.DataFrame, str]:
    """Return a table of metrics, and the name of its source for messages."""
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        table, name = source, "metrics"
    elif not isinstance(source, str | os.PathLike):
        table, name = pd.DataFrame(list(source)), "metrics"
    else:
        file = Path(source)
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
            expected = "one line of JSON per epoch, or CSV"
            raise InvalidDataError(Fault(name, expected=expected, found=str(error))) from error
    if table.empty:
        raise InvalidDataError(Fault(name, expected="metrics of at least one epoch", found="none"))
    return table, name
