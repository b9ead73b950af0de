"""A run's partition in the forms that other programs read: CSV, npz, GraphML; and reading one back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from graphclust.atomic import write_atomic
from graphclust.graph import Graph, InputError


def export_labels(run_dir: Path, graph: Graph, labels: np.ndarray, *, graphml: bool = False) -> list[Path]:
    """Write ``labels.csv`` (node, cluster) and ``labels.npz`` (node_id, labels), and ``graph.graphml`` if asked.

    Nodes carry the user's ids; GraphML stores them as ``name`` and the cluster as the node attribute ``cluster``.
    """
    ids = np.arange(graph.n) if graph.node_ids is None else np.asarray(graph.node_ids)
    if ids.dtype == object:
        ids = ids.astype(str)
    table = pd.DataFrame({"node": ids, "cluster": labels})
    paths = [run_dir / "labels.csv", run_dir / "labels.npz"]
    write_atomic(paths[0], table.to_csv(index=False))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, node_id=ids, labels=labels)
    write_atomic(paths[1], buffer.getvalue())
    if graphml:
        import igraph

        pairs, weights = graph.edges()
        g = igraph.Graph(n=graph.n, edges=pairs.tolist())
        g.vs["name"] = [str(i) for i in ids]
        g.vs["cluster"] = labels.tolist()
        if graph.is_weighted:
            g.es["weight"] = weights.tolist()
        paths.append(run_dir / "graph.graphml")
        temporary = run_dir / ".graph.graphml.tmp"
        g.write_graphml(str(temporary))
        temporary.replace(paths[-1])
    return paths


def read_labels(path: Path, graph: Graph) -> np.ndarray:
    """Read a partition of ``graph``'s nodes from .npy, .npz (``labels``) or a CSV with columns node, cluster.

    Raises
    ------
    InputError
        A missing file, unknown or missing nodes, another number of nodes than the graph's.
    """
    if not path.is_file():
        raise InputError(f"the labels file {path} does not exist")
    if path.suffix == ".npy":
        labels = np.load(path, allow_pickle=False)
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as z:
            if "labels" not in z:
                raise InputError(f"{path} has no array 'labels'; it has: {', '.join(z.files)}")
            labels = z["labels"]
    else:
        return _read_csv(path, graph)
    if labels.shape != (graph.n,):
        raise InputError(f"{path} has labels of shape {labels.shape}; the graph has {graph.n} nodes")
    return labels


def _read_csv(path: Path, graph: Graph) -> np.ndarray:
    table = pd.read_csv(path, dtype=str)
    if not {"node", "cluster"} <= set(table.columns):
        raise InputError(f"{path} has the columns {', '.join(table.columns)}; it needs node and cluster")
    ids = range(graph.n) if graph.node_ids is None else graph.node_ids
    wanted = pd.Index([str(i) for i in ids])
    column = table.drop_duplicates("node").set_index("node")["cluster"]
    missing, unknown = wanted.difference(column.index), column.index.difference(wanted)
    if len(missing) or len(unknown):
        which = f"lacks node {missing[0]!r}" if len(missing) else f"names node {unknown[0]!r}, unknown to the graph"
        raise InputError(f"{path} {which}; it must hold each of the {graph.n} nodes once")
    return pd.factorize(column.loc[wanted])[0]
