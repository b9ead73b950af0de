"""Metrics of a partition: against labels (partition.py) and of the structure alone (structure.py)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from graphclust.graph import Graph


def evaluate(
    labels: Any, y: Any = None, graph: Graph | None = None, names: Iterable[str] | None = None
) -> dict[str, float]:
    """The named metrics (default: all that the arguments allow), each independent of which others are asked."""
    out = {}
    if y is not None:
        out["nmi"] = float(normalized_mutual_info_score(np.asarray(y), labels))
        out["ari"] = float(adjusted_rand_score(np.asarray(y), labels))
    return {k: v for k, v in out.items() if names is None or k in set(names)}
