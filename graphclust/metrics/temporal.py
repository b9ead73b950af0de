"""Metrics of clusters that are followed over windows of time.

Everywhere ``labels`` is (W, n) int: the cluster of each node in each window, an id standing for the same cluster in all
of them, and -1 for a node that is not active (has no event) in the window. Windows in which no node is active (a night)
are passed over: those before and after them are consecutive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from graphclust.graph import InputError
from graphclust.metrics import partition
from graphclust.metrics.partition import Contingency, contingency
from graphclust.stream import Stream

# Greene et al. leave the threshold open. Where k equal clusters merge or one falls into k equal parts the overlap of
# each is 1/k, so this finds up to three of them; the higher it is, the more such changes look like a birth or a death.
JACCARD = 0.3


@dataclass(frozen=True, eq=False)
class Windows:
    """What the metrics over windows are computed from.

    Attributes
    ----------
    labels : ndarray of shape (W, n) or None
        Clusters in the method's own windows; None of a method that does not follow clusters over time.
    found, truth : ndarrays of shape (V, n) or None
        Found clusters and true classes in the windows of the truth, where there is one.
    """

    labels: np.ndarray | None = None
    found: np.ndarray | None = None
    truth: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raises InputError where the shapes do not agree."""
        if (self.found is None) != (self.truth is None):
            raise InputError("found and truth belong together: give both, or leave both out")
        for name in ("labels", "found", "truth"):
            array = getattr(self, name)
            if array is not None and array.ndim != 2:
                raise InputError(f"{name} has shape {array.shape}; it must be (windows, nodes)")
        if self.found is not None and self.truth is not None and self.found.shape != self.truth.shape:
            raise InputError(f"found has shape {self.found.shape} and truth {self.truth.shape}; both must be (V, n)")


@dataclass(frozen=True)
class Life:
    """How clusters live from one window to the next: numbers of each event (:func:`life`)."""

    births: int
    deaths: int
    merges: int
    splits: int
    continuations: int


def at_windows(stream: Stream, labels: np.ndarray, edges: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The clusters read at other windows: a node has there the cluster that holds most of its events of that window.

    An event belongs, for both of its nodes, to the cluster that they have in the window of ``edges`` it falls into. Of
    clusters with equally many events the one with the smaller id is taken.

    Parameters
    ----------
    stream : the events
    labels : (W, n), with a cluster for each node in each window in which it has an event
    edges : (W + 1,) the times between the windows, cut as :meth:`graphclust.stream.Stream.windows` does
    others : (V + 1,) the times between the other windows; events outside of them do not count

    Returns
    -------
    (V, n) int64; -1 for a node without an event in the window. With ``others`` equal to ``edges``: ``labels``.
    """
    inside = np.flatnonzero((stream.time >= others[0]) & (stream.time <= others[-1]))
    time = np.tile(stream.time[inside], 2)
    node = np.concatenate((stream.src[inside], stream.dst[inside]))
    clusters = int(labels.max()) + 1
    place = _window(time, others) * stream.n + node
    votes, count = np.unique(place * clusters + labels[_window(time, edges), node], return_counts=True)
    place, label = np.divmod(votes, clusters)
    order = np.lexsort((label, -count, place))
    most = order[np.flatnonzero(np.diff(place[order], prepend=-1))]
    out = np.full((len(others) - 1) * stream.n, -1)
    out[place[most]] = label[most]
    return out.reshape(-1, stream.n)


def _window(time: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return (np.searchsorted(edges, time, side="right") - 1).clip(0, len(edges) - 2)


def smoothness(labels: np.ndarray) -> float:
    """Share of the nodes active in two consecutive windows that keep their cluster; NaN when there are none."""
    stay = np.concatenate([before == after for before, after in _both_active(labels)] or [np.empty(0)])
    return float(stay.mean()) if len(stay) else float("nan")


def smoothness_kappa(labels: np.ndarray) -> float:
    """:func:`smoothness` adjusted for chance as Cohen's kappa is (doi:10.1177/001316446002000104): 1 when all stay, 0
    when as many stay as if nodes changed at random between clusters of these sizes.

    Kept and expected are summed over the pairs of consecutive windows, the expectation being that of each pair's own
    sizes. NaN when no node could have changed: one cluster, one window.
    """
    kept = expected = possible = 0.0
    for before, after in _both_active(labels):
        ids = max(before.max(), after.max()) + 1
        kept += float((before == after).sum())
        expected += float(np.bincount(before, minlength=ids) @ np.bincount(after, minlength=ids) / len(before))
        possible += len(before)
    return float((kept - expected) / (possible - expected)) if possible - expected > 1e-9 else float("nan")


def smoothness_nmi(labels: np.ndarray) -> float:
    """NMI of the clusters in two consecutive windows, on the nodes active in both, mean over the pairs of windows; it
    does not see the ids, so that clusters which only changed their id do not count as change. NaN without a pair."""
    return _mean([partition.nmi(contingency(before, after)) for before, after in _both_active(labels)])


def busy(labels: np.ndarray) -> np.ndarray:
    """Positions of the windows with an active node, in order; int."""
    return np.flatnonzero((labels >= 0).any(axis=1))


def clusters_per_window(labels: np.ndarray) -> np.ndarray:
    """Number of clusters with an active node in each window, shape (W,)."""
    return np.array([len(np.unique(row[row >= 0])) for row in labels])


def life(before: np.ndarray, after: np.ndarray, threshold: float = JACCARD) -> Life:
    """What happens to the clusters from one window to the next (Greene et al. 2010, doi:10.1109/ASONAM.2010.17).

    A cluster C of the first window matches a cluster C' of the second if their active nodes overlap by

        |C and C'| / |C or C'| > threshold    (their section III)

    whatever ids they have. A cluster of the second window without a match is a birth, one with several a merge; a
    cluster of the first without a match is a death, one with several a split; a pair that match each other and nothing
    else is a continuation. A cluster can take part in a merge and a split at once.

    Deviation: they match with the last window in which a cluster was seen, here only neighbouring windows are matched
    (their d = 1): a cluster that pauses dies and is born again. Growth and contraction are no events here.

    Parameters
    ----------
    before, after : (n,) clusters in two consecutive windows, -1 for a node that is not active
    threshold : in [0, 1), of the Jaccard index
    """
    old, new = (np.unique(row, return_inverse=True) for row in (before, after))
    common = np.zeros((len(old[0]), len(new[0])))
    np.add.at(common, (old[1], new[1]), 1)
    old_sizes, new_sizes = common.sum(axis=1), common.sum(axis=0)
    union = old_sizes[:, None] + new_sizes[None, :] - common
    match = (common / union > threshold)[np.ix_(old[0] >= 0, new[0] >= 0)]
    after_each, before_each = match.sum(axis=1), match.sum(axis=0)
    alone = match & (after_each == 1)[:, None] & (before_each == 1)[None, :]
    return Life(
        births=int((before_each == 0).sum()), deaths=int((after_each == 0).sum()),
        merges=int((before_each > 1).sum()), splits=int((after_each > 1).sum()), continuations=int(alone.sum()),
    )


def lives(labels: np.ndarray, threshold: float = JACCARD) -> list[Life]:
    """:func:`life` between consecutive windows, one fewer than there are :func:`busy` ones."""
    return [life(before, after, threshold) for before, after in pairwise(labels[busy(labels)])]


def over_windows(metric: Callable[[Contingency], float], found: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the windows of a metric of the found clusters against the true classes.

    Parameters
    ----------
    metric : of :mod:`graphclust.metrics.partition`
    found, truth : (V, n); the nodes with -1 in either are left out, and windows without any other node
    """
    known = (found >= 0) & (truth >= 0)
    return _mean([metric(contingency(truth[w, own], found[w, own])) for w, own in enumerate(known) if own.any()])


def _both_active(labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The clusters in two consecutive windows of the nodes active in both, where there are any."""
    for before, after in pairwise(labels[busy(labels)]):
        both = (before >= 0) & (after >= 0)
        if both.any():
            yield before[both], after[both]


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
