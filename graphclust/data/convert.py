"""Writing a graph or a stream in each of the formats that are read, and saying what a format cannot hold."""

from __future__ import annotations

import gzip
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import igraph
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp
from torch_geometric.data import Data, TemporalData

from graphclust.atomic import write_atomic
from graphclust.coerce import is_temporal
from graphclust.data.files import suffix
from graphclust.data.npz import write_npz
from graphclust.data.summary import counts
from graphclust.graph import InputError


def save(data: Data | TemporalData, path: Path) -> tuple[str, list[str]]:
    """Write ``data`` to ``path`` in the format of its suffix: .npz, .csv, .tsv, .txt, .graphml, .mtx; .gz but for npz.

    A stream is written as npz or text.

    Parameters
    ----------
    data : what :func:`graphclust.data.load` returned

    Returns
    -------
    ref : str
        The reference that loads it again; a text edge list has its nodes and labels in a second file.
    lost : list of str
        What the format cannot hold and ``data`` has.

    Raises
    ------
    InputError
        An unknown suffix, a stream or ids or class names that the format cannot hold.
    """
    writer = WRITERS.get(suffix(path))
    if writer in (_graphml, _mtx) and is_temporal(data):
        raise InputError(f"{path}: {suffix(path)} cannot hold the times of a stream; write .npz, .csv, .tsv or .txt")
    if writer is None or (path.suffix == ".gz" and suffix(path) == ".npz"):
        raise InputError(f"{path} has the suffix {path.suffix!r}, which no writer knows; known: {', '.join(WRITERS)}")
    return writer(data, path)


def edge_table(data: Data) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Each edge once: sources and targets (m,) with source < target, and weights (m,) or None."""
    source, target = data.edge_index.numpy()
    once = source < target
    weights = data.edge_weight.numpy()[once] if "edge_weight" in data else None
    return source[once], target[once], weights


def label_names(data: Data | TemporalData) -> np.ndarray | None:
    """The class of each node as text, "" where it is unknown; None without labels."""
    if "y" not in data or data.y is None:
        return None
    y = data.y.numpy()
    names = np.asarray(data.class_names if "class_names" in data else [str(c) for c in range(data.k)], dtype=object)
    return np.where(y >= 0, names[np.maximum(y, 0)], "")


def _npz(data: Data | TemporalData, path: Path) -> tuple[str, list[str]]:
    write_npz(data, path)
    return str(path), []


def _text(data: Data | TemporalData, path: Path) -> tuple[str, list[str]]:
    separator = "," if suffix(path) == ".csv" else "\t"
    ids = np.asarray(data.node_id if "node_id" in data else np.arange(counts(data)["n_nodes"]))
    if isinstance(data, TemporalData):
        columns = {"source": ids[data.src.numpy()], "target": ids[data.dst.numpy()], "time": data.t.numpy()}
    else:
        source, target, weights = edge_table(data)
        columns = {"source": ids[source], "target": ids[target]}
        if weights is not None:
            columns["weight"] = weights
    _write(path, _csv(columns, separator))
    labels = label_names(data)
    stem = Path(path.name.removesuffix(".gz")).stem
    nodes = path.with_name(f"{stem}.nodes{path.name.removeprefix(stem)}")
    _write(nodes, _csv({"id": ids} if labels is None else {"id": ids, "label": labels}, separator))
    ref = f"{path}:nodes={nodes}" + ("" if labels is None else f",labels={nodes}")
    return ref, _lost(data, "features", "y_levels", "y_windows")


def _graphml(data: Data, path: Path) -> tuple[str, list[str]]:
    source, target, weights = edge_table(data)
    graph = igraph.Graph(n=data.num_nodes, edges=np.column_stack((source, target)))
    if "node_id" in data:
        graph.vs["name"] = [str(i) for i in data.node_id]
    labels = label_names(data)
    if labels is not None:
        graph.vs["label"] = labels.tolist()
    if weights is not None:
        graph.es["weight"] = weights.astype(float).tolist()
    with tempfile.NamedTemporaryFile(suffix=".graphml") as plain:
        try:
            graph.write_graphml(plain.name)
        except igraph.InternalError as e:
            raise InputError(f"{path}: GraphML cannot hold these ids or labels ({str(e).splitlines()[0]})") from e
        _write(path, Path(plain.name).read_bytes())
    return str(path) if labels is None else f"{path}:label=label", _lost(data, "features", "y_levels")


def _mtx(data: Data, path: Path) -> tuple[str, list[str]]:
    source, target = data.edge_index.numpy()
    weights = data.edge_weight.numpy() if "edge_weight" in data else np.ones(len(source), dtype=np.int8)
    matrix = sp.coo_array((weights, (source, target)), shape=(data.num_nodes, data.num_nodes))
    buffer = io.BytesIO()
    scipy.io.mmwrite(buffer, matrix, field=None if "edge_weight" in data else "pattern", symmetry="symmetric")
    _write(path, buffer.getvalue())
    return str(path), _lost(data, "ids", "labels", "features", "y_levels")


def _csv(columns: dict[str, np.ndarray], separator: str) -> bytes:
    return pd.DataFrame(columns).to_csv(sep=separator, index=False).encode()


def _write(path: Path, content: bytes) -> None:
    write_atomic(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _lost(data: Data | TemporalData, *words: str) -> list[str]:
    fields = {"ids": "node_id", "labels": "y", "features": "x"}
    return [word for word in words if getattr(data, fields.get(word, word), None) is not None]


WRITERS: dict[str, Callable[[Any, Path], tuple[str, list[str]]]] = {
    ".npz": _npz, ".csv": _text, ".tsv": _text, ".txt": _text, ".graphml": _graphml, ".mtx": _mtx,
}
