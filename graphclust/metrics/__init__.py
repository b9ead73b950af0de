"""Metrics of a partition: against labels (partition.py) and of the structure alone (structure.py)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphclust.graph import Graph, InputError
from graphclust.metrics import partition, structure
from graphclust.metrics.partition import Contingency, contingency
from graphclust.metrics.structure import Structure

__all__ = ["METRICS", "Contingency", "Metric", "Structure", "contingency", "describe_metrics", "evaluate",
           "metric_names"]


@dataclass(frozen=True)
class Metric:
    """A metric: the function of a :class:`Contingency` (labels needed) or a :class:`Structure` (graph needed)."""

    function: Callable[[Any], float]
    needs: str
    """ "labels" or "graph"."""
    higher_is_better: bool
    about: str


def _labels(function: Callable[[Contingency], float], about: str, higher: bool = True) -> Metric:
    return Metric(function, "labels", higher, about)


def _graph(function: Callable[[Structure], float], about: str, higher: bool) -> Metric:
    return Metric(function, "graph", higher, about)


METRICS: dict[str, Metric] = {
    "acc": _labels(partition.acc, "share of nodes right after the best one-to-one matching of clusters and classes"),
    "nmi": _labels(partition.nmi, "mutual information over the arithmetic mean of the entropies"),
    "ami": _labels(partition.ami, "mutual information adjusted for chance"),
    "ari": _labels(partition.ari, "Rand index adjusted for chance"),
    "f1": _labels(partition.f1, "F1 after matching, mean over the classes (macro)"),
    "micro_f1": _labels(partition.micro_f1, "F1 after matching, of the pooled counts (micro)"),
    "purity": _labels(partition.purity, "share of nodes in the majority class of their cluster"),
    "homogeneity": _labels(partition.homogeneity, "how far each cluster holds one class only"),
    "completeness": _labels(partition.completeness, "how far each class lies in one cluster only"),
    "v_measure": _labels(partition.v_measure, "harmonic mean of homogeneity and completeness"),
    "vi": _labels(partition.vi, "variation of information, in nats", higher=False),
    "pairwise_precision": _labels(partition.pairwise_precision, "pairs in one cluster that are in one class"),
    "pairwise_recall": _labels(partition.pairwise_recall, "pairs in one class that are in one cluster"),
    "pairwise_f1": _labels(partition.pairwise_f1, "harmonic mean of pairwise precision and recall"),
    "modularity": _graph(structure.modularity, "edge weight inside clusters above that of a random graph", True),
    "conductance_mean": _graph(structure.conductance_mean, "cut over volume of a cluster, mean", False),
    "conductance_max": _graph(structure.conductance_max, "cut over volume of the worst cluster", False),
    "conductance_weighted": _graph(structure.conductance_weighted, "cut over volume, mean by volume", False),
    "coverage": _graph(structure.coverage, "share of the edge weight inside clusters", True),
    "cut_ratio": _graph(structure.cut_ratio, "edges leaving a cluster over the possible ones, mean", False),
    "internal_density": _graph(structure.internal_density, "edges inside a cluster over the possible ones, mean", True),
    "codelength": _graph(structure.codelength, "two-level map equation, in bits", False),
    "disconnected": _graph(structure.disconnected, "number of clusters that are not connected", False),
}


def metric_names() -> dict[str, str]:
    """Every metric's name and description, with what it needs and its direction."""
    return {m["name"]: f"{m['about']} (needs {m['needs']}; {m['better']} is better)" for m in describe_metrics()}


def describe_metrics() -> list[dict[str, str]]:
    """One row a metric: ``name``, ``about``, ``needs`` ("labels" or "graph"), ``better`` ("higher" or "lower")."""
    return [
        {"name": name, "about": m.about, "needs": m.needs, "better": "higher" if m.higher_is_better else "lower"}
        for name, m in METRICS.items()
    ]


def evaluate(
    labels: Any, y: Any = None, graph: Graph | None = None, names: Iterable[str] | None = None
) -> dict[str, float]:
    """The named metrics (default: all that the arguments allow), each independent of which others are asked.

    Parameters
    ----------
    labels : (n,) cluster ids; the ids are names only
    y : (n,) true classes, optional; nodes with -1 (unknown) are left out of the metrics that need labels
    graph : Graph with n nodes, optional
    names : metrics to compute, in the order wanted; see :func:`metric_names`

    Raises
    ------
    InputError
        An unknown name; a named metric whose labels or graph are not given; shapes that do not agree.
    """
    labels = np.asarray(labels)
    known = None if y is None else _known(np.asarray(y), labels)
    have = {"labels": known is not None and bool(known.any()), "graph": graph is not None}
    if names is None:
        names = [name for name, m in METRICS.items() if have[m.needs]]
    else:
        names = list(names)
        _check_names(names, have)
    needs = {METRICS[name].needs for name in names}
    given: dict[str, Any] = {}
    if "labels" in needs:
        given["labels"] = contingency(np.asarray(y)[known], labels[known])
    if "graph" in needs:
        given["graph"] = structure.structure(graph, labels)  # type: ignore[arg-type]
    return {name: METRICS[name].function(given[METRICS[name].needs]) for name in names}


def _known(y: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if y.ndim != 1 or y.shape != labels.shape:
        raise InputError(f"y has shape {y.shape} and labels {labels.shape}; both must be (n,) with the same n")
    return y != -1 if np.issubdtype(y.dtype, np.number) else np.ones(len(y), dtype=bool)


def _check_names(names: list[str], have: dict[str, bool]) -> None:
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"unknown metric {name!r}; {hint}the metrics are: {', '.join(METRICS)}")
        if not have[METRICS[name].needs]:
            what = "true labels y (not all -1)" if METRICS[name].needs == "labels" else "the graph"
            raise InputError(f"the metric {name!r} needs {what}; give them, or leave the metric out")
