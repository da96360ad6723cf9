"""What the checks of a product go by, and what they found: limits, findings, report."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from deepbedmap.errors import WrongCallError

if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True)
class Limits:
    """What is held to be possible.

    Attributes
    ----------
    lowest, highest
        Of the bed, in metres.
    least_thickness
        Of grounded ice, in metres.
    tolerance
        Metres by which bed and surface may differ on rock, a water column may be negative, and
        grounded ice may be too thin not to float.
    steepest
        Slope of the bed from a cell to one of its four neighbours, in metres a metre.
    ice_density, water_density
        kg m-3, of ice and of sea water.
    """

    lowest: float = -6000.0
    highest: float = 5000.0
    least_thickness: float = 0.0
    tolerance: float = 1.0
    steepest: float = 1.0
    ice_density: float = 917.0
    water_density: float = 1027.0

    def __post_init__(self) -> None:
        if not self.lowest < self.highest:
            raise WrongCallError(f"lowest {self.lowest} must lie below highest {self.highest}")
        if not 0 < self.ice_density < self.water_density:
            raise WrongCallError(
                f"ice_density {self.ice_density} must be positive and below water_density"
                f" {self.water_density}"
            )
        for name in ("least_thickness", "tolerance", "steepest"):
            if not getattr(self, name) >= 0:
                raise WrongCallError(f"{name} {getattr(self, name)} must not be negative")


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check
        Its name, one of :data:`CHECKS`.
    done, why_not
        Whether it could be done, and why not.
    examined, cells
        Number of cells that the check is about, and of those that fail.
    area
        Of the cells that fail, in km2 on the map (in EPSG:3031 up to 6 % less than on the ground).
    worst, where, unit
        The value of the cell that fails most, the (x, y) of its centre, the northernmost, then the
        westernmost, of several, and the value's unit.
    corrected
        Number of cells that fail no more in what :func:`correct` gives.
    """

    check: str
    done: bool = True
    why_not: str | None = None
    examined: int = 0
    cells: int = 0
    area: float = 0.0
    worst: float | None = None
    where: tuple[float, float] | None = None
    unit: str = "m"
    corrected: int = 0

    @property
    def share(self) -> float:
        """Of the examined cells, those that fail; 0 to 1."""
        return self.cells / self.examined if self.examined else 0.0

    @property
    def left(self) -> int:
        """Number of cells that fail and are not corrected."""
        return self.cells - self.corrected


@dataclass(frozen=True)
class Report:
    """What all checks found, and the limits that they went by.

    ``report["thickness"]`` is the finding of a check.
    """

    findings: tuple[Finding, ...]
    limits: Limits

    def __getitem__(self, check: str) -> Finding:
        return {finding.check: finding for finding in self.findings}[check]

    def text(self) -> str:
        """Give a table, one line a check."""
        lines = [
            f"{'check':<9} {'cells':>11} {'of':>11} {'share':>8} {'km2':>11} {'worst':>13}"
            f" {'at x, y':>18} {'corrected':>11}"
        ]
        for found in self.findings:
            worst = "" if found.worst is None else f"{found.worst:,.2f} {found.unit}"
            place = "" if found.where is None else place_text(found.where)
            lines.append(
                f"{found.check:<9} {found.cells:>11,} {found.examined:>11,} {found.share:>8.2%}"
                f" {found.area:>11,.1f} {worst:>13} {place:>18} {found.corrected:>11,}"
                if found.done
                else f"{found.check:<9} not done: {found.why_not}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON and attributes hold; a value that is not finite is None."""
        findings = []
        for finding in self.findings:
            row = {**asdict(finding), "share": finding.share}
            if finding.worst is not None and not math.isfinite(finding.worst):
                row["worst"] = None
            if finding.where is not None:
                row["where"] = list(finding.where)
            findings.append(row)
        return {"limits": asdict(self.limits), "findings": findings}


def place_text(where: tuple[float, float]) -> str:
    """Return a location (x, y) as text, rounded to whole metres."""
    return f"{where[0]:.0f}, {where[1]:.0f}"
