"""Edge lists and streams of events as text, with the node, label and feature files that may come along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from torch_geometric.data import Data, TemporalData

from graphclust.data.assemble import EdgePolicy, build
from graphclust.data.events import TIME, build_events, check_no_policy, read_times, time_column
from graphclust.data.tables import Table, read_table
from graphclust.graph import InputError

SOURCE = ("source", "src", "from", "u", "node1", "source_id", "fromnodeid", "citing")
TARGET = ("target", "dst", "to", "v", "node2", "target_id", "tonodeid", "cited")
WEIGHT = ("weight", "w")
NODE = ("id", "node", "node_id", "name", "vertex")
LABEL = ("label", "class", "y", "community", "cluster", "group")


def read_edgelist(
    path: Path, name: str, policy: EdgePolicy, *, weight: Any = None, time: Any = None, header: bool | None = None,
    source: Any = None, target: Any = None, nodes: str | None = None, labels: str | None = None,
    features: str | None = None, n: int | None = None,
) -> Data | TemporalData:
    """Read an edge list, or a stream of events where a column holds times.

    Parameters
    ----------
    path : comma-, tab-, semicolon- or space-separated text, .gz or not
    weight : column of the weights (name or 0-based number); False: none. Without it, a column named weight or w
    time : column of the times, numbers or ISO dates: the file is a stream; False: a static edge list. Without it, a
        column named time, timestamp, t...
    header : whether the first line names the columns; sniffed by default
    source, target : columns of the ends; by default the well-known names, or the first two columns but the times
    nodes : file with all node ids in its first column: fixes the order and keeps isolated nodes
    labels : file of node, label; ids that occur in no edge are isolated nodes
    features : .npy or scipy .npz, a row a node in the order of the nodes; or a text table of node, x1, x2...
    n : the ids are 0..n-1

    Raises
    ------
    InputError
        Whatever :func:`graphclust.data.tables.read_table` refuses, a missing column, three columns or more without
        header and without ``weight`` or ``time``, weights or times that are no numbers, negative times, an edge policy
        or weights for a stream, an edge to a node that ``nodes`` lacks.
    """
    # one or two letters may be the name of a node too: they do not make a header of a line
    known = {*SOURCE, *TARGET, *WEIGHT, *(word for word in TIME if len(word) > 2),
             *(str(c).lower() for c in (source, target, weight, time) if isinstance(c, str))}
    table = read_table(path, header, known)
    at = time_column(table, time, [c for c in (source, target, weight) if not isinstance(c, bool)])
    others = [i for i in range(table.frame.shape[1]) if i != at]
    if len(others) < 2:
        has = "one column" if at is None else "one column besides the times"
        raise InputError(f"{path} has {has}; an edge list needs two, separated by comma, tab, semicolon or space")
    ends = [_end(table, source, "source", SOURCE, others[0]), _end(table, target, "target", TARGET, others[1])]
    if at in ends:
        raise InputError(f"time = {time!r} is a column of node ids in {path}")
    if at is None:
        weights = _weights(table, weight, ends)
    else:
        check_no_policy(path, policy, weight)
        times = read_times(table, at)
        ignored = [str(c) for i, c in enumerate(table.frame.columns) if i not in (*ends, at)]
    edge_ids = table.ids(ends)
    label_table = _node_table(labels, edge_ids) if labels else None
    ids = _node_ids(edge_ids, nodes, label_table, n)
    edge_index = _positions(edge_ids, ids, f"{path}", nodes or "the list of nodes")
    about: dict[str, Any] = {
        "x": read_features(Path(features), ids) if features else None, "node_id": ids, "info": {"path": str(path)},
        "y": _labels(label_table, ids) if label_table is not None else None,
    }
    if at is None:
        return build(name, edge_index, len(ids), weights=weights, policy=policy, **about)
    about["info"] |= {"ignored_columns": ignored} if ignored else {}
    return build_events(name, edge_index[0], edge_index[1], times, len(ids), **about)


def _end(table: Table, which: Any, what: str, known: tuple[str, ...], default: int) -> int:
    if which is not None:
        return table.number(table.column(which, what))
    found = table.named(known) if table.has_header else None
    return default if found is None else found


def _weights(table: Table, which: Any, ends: list[int]) -> np.ndarray | None:
    if which is False:
        return None
    if which is None:
        which = table.named(WEIGHT)
        if which is None:
            if table.frame.shape[1] > 2 and not table.has_header:
                raise InputError(
                    f"{table.path} has {table.frame.shape[1]} columns and no header: say which one holds the weights, "
                    "such as weight=2 (counted from 0), or the times of a stream, such as time=2; weight=false: neither"
                )
            return None
    column = table.column(which, "weight")
    if table.number(column) in ends:
        raise InputError(f"weight = {which!r} is a column of node ids in {table.path}")
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        row = bad[0]
        raise InputError(f"{table.path}: row {row + 1} of the data has the weight {str(column.iloc[row])!r}, no number")
    return values


def _node_table(path: str, edge_ids: list[np.ndarray]) -> tuple[Table, np.ndarray]:
    """A table whose first column holds node ids, and those ids; as text when the edges' ids are text."""
    table = read_table(Path(path), None, {*NODE, *LABEL})
    (ids,) = table.ids([0])
    if edge_ids[0].dtype != ids.dtype and len(edge_ids[0]):
        if ids.dtype.kind != "i":
            raise InputError(
                f"{path} holds the node id {ids[0]!r} and the edges' ids are integers; use the same ids in both files"
            )
        ids = ids.astype(str).astype(object)
    return table, ids


def _node_ids(
    edge_ids: list[np.ndarray], nodes: str | None, label_table: tuple[Table, np.ndarray] | None, n: int | None
) -> np.ndarray:
    """All node ids in their order: as in the nodes file, or sorted."""
    if n is not None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"n = {n!r}; it must be an integer >= 1")
        return np.arange(n)
    if nodes:
        _, ids = _node_table(nodes, edge_ids)
        repeated = pd.Index(ids).duplicated()
        if repeated.any():
            raise InputError(f"{nodes} lists the node {ids[repeated].tolist()[0]!r} more than once")
        return ids
    parts = [*edge_ids, label_table[1]] if label_table is not None else edge_ids
    if all(p.dtype.kind == "i" for p in parts):
        low, high = min(p.min() for p in parts if len(p)), max(p.max() for p in parts if len(p))
        if low >= 0 and high < 4 * sum(map(len, parts)) + 1000:  # a table of the ids is smaller than a sort of them
            seen = np.zeros(high + 1, dtype=bool)
            for p in parts:
                seen[p] = True
            return np.flatnonzero(seen)
    return np.sort(pd.unique(np.concatenate(parts)))


def _positions(edge_ids: list[np.ndarray], ids: np.ndarray, path: str, whose: str) -> np.ndarray:
    """Edge ends as positions in ``ids``, shape (2, E)."""
    if ids.dtype.kind == "i" and edge_ids[0].dtype.kind == "i" and np.array_equal(ids, np.arange(len(ids))):
        found = np.stack(edge_ids)
        absent = (found < 0) | (found >= len(ids))
    else:
        index = pd.Index(ids)
        found = np.stack([index.get_indexer(pd.Index(p)) for p in edge_ids])
        absent = found < 0
    if absent.any():
        which, row = np.argwhere(absent)[0]
        node = edge_ids[which].tolist()[row]
        raise InputError(f"{path}: row {row + 1} of the data names the node {node!r}, which {whose} lacks")
    return found


def _labels(label_table: tuple[Table, np.ndarray], ids: np.ndarray) -> np.ndarray:
    table, labelled = label_table
    if table.frame.shape[1] < 2:
        raise InputError(f"{table.path} has one column; a label file needs two: node, label")
    column = _end(table, None, "label", LABEL, 1)
    at = pd.Index(ids).get_indexer(pd.Index(labelled))
    if (at < 0).any():
        raise InputError(f"{table.path} labels the node {labelled.tolist()[np.argmin(at)]!r}, which the graph lacks")
    repeated = pd.Index(labelled).duplicated()
    if repeated.any():
        raise InputError(f"{table.path} labels the node {labelled[repeated].tolist()[0]!r} more than once")
    values = table.frame.iloc[:, column]
    if values.dtype.kind in "iuf":
        y = np.full(len(ids), np.nan)
        y[at] = values.to_numpy()
        return y
    y = np.full(len(ids), None, dtype=object)
    y[at] = values.to_numpy(dtype=object)
    return y


def read_features(path: Path, ids: np.ndarray) -> Any:
    """Features from .npy, scipy .npz (rows in the order of ``ids``), or a text table whose first column is the node."""
    if path.suffix in (".npy", ".npz"):
        try:
            return np.load(path, allow_pickle=False) if path.suffix == ".npy" else sp.csr_array(sp.load_npz(path))
        except (OSError, ValueError, EOFError, KeyError) as e:
            raise InputError(f"features = {path} cannot be read as {path.suffix} ({e})") from e
    table, named = _node_table(str(path), [ids])
    repeated = pd.Index(named).duplicated()
    if repeated.any():
        raise InputError(
            f"features = {path} names the node {named[repeated].tolist()[0]!r} more than once; its first column "
            "must be the node, once each (for rows without ids in the order of the nodes use .npy)"
        )
    at = pd.Index(named).get_indexer(pd.Index(ids))
    if (at < 0).any():
        raise InputError(f"features = {path} has no row for the node {ids.tolist()[np.argmin(at)]!r}")
    try:
        return table.frame.iloc[at, 1:].to_numpy(dtype=np.float32)
    except ValueError as e:
        raise InputError(f"features = {path} holds something that is no number ({e})") from e
