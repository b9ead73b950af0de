"""``load``: one door to every data set, whatever its kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch_geometric.data import Data, TemporalData

from graphclust.data import embedded_sets
from graphclust.data.archives import ARCHIVED, load_archived
from graphclust.data.assemble import CHOICES, EdgePolicy
from graphclust.data.catalogue import CATALOGUE, PYG_SETS, check_params, local_copy, unknown_name
from graphclust.data.files import READERS, read_file, suffix
from graphclust.data.generators import GENERATORS
from graphclust.data.npz import read_npz
from graphclust.data.pyg import load_pyg
from graphclust.data.reference import parse_ref
from graphclust.graph import InputError


def load(ref: str, **params: Any) -> Data | TemporalData:
    """Load a data set.

    Parameters
    ----------
    ref : str
        ``NAME_OR_PATH[:key=value,...]``, see :func:`graphclust.data.parse_ref`; the names are in the catalogue
        (:func:`graphclust.data.data_names`). A file named ``NAME.npz`` in the folder GRAPHCLUST_DATA comes first.
    **params
        Parameters of the set; they override those of ``ref``.

    Returns
    -------
    torch_geometric.data.Data
        ``edge_index`` (2, 2m) int64, each edge in both directions, sorted, no self-loops, no repetitions;
        ``edge_weight`` (2m,) float32 unless all are 1; ``x`` (n, d) float32, sparse COO when less than a tenth is
        filled, None without features; ``y`` (n,) int64, -1 unknown, and ``k``, the number of classes, when there are
        labels; ``class_names``; ``node_id`` (n,) the file's ids unless they are 0..n-1; ``name``; ``info`` (source,
        licence, the edge policy and what it did).
    torch_geometric.data.TemporalData
        Of a stream of events: ``src``, ``dst`` (E,) int64 and ``t`` (E,) float64 in the set's unit, sorted by time, no
        self-loops, repeated events kept; ``n_nodes``; ``x``, where there are features, ``y``, ``k``, ``class_names``,
        ``node_id``, ``name`` and ``info`` as above; of planted communities that change ``y_windows`` (W, n) int64, -1
        where a node has no event in the window, and ``window_edges`` (W + 1,) float64.

    Raises
    ------
    InputError
        Unknown name or parameter, a missing, broken or incomplete file, a set that is not here and cannot be fetched.
    """
    name, given = parse_ref(ref)
    given |= params
    entry = CATALOGUE.get(name)
    if name in GENERATORS:
        return _call(name, GENERATORS[name], given)
    own = local_copy(name)
    if own is not None:
        check_params(f"{name} (from {own})", given, list(CHOICES))
        declared = {key: getattr(entry, key) for key in ("k", "source", "licence")} if entry else {}
        return read_npz(own, name, EdgePolicy(**given), **declared)
    if name in embedded_sets.LOADERS:
        return _call(name, embedded_sets.LOADERS[name], given)
    if name in ARCHIVED:
        check_params(name, given, [])
        return load_archived(name, ARCHIVED[name])
    if name in PYG_SETS or name.startswith("pyg:"):
        check_params(name, given, [])
        return load_pyg(PYG_SETS[name], name) if name in PYG_SETS else load_pyg(name.removeprefix("pyg:"))
    if entry is not None:
        raise InputError(f"the data set {name} is not on this machine and no archive holds it; put {name}.npz in a "
                         "folder and set GRAPHCLUST_DATA to it")
    path = Path(name).expanduser()
    if path.exists() or "/" in name or suffix(path) in READERS:
        return read_file(path, given)
    raise unknown_name(name)


def _call(name: str, function: Callable[..., Any], given: dict[str, Any]) -> Data | TemporalData:
    check_params(name, given, list(inspect.signature(function).parameters))
    return function(**given)
