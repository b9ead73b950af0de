"""Smoothed features and k-means, with nothing trained: the row that a deep method has to beat."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize
from sklearn.utils._param_validation import Interval, StrOptions

from graphclust.graph import Graph
from graphclust.methods._features import FeatureTransform
from graphclust.methods._joint import JointModel
from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.monitor import Monitor
from graphclust.propagation import normalised_adjacency

# Steps that are tried, and after how many of them without a better partition the search ends.
STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
PATIENCE = 3
VIEWS = ("smoothed", "subspace", "deflated", "deflated subspace")


class Propagation(GraphClusterer):
    """SGC features and k-means; steps and view chosen by how well the partition explains edges and features.

    The features X are weighted (tf-idf for binary ones, then rows of length 1), reduced to 100 dimensions by SVD and
    smoothed, Z = P^t X with P = D^-1/2 (A + I) D^-1/2 (Wu et al. 2019, section 2). Large t drags all rows towards P's
    leading eigenvector v (v_i ~ sqrt(d_i)), so k-means sees four views:

    - smoothed: rows of Z, length 1;
    - subspace: those rows, centred, projected to the k leading left singular vectors, rows of length 1 (the
      subspace of M-S2CAG, Lin et al. 2025, arXiv 2411.11074, with the mean for its null model);
    - deflated: rows of P^t (X - v v' X), length 1;
    - deflated subspace: the k leading left singular vectors of that, rows of length 1.

    Of all partitions, t in 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, the one is returned that explains edges and features
    best: the joint log-likelihood of :class:`graphclust.methods._joint.JointModel`. The search ends when three values
    of t in a row bring nothing better. AGC (Zhang et al. 2019, arXiv 1906.01210) stops instead where the
    clusters stop getting tighter, which sees the smoothed features only and cannot tell tight from over-smoothed.

    Parameters
    ----------
    n_clusters : int
    steps : "auto" or int >= 0
        t, or the choice described.
    view : "auto", "smoothed", "subspace", "deflated" or "deflated subspace"
    n_components : int or None, default 100
        Dimensions of the SVD before smoothing; None: none.
    n_init : int, default 5
        Starts of each k-means.
    refine : bool, default False
        Move the nodes of the chosen partition by classification EM on the joint likelihood until it stops rising.
    random_state : int, Generator or None
    """

    name = "propagation"
    summary = "smoothed features and k-means; steps chosen by joint likelihood, nothing trained"
    source = ("SGC, Wu et al. 2019, arXiv 1902.07153; choice by the block model of Karrer & Newman 2011, "
              "doi:10.1103/PhysRevE.83.016107, and naive Bayes")
    needs_features = True
    needs_k = True

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), None],
        "steps": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "view": [StrOptions({"auto", *VIEWS})],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "refine": ["boolean"],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(
        self,
        n_clusters: int | None = None,
        *,
        steps: str | int = "auto",
        view: str = "auto",
        n_components: int | None = 100,
        n_init: int = 5,
        refine: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.steps = steps
        self.view = view
        self.n_components = n_components
        self.n_init = n_init
        self.refine = refine
        self.random_state = random_state

    def _cluster(self, graph: Graph, rng: np.random.Generator, monitor: Monitor) -> Clustering:
        k = self.n_clusters or 1  # None was refused before
        transform = FeatureTransform("auto", self.n_components).fit(graph, int(rng.integers(2**31)))
        weighted: Any = transform.transform(graph)
        x = np.asarray(weighted.toarray() if sp.issparse(weighted) else weighted, dtype=np.float32)
        model = JointModel.make(graph, x, k)
        wanted = STEPS if isinstance(self.steps, str) else (int(self.steps),)
        monitor.start(len(wanted), "steps")
        best, tried, since = (-np.inf, 0, "", np.zeros(graph.n, dtype=int), x), [], 0
        for i, (steps, plain, deflated) in enumerate(_smoothed(graph, x, wanted)):
            since += 1
            for view, z in _views(plain, deflated, k):
                if self.view in ("auto", view):
                    labels = self._kmeans(z, rng)
                    score = model.score(labels)
                    tried.append({"steps": steps, "view": view, "score": score})
                    if score > best[0]:
                        best, since = (score, steps, view, labels, z), 0
            monitor.step(i, {"score": best[0]})
            if since >= PATIENCE:
                break
        score, steps, view, labels, z = best
        if self.refine:
            labels = model.refine(labels)
            score = model.score(labels)
        return Clustering(labels, embedding=z, chosen={"steps": steps, "view": view, "score": score, "tried": tried})

    def _kmeans(self, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        model = KMeans(self.n_clusters, n_init=self.n_init, random_state=int(rng.integers(2**31)))
        with warnings.catch_warnings():
            # fewer distinct rows than clusters: n_clusters_ shows how many there were
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit_predict(z)


def _smoothed(
    graph: Graph, x: np.ndarray, wanted: tuple[int, ...]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """t, P^t x and P^t (x - v v' x) for each t wanted, which must increase; v is P's leading eigenvector."""
    p = normalised_adjacency(graph.adjacency)
    v = np.sqrt(graph.degrees + 1)
    v = (v / np.linalg.norm(v)).astype(np.float32)
    plain, deflated = x, x - np.outer(v, v @ x)
    done = 0
    for t in wanted:
        for _ in range(t - done):
            plain, deflated = p @ plain, p @ deflated
        done = t
        yield t, plain, deflated


def _views(plain: np.ndarray, deflated: np.ndarray, k: int) -> Iterator[tuple[str, np.ndarray]]:
    plain, deflated = normalize(plain), normalize(deflated)
    yield "smoothed", plain
    yield "subspace", _subspace(plain - plain.mean(axis=0), k)
    yield "deflated", deflated
    yield "deflated subspace", _subspace(deflated, k)


def _subspace(z: np.ndarray, k: int) -> np.ndarray:
    """Leading left singular vectors of ``z``, at most k, rows of length 1; from the small d x d product."""
    values, right = np.linalg.eigh((z.T @ z).astype(np.float64))
    values, right = values[::-1][:k], right[:, ::-1][:, :k]
    keep = values > 1e-10 * max(values[0], 1e-12)
    return normalize((z @ right[:, keep] / np.sqrt(values[keep])).astype(np.float32)) if keep.any() else z
