"""Words that contributors use for licences, DOIs, vertical datums and columns."""

from __future__ import annotations

import re

from deepbedmap.errors import WrongCallError

_NOT_A_HEIGHT = re.compile(
    "twt|time|pick|loc|qual|qc|err|unc|std|sigma|flag|source|reflect|power|slope|rough|mask|veloc"
)


def column_meaning(name: str) -> str | None:
    """Return the meaning of a column's name: x, y, lon, lat, z, depth, surface, line, ... or None.

    Examples
    --------
    >>> column_meaning("Longitude [deg]"), column_meaning("bed_elevation (m)")
    ('lon', 'z')
    """
    name = re.sub(r"[\[(].*?[\])]", "", name)
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]
    joined = "".join(words)
    easting = r"(ps|polar|polarstereo|epsg3031|antps)?{}(coord|coordinate|epsg|ps)?(3031|71)?k?m?"
    for meaning, pattern in (
        ("lon", r"lon(g|gitude)?(deg|degrees?|dd|degreeseast|degreeeast|wgs84|wgs)?|lng"),
        ("lat", r"lat(itude)?(deg|degrees?|dd|degreesnorth|degreenorth|wgs84|wgs)?"),
        ("x", easting.format("(x|easting|east)")),
        ("y", easting.format("(y|northing|north)")),
        (
            "line",
            r"(flight|line|trajectory|profile|transect|track|segment|traverse)+"
            r"(id|name|no|num|number)?|frame|frm",
        ),
        ("date", r"(utc)?date(utc)?|yyyymmdd"),
        ("time", r"(utc)?time(utc)?|utc|utctimesod|sod|secondsofday|timeofday"),
        ("quality", r"(pick|bed)?(quality|qual|qc)(flag|code)?"),
    ):
        if re.fullmatch(pattern, joined):
            return meaning
    if "thick" in joined or joined in ("tice", "thk", "icethk"):
        return None if _NOT_A_HEIGHT.search(joined) else "thickness"
    if _NOT_A_HEIGHT.search(joined):
        return None
    if "depth" in joined or joined in ("bottom", "zbottom"):
        return "depth"
    if "surf" in joined or joined in ("usurf", "zs"):
        return "surface"
    if any(word.startswith("bed") and "bedmap" not in word for word in words):
        return "z"
    return "z" if joined in ("z", "zb", "elevbed", "bottomelevation", "basalelevation") else None


VERTICAL_DATUMS = ("ellipsoid", "EIGEN-GL04C", "EIGEN-6C4")


def licence_of(text: str) -> str | None:
    """Return the SPDX identifier of a licence; None for ``"unknown"`` or empty text.

    Raises
    ------
    ValueError
        SPDX has no such licence.

    Examples
    --------
    >>> licence_of("cc-by-4.0")
    'CC-BY-4.0'
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    if not _is_stated(text):
        return None
    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        raise WrongCallError(
            f"licence: expected an SPDX identifier such as CC-BY-4.0, found {text!r}; "
            "https://spdx.org/licenses lists them; write unknown if no source states one"
        ) from None


def doi_of(text: str) -> str | None:
    """Return a DOI without its URL; None for ``"unknown"`` or empty text.

    Raises
    ------
    ValueError
        The text is not a DOI.

    Examples
    --------
    >>> doi_of("https://doi.org/10.5194/tc-7-375-2013")
    '10.5194/tc-7-375-2013'
    """
    if not _is_stated(text):
        return None
    bare = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:\s*)", "", text.strip(), flags=re.IGNORECASE)
    if not re.fullmatch(r"10\.[0-9]{4,9}/[^\s{}]+", bare):
        raise WrongCallError(f"doi: expected one such as 10.5194/tc-7-375-2013, found {text!r}")
    return bare


def datum_of(text: str) -> str | None:
    """Return a vertical datum as the registry spells it; None for ``"unknown"`` or empty text.

    Raises
    ------
    ValueError
        The registry has no such datum.

    Examples
    --------
    >>> datum_of("eigen-gl04c")
    'EIGEN-GL04C'
    """
    if not _is_stated(text):
        return None
    names = {name.casefold(): name for name in VERTICAL_DATUMS}
    if text.strip().casefold() not in names:
        choices = ", ".join(VERTICAL_DATUMS)
        raise WrongCallError(f"datum: expected one of {choices}, unknown; found {text!r}")
    return names[text.strip().casefold()]


def _is_stated(text: str | None) -> bool:
    return text is not None and text.strip().lower() not in ("", "unknown", "null", "none")
