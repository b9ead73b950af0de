"""One client as an npz file: ``train_x``, ``train_y``, the same for test and validation, and the subgraph if any."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from fedclust.data.client import ClientData, Split
from fedclust.data.images import read_arrays
from graphclust.graph import InputError

SPLITS = ("train", "test", "validation")


def client_bytes(client: ClientData) -> bytes:
    """The client as an npz file; the id is the file's stem."""
    arrays: dict[str, np.ndarray] = {}
    for name in SPLITS:
        split: Split = getattr(client, name)
        arrays[f"{name}_x"], arrays[f"{name}_y"] = split.x.numpy(), split.y.numpy()
    if client.nodes is not None:
        arrays["nodes"] = client.nodes.numpy()
    if client.adjacency is not None:
        a = client.adjacency.to_sparse_coo().coalesce()
        arrays["adjacency_index"], arrays["adjacency_values"] = a.indices().numpy(), a.values().numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def read_client(path: Path) -> ClientData:
    """What :func:`client_bytes` wrote, the adjacency dense; InputError naming a broken or incomplete file."""
    arrays = {k: torch.from_numpy(v) for k, v in read_arrays(path).items()}
    missing = [f"{s}_{a}" for s in SPLITS for a in "xy" if f"{s}_{a}" not in arrays]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; a client's file holds x and y of {', '.join(SPLITS)}")
    splits = {s: Split(arrays[f"{s}_x"], arrays[f"{s}_y"].long()) for s in SPLITS}
    nodes, adjacency = arrays.get("nodes"), None
    if nodes is not None and "adjacency_index" in arrays:
        n = len(nodes)
        adjacency = torch.sparse_coo_tensor(
            arrays["adjacency_index"], arrays["adjacency_values"], (n, n), check_invariants=True
        ).to_dense()
    return ClientData(path.stem, **splits, nodes=nodes, adjacency=adjacency)


def is_split(path: Path) -> bool:
    """Whether the file holds a client with its splits, rather than samples to be split."""
    return path.suffix == ".npz" and "train_x" in read_arrays(path)
