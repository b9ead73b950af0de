"""What happens to the node features before an encoder sees them; fitted on one graph, applied to others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from graphclust.graph import Graph, InputError
from graphclust.methods._smoothing import smoothing_steps
from graphclust.propagation import smooth

Weighting = Literal["none", "l2", "tfidf", "auto"]
Features: TypeAlias = Any
"""ndarray or csr_array of shape (n, d), float32; scipy has no types to name the second."""


@dataclass
class FeatureTransform:
    """weighting -> SVD -> centring -> smoothing over the edges -> scale; each step is off by default.

    Parameters
    ----------
    weighting : "none"; "l2", rows of length 1; "tfidf", columns times log((1 + n) / (1 + df)) + 1, then "l2"; "auto",
        "tfidf" for a bag of words (counts, most of them zero) and "l2" for anything else
    n_components : project on that many leading right singular vectors; None, or at least d: do not
    center : subtract the column means
    smoothing : steps of D^-1/2 (A + I) D^-1/2; "auto": :func:`graphclust.methods._smoothing.smoothing_steps` of the
        graph that it is fitted on
    scale : divide by the root mean square of all values
    """

    weighting: Weighting = "none"
    n_components: int | None = None
    center: bool = False
    smoothing: int | Literal["auto"] = 0
    scale: bool = False

    idf: np.ndarray | None = None
    components: np.ndarray | None = None
    mean: np.ndarray | None = None
    rms: float = 1.0
    n_features: int = 0
    steps: int = 0

    def fit(self, graph: Graph, seed: int) -> Self:
        """Learn idf, singular vectors, means and scale from ``graph``; ``seed`` is for the randomised SVD."""
        x = graph.x
        self.n_features = x.shape[1]
        self.steps = smoothing_steps(graph.adjacency) if self.smoothing == "auto" else self.smoothing
        if self.weighting == "tfidf" or (self.weighting == "auto" and _is_bag_of_words(x)):
            frequency = np.asarray((x > 0).sum(axis=0)).ravel()
            self.idf = (np.log((1 + graph.n) / (1 + frequency)) + 1).astype(np.float32)
        x = self._weighted(x)
        if self.n_components is not None and self.n_components < min(x.shape):
            self.components = randomized_svd(x, self.n_components, random_state=seed)[2].astype(np.float32)
            x = x @ self.components.T
        if self.center:
            self.mean = np.asarray(x.mean(axis=0), dtype=np.float32).ravel()
        if self.scale:
            values = self._propagated(self._centred(x), graph)
            values = values.data if sp.issparse(values) else values
            total = float(np.square(values, dtype=np.float64).sum())
            self.rms = float(np.sqrt(total / (graph.n * x.shape[1]))) or 1.0
        return self

    def transform(self, graph: Graph) -> Features:
        """The features of ``graph``, transformed, float32; sparse only when they were and every step allows it.

        Raises
        ------
        InputError
            Another number of features than in :meth:`fit`, or none.
        """
        found = None if graph.x is None else graph.x.shape[1]
        if found != self.n_features:
            raise InputError(f"the model was fitted on d = {self.n_features} features; the data has {found}")
        x = self._propagated(self._centred(self._projected(graph.x)), graph)
        return x / np.float32(self.rms) if self.scale else x

    def uncentred(self, graph: Graph) -> Features:
        """As :meth:`transform`, but for centring and scale: directions as the data has them."""
        return self._propagated(self._projected(graph.x), graph)

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The transform as tensors, ``transform.<field>``, and plain values, to be stored."""
        values = dataclasses.asdict(self)
        arrays = {name: v for name, v in values.items() if isinstance(v, np.ndarray)}
        plain = {name: v for name, v in values.items() if name not in arrays}
        return {f"transform.{name}": torch.from_numpy(v) for name, v in arrays.items()}, plain

    @classmethod
    def from_parts(cls, tensors: dict[str, Tensor], plain: dict[str, Any]) -> Self:
        """What :meth:`parts` gave; other tensors may be among them."""
        arrays = {k.removeprefix("transform."): v.numpy() for k, v in tensors.items() if k.startswith("transform.")}
        return cls(**plain, **arrays)

    def _projected(self, x: Features) -> Features:
        x = self._weighted(x)
        return x if self.components is None else x @ self.components.T

    def _weighted(self, x: Features) -> Features:
        if self.weighting == "none":
            return x
        if self.idf is not None:
            x = sp.csr_array(x.multiply(self.idf)) if sp.issparse(x) else x * self.idf
        return normalize(x)

    def _centred(self, x: Features) -> Features:
        if self.mean is None:
            return x
        return (x.toarray() if sp.issparse(x) else x) - self.mean

    def _propagated(self, x: Features, graph: Graph) -> Features:
        return smooth(x, graph.adjacency, self.steps) if self.steps else x


def _is_bag_of_words(x: Features) -> bool:
    values = x.data if sp.issparse(x) else x
    present = np.count_nonzero(values)
    return present < 0.5 * x.shape[0] * x.shape[1] and bool(np.all((values >= 0) & (values == np.rint(values))))
