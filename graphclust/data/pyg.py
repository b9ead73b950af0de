"""torch_geometric: its Data objects saved as .pt, and its own downloaders for users with the open network."""

from __future__ import annotations

import inspect
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric.datasets
from torch_geometric.data import Data, Dataset
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

from graphclust.data.assemble import EdgePolicy, build
from graphclust.data.catalogue import CATALOGUE, offline, pyg_folder
from graphclust.graph import InputError

_SAFE = [Data, DataEdgeAttr, DataTensorAttr, BaseStorage, GlobalStorage, NodeStorage, EdgeStorage]


def load_pyg(which: str, name: str | None = None) -> Data:
    """Load ``Class`` or ``Class/Name`` of ``torch_geometric.datasets``, downloading it on first use.

    Raises
    ------
    InputError
        No such class, a set of several graphs or of several node types, no network, GRAPHCLUST_OFFLINE.
    """
    name = name or which.replace("/", "-").lower()
    kind, _, part = which.partition("/")
    cls = getattr(torch_geometric.datasets, kind, None)
    if not inspect.isclass(cls) or not issubclass(cls, Dataset):
        raise InputError(f"torch_geometric has no data set class {kind!r}; write pyg:Class or pyg:Class/Name, such as "
                         "pyg:Planetoid/Cora")
    root, here = pyg_folder(which), pyg_folder(which).is_dir()
    needs_root = "root" in inspect.signature(cls).parameters
    if needs_root and offline() and not here:
        raise InputError(f"the data set {name} is not in {root} and downloads are forbidden by GRAPHCLUST_OFFLINE; "
                         f"allow them, or put {name}.npz in a folder and set GRAPHCLUST_DATA to it")
    arguments: dict[str, Any] = {"name": part} if part else {}
    try:
        if needs_root and not here:
            _download(cls, arguments, root)
        dataset: Any = cls(**arguments, **({"root": str(root)} if needs_root else {}))
    except Exception as e:  # each class downloads in its own way and fails in its own way
        advice = (f"delete {root} to have it downloaded again" if here else
                  f"it downloads from the open network; without one, put {name}.npz in a folder and set "
                  "GRAPHCLUST_DATA to it")
        raise InputError(f"torch_geometric could not provide {which} ({type(e).__name__}: {e}); {advice}") from e
    if len(dataset) != 1:
        raise InputError(f"{which} holds {len(dataset)} graphs; only sets of one graph can be clustered")
    entry = CATALOGUE.get(name)
    info = {"source": entry.source if entry else f"torch_geometric.datasets.{which}",
            "licence": entry.licence if entry else "see its source"}
    return from_pyg(dataset[0], name, EdgePolicy(multi_edges="first"), info, k=entry.k if entry else None)


def _download(cls: type[Dataset], arguments: dict[str, Any], root: Path) -> None:
    """Let ``cls`` download and read its files beside ``root``, then rename: its downloader keeps a file cut short."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=".fetch-") as folder:
        made = Path(folder) / "set"
        cls(**arguments, root=str(made))
        try:
            made.replace(root)
        except OSError:  # another process was faster
            if not root.is_dir():
                raise


def read_pt(path: Path, name: str, policy: EdgePolicy) -> Data:
    """Read a Data object, or a dict with ``edge_index``, saved by ``torch.save``; no code in the file is run.

    Raises
    ------
    InputError
        No such file, a file that needs more than tensors and Data, content that is no graph.
    """
    try:
        with torch.serialization.safe_globals(_SAFE):
            content = torch.load(path, weights_only=True, map_location="cpu")
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
    except pickle.UnpicklingError as e:
        raise InputError(
            f"{path} cannot be loaded safely (weights_only): it holds other objects than tensors in a Data, or is no "
            ".pt file. If you trust it, load it yourself and save a dict of its tensors: "
            "torch.save({'edge_index': ..., 'x': ..., 'y': ...}, path)"
        ) from e
    except Exception as e:  # on bytes that are no pickle torch's unpickler fails with whatever it runs into
        raise InputError(f"{path} is no .pt file, or a truncated one ({type(e).__name__})") from e
    if isinstance(content, tuple) and content:  # (data, slices, ...) of an InMemoryDataset
        content = content[0]
    if isinstance(content, dict):
        content = Data.from_dict(content)
    return from_pyg(content, name, policy, {"path": str(path)})


def from_pyg(data: Any, name: str, policy: EdgePolicy, info: dict[str, Any], k: int | None = None) -> Data:
    """A Data of any origin in the form that :func:`graphclust.data.load` returns."""
    if not isinstance(data, Data) or not isinstance(data.edge_index, torch.Tensor):
        raise InputError(f"{name} holds a {type(data).__name__} without edge_index; a Data of one node type is needed")
    y = data.y if isinstance(data.y, torch.Tensor) else None
    if y is not None and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y is not None and y.ndim != 1:
        info = {**info, "labels": f"left out: {y.shape[1]} labels a node, no partition"}
        y = None
    weights = data.edge_weight if "edge_weight" in data else data.edge_attr
    if weights is not None and weights.ndim > 1 and weights.shape[1] > 1:
        info = {**info, "edge_features": f"left out: {weights.shape[1]} values an edge, no weight"}
        weights = None
    n = int(data.num_nodes or 0)
    ids = data.node_id if "node_id" in data else None
    return build(
        name, data.edge_index.numpy(), n, weights=None if weights is None else weights.numpy().ravel(), policy=policy,
        x=data.x, y=None if y is None else y.numpy(), k=k,
        class_names=data.class_names if "class_names" in data else None,
        node_id=None if ids is None else np.asarray(ids), info=info,
    )
