"""The clusters that a federation over subgraphs finds among its clients' nodes, and the encoder that it leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor

from fedclust.algorithms.base import State, models
from fedclust.data.client import UNKNOWN, ClientData
from fedclust.data.graphs import Clustering, feature_transform
from fedclust.models import Model
from graphclust.graph import Graph
from graphclust.methods import get_method
from graphclust.methods._trained import save_autoencoder
from graphclust.metrics import evaluate

MEASURES = ("acc", "nmi", "ari", "f1")


def cluster_nodes(
    clients: Sequence[ClientData], embeddings: Mapping[str, Tensor], n_clusters: int, seed: int
) -> pd.DataFrame:
    """Clusters by graphclust's k-means (20 starts) on z / |z|, the geometry of the contrast.

    Parameters
    ----------
    clients : those without an embedding, which did not answer, are left out
    embeddings : z (n_i, latent) by client id
    n_clusters : K

    Returns
    -------
    one row a node: ``client``, ``node`` (its position in the client's graph), ``cluster`` among the nodes of all
    clients, ``own_cluster`` among those of its client alone, ``feature_cluster`` by k-means on the prepared features
    of all, ``label`` (-1: unknown), which nothing was computed from
    """
    there = [c for c in clients if c.id in embeddings]
    units = [torch.nn.functional.normalize(embeddings[c.id], dim=1).numpy() for c in there]
    features = [c.nodes.numpy() for c in there if c.nodes is not None]
    return pd.DataFrame({
        "client": np.repeat([c.id for c in there], [len(u) for u in units]),
        "node": np.concatenate([np.arange(len(u)) for u in units]),
        "cluster": _kmeans(np.concatenate(units), n_clusters, seed),
        "own_cluster": np.concatenate([_kmeans(u, n_clusters, seed) for u in units]),
        "feature_cluster": _kmeans(np.concatenate(features), n_clusters, seed),
        "label": np.concatenate([_labels(c, len(u)) for c, u in zip(there, units, strict=True)]),
    })


def node_metrics(nodes: pd.DataFrame) -> dict[str, float]:
    """How well the clusters of :func:`cluster_nodes` agree with the labels: ACC, NMI, ARI and macro F1.

    ``nodes_<measure>``: the common clusters; ``own_<measure>``: every client's own, mean over the clients with labels;
    ``features_<measure>``: k-means on the features.
    """
    own = [_agreement(mine, "own_cluster") for _, mine in nodes.groupby("client")]
    return {
        **{f"nodes_{m}": v for m, v in _agreement(nodes, "cluster").items()},
        **{f"own_{m}": float(np.nanmean([row[m] for row in own])) for m in MEASURES},
        **{f"features_{m}": v for m, v in _agreement(nodes, "feature_cluster").items()},
    }


def save_encoders(folder: Path, model: Model, state: State, rule: Clustering) -> list[Path]:
    """Write every group's auto-encoder with the preparation of the features, as graphclust loads it.

    The folders are ``encoder``, or ``encoder-0``, ``encoder-1``, ... of several groups; none when the models are not on
    the server (``local``).

    Parameters
    ----------
    state : of the algorithm, after the last round
    rule : how the clients prepared their features
    """
    held = models(state)
    k = len(next(iter(held.values())))
    if state["weights"].shape[1] != k:
        return []
    transform = feature_transform(rule, model.input_shape[0])
    folders = [folder / ("encoder" if k == 1 else f"encoder-{j}") for j in range(k)]
    for j, path in enumerate(folders):
        save_autoencoder(path, {name: t[j] for name, t in held.items()}, transform)
    return folders


def _kmeans(x: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    graph = Graph(csr_array((len(x), len(x)), dtype=np.float32), x)
    return get_method("kmeans")(min(n_clusters, len(x)), random_state=seed).fit(graph).labels_


def _labels(client: ClientData, n: int) -> np.ndarray:
    """(n,) the labels of the client's nodes, -1 where unknown."""
    labels = np.full(n, UNKNOWN)
    labels[client.test.x.numpy()] = client.test.y.numpy()
    return labels


def _agreement(nodes: pd.DataFrame, column: str) -> dict[str, float]:
    if (nodes["label"] == UNKNOWN).all():
        return dict.fromkeys(MEASURES, math.nan)
    return evaluate(nodes[column].to_numpy(), nodes["label"].to_numpy(), names=MEASURES)
