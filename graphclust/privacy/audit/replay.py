"""Nothing after the noise may look at the graph: the same noisy values must give the same results on any graph."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
from sklearn.base import clone

from graphclust.graph import Graph
from graphclust.methods._private import PrivateClusterer
from graphclust.monitor import Monitor, Silent
from graphclust.privacy.audit.finding import Finding, delta_claimed, weight_of
from graphclust.privacy.audit.pairs import as_weighted, pairs
from graphclust.privacy.ledger import Event
from graphclust.privacy.sampling import Uniform


def replay(
    model: PrivateClusterer, n: int, trials: int, rng: np.random.Generator, monitor: Monitor | None = None
) -> Finding:
    """Fit on many graphs, each time with the count and the noisy matrix of one and the same, and compare everything.

    The labels, the embedding and the public part of the ledger must be equal, since they may depend on the edges by
    the count and the noisy matrix alone. Every fit has the same seed.

    Parameters
    ----------
    model : what is audited
    n : number of nodes, at least 4
    trials : number of graphs
    rng : decides on the graphs
    """
    monitor = monitor or Silent()
    monitor.start(trials, "replay")
    weight = weight_of(model)
    first = as_weighted(nx.to_numpy_array(nx.disjoint_union(nx.complete_graph(n // 2), nx.complete_graph(n - n // 2))),
                        weight)
    seed = int(rng.integers(2**31))
    kept: list[np.ndarray] = []
    edges = model.edge_count(first)
    want = _results(model, first, seed, edges, kept)
    faults: dict[str, int] = {}
    stream = pairs(n, weight, rng)
    for step in range(trials):
        got = _results(model, next(stream).one, seed, edges, kept)
        for name in want:
            if not np.array_equal(want[name], got[name]):
                faults[name] = faults.get(name, 0) + 1
        monitor.step(step, {})
    said = "; ".join(f"{name} depends on the graph ({count} of {trials})" for name, count in faults.items())
    return Finding("replay", float(model.epsilon), delta_claimed(model), None, None, trials, bool(faults),
                   said or "labels, embedding, events and public values are the same for the same noisy values")


def _results(
    model: PrivateClusterer, graph: Graph, seed: int, edges: int, kept: list[np.ndarray]
) -> dict[str, Any]:
    """Fit with this number of edges, and with the noisy matrix in ``kept``; the first fit puts it there."""
    copy = clone(model).set_params(random_state=seed, budget=None, force=True, n_init=1)
    real = copy.noisy

    def noisy(answer: np.ndarray, event: Event, uniform: Uniform) -> np.ndarray:
        drawn = real(answer, event, uniform)
        kept.extend([] if kept else [drawn])
        return kept[0].copy()

    vars(copy).update(edge_count=lambda graph: edges, noisy=noisy)
    copy.fit(graph)
    return {"labels": copy.labels_, "embedding": copy.embedding_, "chosen": copy.chosen_,
            "events": [e.model_dump() for e in copy.privacy_.events],
            **{f"public value {k}": v for k, v in copy.privacy_.public.items()}}
