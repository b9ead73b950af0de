"""What ``graphclust data info`` tells of a graph or a stream."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components
from torch_geometric.data import Data, TemporalData

from graphclust.coerce import as_graph, is_temporal


def counts(data: Data | TemporalData) -> dict[str, int]:
    """``n_nodes``, and ``n_edges`` or of a stream ``n_events``."""
    if is_temporal(data):
        return {"n_nodes": int(data.n_nodes), "n_events": data.num_events}
    return {"n_nodes": int(data.num_nodes), "n_edges": data.edge_index.shape[1] // 2}


def summarise(data: Data | TemporalData) -> dict[str, Any]:
    """Numbers of nodes, edges, features and classes, degrees, components, and the share of same-class edges.

    ``homophily`` is the share of edges whose two ends have the same known class, over the edges whose ends are both
    known. Keys that have no meaning for ``data`` (features, classes) are None. Of a stream, ``n_edges`` counts the
    distinct pairs that meet, and all that is said of edges is said of these.
    """
    graph = as_graph(data)
    pairs, _ = graph.edges()
    degree = np.diff(graph.adjacency.indptr)
    components, of_node = connected_components(graph.adjacency, directed=False)
    result: dict[str, Any] = {
        "name": data.name, **counts(data), "n_edges": graph.m, **(_times(data) if is_temporal(data) else {}),
        "weighted": graph.is_weighted,
        "n_features": None, "feature_density": None, "n_classes": None, "class_sizes": None, "unlabelled": None,
        "homophily": None, "isolated_nodes": int((degree == 0).sum()), "components": int(components),
        "largest_component": int(np.bincount(of_node).max()),
        "degree": {"min": int(degree.min()), "median": float(np.median(degree)), "mean": float(degree.mean()),
                   "max": int(degree.max())},
        "original_ids": "node_id" in data,
    }
    if graph.x is not None:
        x = data.x
        filled = x._nnz() if x.is_sparse else int((x != 0).sum())
        result |= {"n_features": x.shape[1], "feature_density": filled / (x.shape[0] * x.shape[1])}
    if "y" in data:
        y = data.y.numpy()
        names = data.class_names if "class_names" in data else [str(c) for c in range(data.k)]
        sizes = np.bincount(y[y >= 0], minlength=data.k).tolist()
        source, target = y[pairs.T]
        known = (source >= 0) & (target >= 0)
        same = float((source == target)[known].mean()) if known.any() else None
        result |= {"n_classes": data.k, "class_sizes": dict(zip(names, sizes, strict=True)),
                   "unlabelled": int((y < 0).sum()), "homophily": same}
    return {**result, **data.info}


def _times(data: TemporalData) -> dict[str, Any]:
    times = data.t.numpy()
    return {"time": {"first": float(times[0]), "last": float(times[-1]), "distinct": len(np.unique(times))},
            "n_windows": len(data.y_windows) if "y_windows" in data else None}
