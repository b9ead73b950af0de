"""From raw arrays to the Data that every reader and generator returns: edge policy, label codes, features."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch_geometric.data import Data, TemporalData

from graphclust.graph import InputError, check_features, check_ids

SPARSE_BELOW = 0.1
"""Features with a smaller share of non-zeros are kept sparse."""

CHOICES: dict[str, tuple[Any, ...]] = {
    "directed": ("symmetrise", "error", True, False),
    "self_loops": ("drop", "error"),
    "multi_edges": ("sum", "first", "max", "error"),
}


@dataclass(frozen=True)
class EdgePolicy:
    """What to do with edges that an undirected simple graph cannot hold.

    Attributes
    ----------
    directed : {"symmetrise", "error", True, False}
        "symmetrise" (True means the same): an arc in either direction becomes an edge of the larger weight of the two,
        so that a file may list each edge once or in both directions. "error": an arc without its equal reverse is
        refused. False: rows have no direction, ``a b`` and ``b a`` are repetitions of one edge.
    self_loops : {"drop", "error"}
    multi_edges : {"sum", "first", "max", "error"}
        The weight of an edge that is listed several times.
    """

    directed: str | bool = "symmetrise"
    self_loops: str = "drop"
    multi_edges: str = "sum"

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            value = getattr(self, key)
            if not any(value is a or (isinstance(a, str) and value == a) for a in allowed):
                words = ", ".join(str(a).lower() for a in allowed)
                raise InputError(f"{key} = {value!r} is unknown; allowed: {words}")


def clean_edges(
    edge_index: np.ndarray, n: int, weights: np.ndarray | None, policy: EdgePolicy
) -> tuple[sp.csr_array, dict[str, int]]:
    """Apply ``policy``: a symmetric (n, n) float32 matrix without diagonal, and the count of each thing done.

    Raises
    ------
    InputError
        Ids outside 0..n-1, weights that are NaN, infinite or negative, and what the policy refuses.
    """
    source, target = (np.asarray(part) for part in edge_index)
    if len(source) and (min(source.min(), target.min()) < 0 or max(source.max(), target.max()) >= n):
        high = max(source.max(), target.max())
        bad = int(high if high >= n else min(source.min(), target.min()))
        raise InputError(f"edge_index holds node id {bad}; with n = {n} nodes the ids must lie in 0..{n - 1}")
    data = np.ones(len(source), dtype=np.float32) if weights is None else _check_weights(weights, len(source))
    keep = source != target
    loops = len(source) - int(np.count_nonzero(keep))
    if loops and policy.self_loops == "error":
        raise InputError(f"{loops} self-loops, the first at node {source[~keep][0]}; self_loops=drop drops them")
    zeros = 0 if weights is None else int(np.count_nonzero(data[keep] == 0))
    if weights is not None:
        keep &= data != 0
    if loops or zeros:
        source, target, data = source[keep], target[keep], data[keep]
    if policy.directed is False:
        source, target = np.minimum(source, target), np.maximum(source, target)
    arcs, merged = _merge(source, target, data, n, policy)
    reverse = arcs.T.tocsr()
    both = arcs.maximum(reverse)
    one_way = both.nnz - arcs.nnz
    if policy.directed == "error" and (one_way or (arcs != reverse).nnz):
        raise InputError(
            f"the graph is directed: {one_way} arcs have no reverse, or one of another weight; "
            "directed=symmetrise makes an edge of each"
        )
    counts = {"dropped_self_loops": loops, "dropped_zero_weights": zeros, "merged_multi_edges": merged,
              "symmetrised_edges": 0 if policy.directed is False else one_way}
    matrix = sp.csr_array(both.astype(np.float32, copy=False))
    matrix.sort_indices()
    return matrix, counts


def _check_weights(weights: np.ndarray, rows: int) -> np.ndarray:
    data = np.asarray(weights, dtype=np.float64).ravel()
    if len(data) != rows:
        raise InputError(f"{len(data)} edge weights for {rows} edges; there must be one per edge")
    if not np.all(np.isfinite(data)):
        raise InputError("the edge weights hold NaN or infinite values; give finite, non-negative weights")
    if rows and data.min() < 0:
        raise InputError(f"the edge weights hold the negative value {data.min():g}; only weights >= 0 are allowed")
    return data


def _merge(
    source: np.ndarray, target: np.ndarray, data: np.ndarray, n: int, policy: EdgePolicy
) -> tuple[sp.csr_array, int]:
    """One entry per ordered pair; the number of rows that were repetitions."""
    matrix = sp.coo_array((data, (source, target)), shape=(n, n)).tocsr()
    merged = len(data) - matrix.nnz
    if not merged or policy.multi_edges == "sum":
        return matrix, merged
    key = source.astype(np.int64) * n + target
    if policy.multi_edges == "first":
        _, pick = np.unique(key, return_index=True)
    else:
        order = np.lexsort((-data, key))
        ordered = key[order]
        pick = order[np.append(True, ordered[1:] != ordered[:-1])]
    if policy.multi_edges == "error":
        i = np.setdiff1d(np.arange(len(key)), pick)[0]
        raise InputError(
            f"{merged} edges are listed more than once, such as ({source[i]}, {target[i]}); "
            "choose multi_edges=sum, first or max"
        )
    return sp.coo_array((data[pick], (source[pick], target[pick])), shape=(n, n)).tocsr(), merged


def from_pairs(low: np.ndarray, high: np.ndarray, n: int) -> sp.csr_array:
    """The symmetric matrix of distinct pairs ``low[i] < high[i]``: the generators' way past the policy."""
    index = (np.concatenate((low, high)), np.concatenate((high, low)))
    matrix = sp.coo_array((np.ones(len(index[0]), dtype=np.float32), index), shape=(n, n)).tocsr()
    matrix.sort_indices()
    return matrix


def encode_labels(labels: Any) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Codes 0..k-1 of a label vector, shape (n,), with -1 where it is unknown.

    Negative integers, NaN, None and empty strings are unknown. Codes that are 0..k-1 already stay; anything else is
    numbered in sorted order, and the third result holds the original names.
    """
    labels = np.asarray(labels).ravel()
    if labels.dtype.kind in "iub":
        known = labels >= 0 if labels.dtype.kind == "i" else np.ones(len(labels), dtype=bool)
    elif labels.dtype.kind == "f":
        known = np.isfinite(labels)
        if np.all(labels[known] == np.floor(labels[known])):
            return encode_labels(np.where(known, labels, -1).astype(np.int64))
    else:
        labels = np.array(["" if v is None or v != v else str(v) for v in labels.tolist()])
        known = labels != ""
    names, codes = np.unique(labels[known], return_inverse=True)
    y = np.full(len(labels), -1, dtype=np.int64)
    y[known] = codes
    plain = names.dtype.kind in "iu" and np.array_equal(names, np.arange(len(names)))
    return y, len(names), None if plain else names


def sparse_tensor(x: sp.sparray) -> torch.Tensor:
    """A float32 COO tensor of a scipy matrix, marked coalesced without a second sort."""
    csr = sp.csr_array(x, dtype=np.float32)
    csr.sum_duplicates()
    coo = csr.tocoo()
    index = torch.from_numpy(np.stack(coo.coords).astype(np.int64))
    return torch.sparse_coo_tensor(
        index, torch.from_numpy(coo.data), coo.shape, is_coalesced=True, check_invariants=False
    )


def scipy_features(x: torch.Tensor) -> sp.csr_array:
    """The scipy matrix of a sparse tensor."""
    x = x.to_sparse_coo().coalesce()
    rows, cols = x.indices().numpy()
    return sp.coo_array((x.values().numpy(), (rows, cols)), shape=tuple(x.shape)).tocsr()


def feature_tensor(x: Any, n: int) -> torch.Tensor | None:
    """Checked features as float32, sparse when less than ``SPARSE_BELOW`` of the entries are not zero."""
    x = check_features(x, n)
    if x is None:
        return None
    filled = (x.count_nonzero() if sp.issparse(x) else np.count_nonzero(x)) / (x.shape[0] * x.shape[1])
    if filled < SPARSE_BELOW:
        return sparse_tensor(sp.csr_array(x))
    return torch.from_numpy(np.ascontiguousarray(x.toarray() if sp.issparse(x) else x))


def make_data(
    name: str,
    adjacency: sp.csr_array,
    *,
    x: Any = None,
    y: Any = None,
    k: int | None = None,
    class_names: Any = None,
    node_id: Any = None,
    info: dict[str, Any] | None = None,
) -> Data:
    """The Data of a clean symmetric ``adjacency``; ``y`` goes through :func:`encode_labels`."""
    n = adjacency.shape[0]
    source = np.repeat(np.arange(n, dtype=np.int64), np.diff(adjacency.indptr))
    data = Data(edge_index=torch.from_numpy(np.stack((source, adjacency.indices.astype(np.int64)))), num_nodes=n)
    data.x = feature_tensor(x, n)
    if np.any(adjacency.data != 1):
        data.edge_weight = torch.from_numpy(adjacency.data.astype(np.float32))
    describe_nodes(data, n, y=y, k=k, class_names=class_names, node_id=node_id)
    data.name = name
    data.info = info or {}
    return data


def describe_nodes(
    data: Data | TemporalData, n: int, *, y: Any = None, k: int | None = None, class_names: Any = None,
    node_id: Any = None,
) -> None:
    """Give ``data`` its labels (``y``, ``k``, ``class_names``), and ``node_id`` unless the ids are 0..n-1."""
    if y is not None:
        _set_labels(data, n, y, k, class_names)
    ids = check_ids(node_id, n)
    if ids is not None and not (ids.dtype.kind in "iu" and np.array_equal(ids, np.arange(n))):
        data.node_id = ids


def build(
    name: str, edge_index: np.ndarray, n: int, *, weights: Any = None, policy: EdgePolicy | None = None, **rest: Any
) -> Data:
    """Apply the edge policy to a raw edge list, record it in ``info``, and make the Data."""
    if n < 1:
        raise InputError(f"{name} is an empty graph: n = 0 nodes; at least one node is needed")
    policy = policy or EdgePolicy()
    matrix, counts = clean_edges(edge_index, n, weights, policy)
    info = {**rest.pop("info", {}), "policy": {**asdict(policy), **counts}}
    return make_data(name, matrix, info=info, **rest)


def _set_labels(data: Data | TemporalData, n: int, y: Any, k: int | None, class_names: Any) -> None:
    y = np.asarray(y)
    if len(y) != n:
        raise InputError(f"{len(y)} labels for n = {n} nodes; there must be one per node (-1: unknown)")
    if class_names is not None and y.dtype.kind in "iu":
        codes, k = y.astype(np.int64), len(class_names)
        if len(y) and codes.max() >= k:
            raise InputError(f"label {codes.max()} has no name: class_names holds {k} names, labels must be 0..{k - 1}")
        codes = np.maximum(codes, -1)
    else:
        codes, found, class_names = encode_labels(y)
        k = max(k or 0, found)
        if not k:  # every label is unknown
            return
    data.y = torch.from_numpy(codes)
    data.k = int(k)
    if class_names is not None:
        data.class_names = [str(c) for c in class_names]
