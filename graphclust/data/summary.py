"""What ``graphclust data info`` tells of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from torch_geometric.data import Data


def summarise(data: Data) -> dict[str, Any]:
    """Numbers of nodes, edges, features and classes, degrees, components, and the share of same-class edges.

    ``homophily`` is the share of edges whose two ends have the same known class, over the edges whose ends are both
    known. Keys that have no meaning for ``data`` (features, classes) are None.
    """
    n = int(data.num_nodes)
    source, target = data.edge_index.numpy()
    degree = np.bincount(source, minlength=n)
    adjacency = sp.csr_array((np.ones(len(source), dtype=np.int8), (source, target)), shape=(n, n))
    components, of_node = connected_components(adjacency, directed=False)
    result: dict[str, Any] = {
        "name": data.name, "n_nodes": n, "n_edges": len(source) // 2, "weighted": "edge_weight" in data,
        "n_features": None, "feature_density": None, "n_classes": None, "class_sizes": None, "unlabelled": None,
        "homophily": None, "isolated_nodes": int((degree == 0).sum()), "components": int(components),
        "largest_component": int(np.bincount(of_node).max()),
        "degree": {"min": int(degree.min()), "median": float(np.median(degree)), "mean": float(degree.mean()),
                   "max": int(degree.max())},
        "original_ids": "node_id" in data,
    }
    if data.x is not None:
        filled = data.x._nnz() if data.x.is_sparse else int((data.x != 0).sum())
        result |= {"n_features": data.x.shape[1], "feature_density": filled / (data.x.shape[0] * data.x.shape[1])}
    if "y" in data:
        y = data.y.numpy()
        names = data.class_names if "class_names" in data else [str(c) for c in range(data.k)]
        sizes = np.bincount(y[y >= 0], minlength=data.k).tolist()
        known = (y[source] >= 0) & (y[target] >= 0)
        same = float((y[source] == y[target])[known].mean()) if known.any() else None
        result |= {"n_classes": data.k, "class_sizes": dict(zip(names, sizes, strict=True)),
                   "unlabelled": int((y < 0).sum()), "homophily": same}
    return {**result, **data.info}
