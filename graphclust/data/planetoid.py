"""The two layouts of the citation graphs: Planetoid's pickles, behind a restricted unpickler, and Cora's plain text."""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from graphclust.graph import InputError

Arrays = dict[str, Any]
"""edge_index (2, E) as listed by the source, x (n, d) CSR, y (n,) int64, class_names or None, node_id or None."""


CORA_CLASSES = ("Theory", "Reinforcement_Learning", "Genetic_Algorithms", "Neural_Networks", "Probabilistic_Methods",
                "Case_Based", "Rule_Learning")
"""In Planetoid's order, so that the classes have the numbers of the published results."""


class _Csr:
    """What a pickled scipy matrix becomes: a bag of its arrays, so that no scipy code runs on untrusted state."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.parts = state

    def matrix(self) -> sp.csr_array:
        p = self.parts
        return sp.csr_array((p["data"], p["indices"], p["indptr"]), shape=p["_shape"])


_RECONSTRUCT = np.empty(0).__reduce__()[0]  # numpy's own maker of empty arrays, wherever this version keeps it

_ADMITTED: dict[tuple[str, str], Any] = {
    ("scipy.sparse.csr", "csr_matrix"): _Csr,
    ("scipy.sparse._csr", "csr_matrix"): _Csr,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "defaultdict"): defaultdict,
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Rebuilds numpy arrays, CSR matrices and ``defaultdict(list)``; any other global is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The admitted object, or InputError."""
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise InputError(
                f"the pickle asks for {module}.{name}; only numpy arrays, scipy CSR matrices and defaultdict(list) are "
                "read from a data archive"
            ) from None


def unpickle(content: bytes) -> Any:
    """Load a Python 2 pickle through :class:`RestrictedUnpickler`."""
    try:
        value = RestrictedUnpickler(io.BytesIO(content), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError) as e:
        raise InputError(f"the archive's pickle is damaged ({e})") from e
    return value.matrix() if isinstance(value, _Csr) else value


def read_planetoid(member: Callable[[str], bytes]) -> Arrays:
    """Planetoid's ``ind.NAME.*``: ``member(part)`` gives the bytes of allx, tx, ally, ty, graph and test.index.

    The rows of ``tx`` belong to the nodes listed in ``test.index``, in that order. Citeseer's list has gaps: nodes that
    occur in the graph alone get zero features and, having no label, the class 0 that every published number gave them.
    """
    allx, tx = unpickle(member("allx")), unpickle(member("tx"))
    ally, ty = unpickle(member("ally")), unpickle(member("ty"))
    graph = unpickle(member("graph"))
    test = np.array(member("test.index").split(), dtype=np.int64)
    n, known = int(test.max()) + 1, allx.shape[0]
    rows = np.full(n, -1)
    rows[:known] = np.arange(known)
    rows[test] = known + np.arange(len(test))
    absent = rows < 0
    x = sp.vstack((allx, tx), format="csr")[np.maximum(rows, 0)]
    x = sp.csr_array(sp.diags_array((~absent).astype(np.float32)) @ x)
    x.eliminate_zeros()
    one_hot = np.vstack((ally, ty))[np.maximum(rows, 0)]
    y = np.where(absent, 0, one_hot.argmax(axis=1))
    source = np.repeat(np.fromiter(graph.keys(), np.int64, len(graph)), [len(v) for v in graph.values()])
    target = np.fromiter((t for v in graph.values() for t in v), np.int64, len(source))
    return {"edge_index": np.stack((source, target)), "x": x, "y": y.astype(np.int64)}


def read_cora(member: Callable[[str], bytes]) -> Arrays:
    """Cora's ``content`` (paper, 1,433 words, class) and ``cites`` (cited, citing), separated by tabs."""
    table = pd.read_csv(io.BytesIO(member("content")), sep="\t", header=None)
    papers = pd.Index(table[0].to_numpy())
    y = pd.Index(CORA_CLASSES).get_indexer(table.iloc[:, -1])
    if (y < 0).any():
        raise InputError(f"cora.content holds the class {table.iloc[int(np.argmin(y)), -1]!r}; known: {CORA_CLASSES}")
    cites = pd.read_csv(io.BytesIO(member("cites")), sep="\t", header=None).to_numpy()
    edge_index = papers.get_indexer(cites.ravel()).reshape(-1, 2).T
    x = sp.csr_array(table.iloc[:, 1:-1].to_numpy(dtype=np.float32))
    return {"edge_index": edge_index, "x": x, "y": y.astype(np.int64), "class_names": list(CORA_CLASSES),
            "node_id": papers.to_numpy()}
