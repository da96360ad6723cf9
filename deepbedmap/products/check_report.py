"""Limits, findings and report of the checks of a product."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from deepbedmap.errors import WrongCallError

if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True)
class Limits:
    """Limits of what is physically plausible.

    Attributes
    ----------
    lowest, highest
        Limits of bed elevation, in metres.
    least_thickness
        Least thickness of grounded ice, in metres.
    tolerance
        Metres by which bed and surface may differ on rock, a water column may be negative, and
        grounded ice may be too thin not to float.
    steepest
        Slope of the bed from a cell to one of its four neighbours, in metres per metre.
    ice_density, water_density
        Densities of ice and of sea water, kg m-3.
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
            raise WrongCallError(f"lowest {self.lowest} must be below highest {self.highest}")
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
    """The result of one check.

    Attributes
    ----------
    check
        Its name, one of :data:`CHECKS`.
    done, why_not
        Whether the check could be done, and the reason if not.
    examined, cells
        Number of cells that the check applies to, and of cells that fail.
    area
        Area of the cells that fail, in km2 on the map (in EPSG:3031 up to 6 % less than on the
        ground).
    worst, where, unit
        The value of the cell that fails most, the (x, y) of its centre, the northernmost, then the
        westernmost, of several, and the value's unit.
    corrected
        Number of failing cells that no longer fail after :func:`correct`.
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
        """Share of the examined cells that fail, 0 to 1."""
        return self.cells / self.examined if self.examined else 0.0

    @property
    def left(self) -> int:
        """Number of cells that fail and are not corrected."""
        return self.cells - self.corrected


@dataclass(frozen=True)
class Report:
    """The findings of all checks, and their limits.

    ``report["thickness"]`` is the finding of a check.
    """

    findings: tuple[Finding, ...]
    limits: Limits

    def __getitem__(self, check: str) -> Finding:
        return {finding.check: finding for finding in self.findings}[check]

    def text(self) -> str:
        """Return a table, one line per check."""
        lines = [
            f"{'check':<9} {'cells':>11} {'of':>11} {'share':>8} {'km2':>11} {'worst':>13}"
            f" {'at x, y':>18} {'corrected':>11}"
        ]
        for finding in self.findings:
            worst = "" if finding.worst is None else f"{finding.worst:,.2f} {finding.unit}"
            place = "" if finding.where is None else place_text(finding.where)
            lines.append(
                f"{finding.check:<9} {finding.cells:>11,} {finding.examined:>11,}"
                f" {finding.share:>8.2%}"
                f" {finding.area:>11,.1f} {worst:>13} {place:>18} {finding.corrected:>11,}"
                if finding.done
                else f"{finding.check:<9} not done: {finding.why_not}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON and attributes; a value that is not finite is None."""
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
