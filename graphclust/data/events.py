"""From raw events to the TemporalData that every reader and generator of a stream returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch_geometric.data import TemporalData

from graphclust.data.assemble import describe_nodes, feature_tensor
from graphclust.stream import build_stream


def build_events(
    name: str, src: np.ndarray, dst: np.ndarray, time: np.ndarray, n: int, *, x: Any = None,
    info: dict[str, Any] | None = None, y_windows: np.ndarray | None = None, window_edges: np.ndarray | None = None,
    **nodes: Any,
) -> TemporalData:
    """Apply the policy of :func:`graphclust.stream.build_stream`, record it in ``info``, and make the TemporalData.

    Parameters
    ----------
    src, dst, time : arrays of shape (E,), in any order
    y_windows : (W, n) int, the labels of each time window, -1 where a node has no event in it
    window_edges : (W + 1,), the times that bound the windows
    **nodes : y, k, class_names, node_id, as :func:`graphclust.data.assemble.describe_nodes` takes them

    Raises
    ------
    InputError
        Whatever ``build_stream`` refuses, labels or ids that are not one a node.
    """
    stream = build_stream(src, dst, time, n)
    data = TemporalData(torch.from_numpy(stream.src), torch.from_numpy(stream.dst), torch.from_numpy(stream.time))
    data.n_nodes = n
    if x is not None:
        data.x = feature_tensor(x, n)
    describe_nodes(data, n, **nodes)
    if y_windows is not None and window_edges is not None:
        data.y_windows = torch.from_numpy(np.asarray(y_windows, dtype=np.int64))
        data.window_edges = torch.from_numpy(np.asarray(window_edges, dtype=np.float64))
    data.name = name
    late = int(np.count_nonzero(np.diff(np.asarray(time, dtype=np.float64)) < 0))
    data.info = {**(info or {}), "policy": {"dropped_self_loops": len(src) - stream.m, "steps_back_in_time": late}}
    return data


def node_count(data: Any) -> int:
    """The number of nodes of what ``load`` returned; a TemporalData's own ``num_nodes`` forgets those without event."""
    return int(data.n_nodes if "n_nodes" in data else data.num_nodes)
