"""The questions of ``deepbedmap new``: what a sample leaves open, and what it makes one guess."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from deepbedmap.errors import WrongCallError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from deepbedmap.contribution.sample import Sample

_REQUIRED = ("title", "licence", "vertical_datum")
_LAYOUT = ("x", "y", "z", "surface", "thickness", "down", "crs", "xy_units", "units")


def ask(options: dict[str, Any]) -> tuple[Sample, dict[str, Any]]:
    """Return the sample, fully understood, and the answers to the questions about its dataset.

    Parameters
    ----------
    options
        Of the command: ``sample``, what is known of its columns and of its dataset, and ``yes``.

    Raises
    ------
    ValueError
        There is no terminal on which to ask for what is needed.
    """
    answers = {name: options[name] for name in ("title", "licence", "year", "location")}
    answers |= {name: options[name] for name in ("doi", "paper_doi", "url")}
    answers["vertical_datum"] = options["datum"]
    answers["authors"] = options["authors"] and options["authors"].split(";")
    yes: bool = options["yes"]
    needed = [name for name in _REQUIRED if answers[name] is None]
    layout = {name: options[name] for name in _LAYOUT}
    layout["missing"] = options["missing"] or None
    look = _settle(options["sample"], layout, yes, needed)
    if sys.stdin.isatty():
        for name, (question, reading) in _questions().items():
            if name in needed or (answers[name] is None and not yes):
                answers[name] = _prompt(question, reading, None if name in needed else "")
    return look, answers


def _questions() -> dict[str, tuple[str, Any]]:
    """The questions about a dataset, and what reads their answers."""
    from deepbedmap import contribution

    datums = ", ".join(contribution.VERTICAL_DATUMS)
    return {
        "title": ("Title", str),
        "licence": ("Licence (such as CC-BY-4.0, or unknown)", contribution.licence_of),
        "vertical_datum": (f"Heights refer to ({datums} or unknown)", contribution.datum_of),
        "authors": ("Authors (Family, Given; Family, Given)", lambda text: text.split(";")),
        "year": ("Year of publication", lambda text: int(text) if text else None),
        "location": ("Place", str),
        "doi": ("DOI of the data", contribution.doi_of),
        "paper_doi": ("DOI of the paper", contribution.doi_of),
        "url": ("Address of the file", str),
    }


def _settle(path: Path, layout: dict[str, Any], yes: bool, needed: list[str]) -> Sample:
    """Inspect a sample until every question is answered and every guess is confirmed."""
    from deepbedmap.contribution.sample import inspect

    look = inspect(path, **layout)
    for finding in look.findings:
        typer.echo(f"found: {finding}")
    if yes or not sys.stdin.isatty():
        for guess in look.guesses:
            typer.echo(f"guessed: {guess.text}")
    if not sys.stdin.isatty():
        _require_answers(look, yes, needed)
        return look
    confirmed = {guess.text for guess in look.guesses if yes}
    while doubts := (*(g for g in look.guesses if g.text not in confirmed), *look.questions):
        doubt = doubts[0]
        is_guess = doubt in look.guesses
        if is_guess and typer.confirm(f"guessed: {doubt.text}. Is that so?", default=True):
            confirmed.add(doubt.text)
            continue
        name = doubt.settled_by[0]

        def reading(text: str, name: str = name) -> tuple[Any, Sample]:
            value = _value(name, text)
            return value, inspect(path, **{**layout, name: value})

        layout[name], look = _prompt(_flags([name]) if is_guess else doubt.text, reading)
    return look


def _require_answers(look: Sample, yes: bool, needed: list[str]) -> None:
    """Refuse to begin where an answer is missing that cannot be asked for."""
    absent = [_flags([name]) for name in needed]
    absent += [f"{_flags(each.settled_by)} ({each.text})" for each in look.questions]
    if look.guesses and not yes:
        doubtful = dict.fromkeys(name for each in look.guesses for name in each.settled_by)
        absent.append(f"--yes to accept the guesses (else {_flags(doubtful, ', ')})")
    if absent:
        raise WrongCallError(f"state what cannot be asked without a terminal: {'; '.join(absent)}")


def _flags(arguments: Iterable[str], word: str = " or ") -> str:
    names = {"vertical_datum": "--datum", "down": "--down or --up"}
    return word.join(names.get(each, f"--{each.replace('_', '-')}") for each in arguments)


def _value(name: str, text: str) -> Any:
    """Read the answer to a question about the layout of the sample."""
    if name == "down":
        return {"up": False, "down": True}.get(text, text)
    if name == "missing":
        return [float(number) for number in text.replace(",", " ").split()]
    return text


def _prompt(question: str, reading: Any, default: str | None = None) -> Any:
    """Ask until the answer can be read."""

    def read(text: str) -> Any:
        try:
            return reading(text.strip())
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.prompt(question, default=default, show_default=False, value_proc=read)
