"""Streams: the column of the times in a text file, and the TemporalData that every reader and generator returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import TemporalData

from graphclust.data.assemble import CHOICES, EdgePolicy, describe_nodes, feature_tensor
from graphclust.data.tables import Table
from graphclust.graph import InputError
from graphclust.stream import build_stream

TIME = ("time", "timestamp", "datetime", "date", "unixtime", "unix_time", "epoch", "ts", "t")


def time_column(table: Table, which: Any, taken: list[Any]) -> int | None:
    """The position of the column of times: the one that ``which`` names or numbers, else that of a well-known name.

    None for a static edge list: ``which`` is False, or there is no such name but in ``taken``. Beside a column ``s``,
    and of two columns, ``t`` is the target.
    """
    if which is False:
        return None
    if which is not None:
        return table.number(table.column(which, "time"))
    one_letter = table.frame.shape[1] > 2 and table.named("s") is None
    found = table.named(name for name in TIME if name != "t" or one_letter)
    return None if found is None or table.frame.columns[found] in taken or found in taken else found


def read_times(table: Table, at: int) -> np.ndarray:
    """The times as numbers, (E,) float64; ISO dates as seconds since 1970 (UTC where they name no zone).

    Raises
    ------
    InputError
        A time that is neither, or negative, with its row.
    """
    column = table.frame.iloc[:, at]
    if column.dtype.kind not in "iuf" and pd.to_numeric(column.iloc[:1], errors="coerce").isna().any():
        dates = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
        values = (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    else:
        values = pd.to_numeric(column, errors="coerce")
    times = values.to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(times) | (times < 0))
    if len(wrong):
        row = wrong[0]
        raise InputError(f"{table.path}: row {row + 1} of the data has the time {str(column.iloc[row])!r}; times must "
                         "be numbers >= 0, or ISO dates from 1970 on")
    return times


def check_no_policy(path: Path, policy: EdgePolicy | None, weight: Any = None) -> None:
    """Refuse, for a stream, what is said of the edges of a static graph."""
    if policy not in (None, EdgePolicy()) or (weight is not None and weight is not False):
        raise InputError(f"{path} is a stream of events, which have no weight and are all kept but self-loops; leave "
                         f"out weight, {', '.join(CHOICES)}, or read a text file as a static graph with time=false")


def build_events(
    name: str, src: np.ndarray, dst: np.ndarray, time: np.ndarray, n: int, *, x: Any = None,
    info: dict[str, Any] | None = None, y_windows: np.ndarray | None = None, window_edges: np.ndarray | None = None,
    **nodes: Any,
) -> TemporalData:
    """Apply the policy of :func:`graphclust.stream.build_stream`, record it in ``info``, and make the TemporalData.

    ``info["policy"]`` counts the self-loops that were dropped and the rows that came earlier than the row before them.

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
    data.info = {"policy": {"dropped_self_loops": len(src) - stream.m, "steps_back_in_time": late}, **(info or {})}
    return data
