"""Metrics of a partition: against labels (partition.py), of structure alone (structure.py), over time (temporal.py)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphclust.graph import Graph, InputError
from graphclust.metrics import partition, structure, temporal
from graphclust.metrics.partition import Contingency, contingency
from graphclust.metrics.structure import Structure
from graphclust.metrics.temporal import Windows

__all__ = ["METRICS", "Contingency", "Metric", "Structure", "Windows", "contingency", "describe_metrics", "evaluate",
           "metric_names"]

DIRECTIONS = {True: "higher", False: "lower", None: "neither"}
# what a metric needs, in the words of an error message
NEEDS = {"labels": "true labels y (not all -1)", "graph": "the graph", "windows": "clusters over windows of time",
         "window labels": "true classes over windows of time"}


@dataclass(frozen=True)
class Metric:
    """A metric: the function of a :class:`Contingency` (labels needed), of a :class:`Structure` (graph needed) or of
    :class:`Windows` (windows or window labels needed)."""

    function: Callable[[Any], float]
    needs: str
    """A key of :data:`NEEDS`."""
    higher_is_better: bool | None
    """None of a number that describes and does not judge."""
    about: str


def _labels(function: Callable[[Contingency], float], about: str, higher: bool = True) -> Metric:
    return Metric(function, "labels", higher, about)


def _graph(function: Callable[[Structure], float], about: str, higher: bool) -> Metric:
    return Metric(function, "graph", higher, about)


def _windows(function: Callable[[Any], float], about: str, higher: bool | None) -> Metric:
    return Metric(lambda w: function(w.labels), "windows", higher, about)


def _life(event: str, about: str) -> Metric:
    def total(labels: np.ndarray) -> float:
        return float(sum(getattr(life, event) for life in temporal.lives(labels)))

    return _windows(total, f"{about}, between consecutive windows, sum", None)


def _window_labels(function: Callable[[Contingency], float], name: str) -> Metric:
    return Metric(lambda w: temporal.over_windows(function, w.found, w.truth), "window labels", True,
                  f"{name} of the active nodes in each window of the truth, mean over the windows")


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
    "window_acc": _window_labels(partition.acc, "acc"),
    "window_nmi": _window_labels(partition.nmi, "nmi"),
    "window_ari": _window_labels(partition.ari, "ari"),
    "window_clusters": _windows(
        lambda w: float(temporal.clusters_per_window(w[temporal.busy(w)]).mean()), "clusters in a window, mean", None
    ),
    "window_smoothness": _windows(temporal.smoothness, "share of nodes that keep their cluster in the next window",
                                  None),
    "window_smoothness_kappa": _windows(temporal.smoothness_kappa, "window_smoothness adjusted for chance", None),
    "window_smoothness_nmi": _windows(temporal.smoothness_nmi, "nmi of the clusters in consecutive windows", None),
    "window_births": _life("births", "clusters that overlap with none of the window before"),
    "window_deaths": _life("deaths", "clusters that overlap with none of the window after"),
    "window_merges": _life("merges", "clusters that several of the window before went into"),
    "window_splits": _life("splits", "clusters that fell into several of the window after"),
    "window_continuations": _life("continuations", "clusters that went on as one"),
}


def metric_names() -> dict[str, str]:
    """Every metric's name and description, with what it needs and its direction."""
    return {m["name"]: f"{m['about']} (needs {m['needs']}; {m['better']} is better)" for m in describe_metrics()}


def describe_metrics() -> list[dict[str, str]]:
    """One row a metric: ``name``, ``about``, ``needs`` (a key of :data:`NEEDS`), ``better`` (of :data:`DIRECTIONS`)."""
    return [
        {"name": name, "about": m.about, "needs": m.needs, "better": DIRECTIONS[m.higher_is_better]}
        for name, m in METRICS.items()
    ]


def evaluate(
    labels: Any, y: Any = None, graph: Graph | None = None, names: Iterable[str] | None = None,
    windows: Windows | None = None,
) -> dict[str, float]:
    """The named metrics (default: all that the arguments allow), each independent of which others are asked.

    Parameters
    ----------
    labels : (n,) cluster ids; the ids are names only
    y : (n,) true classes, optional; nodes with -1 (unknown) are left out of the metrics that need labels
    graph : Graph with n nodes, optional
    names : metrics to compute, in the order wanted; see :func:`metric_names`
    windows : clusters over windows of time, and the truth over its own, optional

    Raises
    ------
    InputError
        An unknown name; a named metric that needs what is not given; shapes that do not agree.
    """
    labels = np.asarray(labels)
    known = None if y is None else _known(np.asarray(y), labels)
    have = {
        "labels": known is not None and bool(known.any()), "graph": graph is not None,
        "windows": windows is not None and windows.labels is not None,
        "window labels": windows is not None and windows.truth is not None,
    }
    if names is None:
        names = [name for name, m in METRICS.items() if have[m.needs]]
    else:
        names = list(names)
        _check_names(names, have)
    needs = {METRICS[name].needs for name in names}
    given: dict[str, Any] = {"windows": windows, "window labels": windows}
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
            raise InputError(f"the metric {name!r} needs {NEEDS[METRICS[name].needs]}; give them, or leave it out")
