"""Scores of a bed against picks: the public names of :mod:`deepbedmap.evaluation`."""

from __future__ import annotations

from deepbedmap.evaluation.evaluating import evaluate
from deepbedmap.evaluation.scoring import Scores

__all__ = ["Scores", "evaluate"]
