"""Graph files of every format that is read: the choice by suffix, GraphML and Matrix Market."""

from __future__ import annotations

import inspect
import io
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.io
import scipy.sparse as sp
from torch_geometric.data import Data

from graphclust.data.assemble import CHOICES, EdgePolicy, build
from graphclust.data.catalogue import check_params
from graphclust.data.edgelist import read_edgelist, read_features
from graphclust.data.npz import read_npz
from graphclust.data.pyg import read_pt
from graphclust.data.tables import integers_if_all, read_bytes
from graphclust.graph import InputError

if TYPE_CHECKING:
    import igraph


def suffix(path: Path) -> str:
    """The format's suffix, without .gz."""
    return (Path(path.stem) if path.suffix == ".gz" else path).suffix.lower()


def read_file(path: Path, params: dict[str, Any]) -> Data:
    """Read a graph file; its format is that of its suffix.

    Parameters
    ----------
    path : .npz, .csv .tsv .txt .edges .edgelist .el (text, .gz too), .graphml (.gz too), .mtx (.gz too), .pt
    params : the edge policy (directed, self_loops, multi_edges, see :class:`graphclust.data.assemble.EdgePolicy`) and
        the parameters of the format's reader

    Raises
    ------
    InputError
        No such file, an unknown suffix or parameter, and what the reader refuses.
    """
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(f"the data file {path} {what}")
    reader = READERS.get(suffix(path))
    if reader is None:
        raise InputError(f"{path} has the suffix {suffix(path)!r}, which no reader knows; known: {', '.join(READERS)}")
    own = [p for p in inspect.signature(reader).parameters if p not in ("path", "name", "policy")]
    if "declared" in own:
        own.remove("declared")
    check_params(f"a {suffix(path)} file", params, [*CHOICES, *own])
    policy = EdgePolicy(**{key: params[key] for key in CHOICES if key in params})
    rest = {key: value for key, value in params.items() if key not in CHOICES}
    return reader(path, path.name.split(".")[0], policy, **rest)


def read_graphml(
    path: Path, name: str, policy: EdgePolicy, *, weight: str = "weight", label: str | None = None,
    features: str | None = None,
) -> Data:
    """Read GraphML with igraph; of a graph that it declares undirected, direction is meaningless.

    Parameters
    ----------
    weight : edge attribute of the weights, if there is one
    label : node attribute of the classes; by default ``label`` or ``class``, unless every node has another value
    features : as in :func:`graphclust.data.edgelist.read_edgelist`
    """
    import igraph  # 30 MB, with matplotlib: only who reads GraphML pays

    try:
        with tempfile.NamedTemporaryFile(suffix=".graphml") as plain, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a clash of XML id and id attribute: the attribute wins
            plain.write(read_bytes(path))
            plain.flush()
            graph = igraph.Graph.Read_GraphML(plain.name)
    except igraph.InternalError as e:
        raise InputError(f"{path} is no valid GraphML ({str(e).splitlines()[0]})") from e
    n, there = graph.vcount(), graph.vs.attributes()
    if label is not None and label not in there:
        raise InputError(f"{path} has no node attribute {label!r}; its attributes: {', '.join(there)}")
    ids = _graphml_ids(graph)
    y = None
    for attribute in [label] if label is not None else [a for a in ("label", "class") if a in there]:
        values = graph.vs[attribute]
        if label is not None or len(set(values)) < n:
            y = np.asarray(values) if all(isinstance(v, float) for v in values) else np.asarray(values, dtype=object)
            break
    weights = np.asarray(graph.es[weight], dtype=float) if weight in graph.es.attributes() else None
    if weights is None and weight != "weight" and graph.ecount():
        raise InputError(f"{path} has no edge attribute {weight!r}; its attributes: {', '.join(graph.es.attributes())}")
    if not graph.is_directed():
        policy = replace(policy, directed=False)
    edges = np.asarray(graph.get_edgelist(), dtype=np.int64).reshape(-1, 2).T
    x = read_features(Path(features), np.arange(n) if ids is None else ids) if features else None
    return build(name, edges, n, weights=weights, policy=policy, x=x, y=y, node_id=ids, info={"path": str(path)})


def _graphml_ids(graph: igraph.Graph) -> np.ndarray | None:
    """The nodes' names (attribute ``name``, else the XML ids); None where they are the n0, n1... of igraph's writer."""
    for attribute in ("name", "id"):
        if attribute in graph.vs.attributes():
            values = [str(v) for v in graph.vs[attribute]]
            if attribute == "id" and values == [f"n{i}" for i in range(len(values))]:
                return None
            if len(set(values)) == len(values):
                return integers_if_all(np.asarray(values, dtype=object))
    return None


def read_mtx(
    path: Path, name: str, policy: EdgePolicy, *, weight: bool = True, features: str | None = None
) -> Data:
    """Read a Matrix Market file as adjacency matrix; ``weight=False``: every stored entry is an edge of weight 1."""
    try:
        matrix = scipy.io.mmread(io.BytesIO(read_bytes(path)), spmatrix=False)
    except (ValueError, OverflowError, TypeError) as e:
        raise InputError(f"{path} is no valid Matrix Market file ({e})") from e
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{path}: the matrix has shape {matrix.shape}; an adjacency matrix must be square")
    matrix = sp.coo_array(matrix)
    n = matrix.shape[0]
    if np.iscomplexobj(matrix.data):
        raise InputError(f"{path} holds complex numbers; edge weights must be real")
    x = read_features(Path(features), np.arange(n)) if features else None
    return build(name, np.stack(matrix.coords), n, weights=matrix.data if weight else None, policy=policy, x=x,
                 info={"path": str(path)})


_TEXT = (".csv", ".tsv", ".txt", ".edges", ".edgelist", ".el")

READERS: dict[str, Callable[..., Data]] = {
    ".npz": read_npz, **dict.fromkeys(_TEXT, read_edgelist), ".graphml": read_graphml, ".mtx": read_mtx,
    ".pt": read_pt, ".pth": read_pt,
}
