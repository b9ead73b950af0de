"""Random graphs with planted communities. Each function returns a Data; all its randomness comes from ``seed``."""

from collections.abc import Callable

from torch_geometric.data import Data

from graphclust.data.generators.attributed import asbm
from graphclust.data.generators.hierarchical import hsbm
from graphclust.data.generators.lfr import lfr
from graphclust.data.generators.sbm import dcsbm, sbm

GENERATORS: dict[str, Callable[..., Data]] = {"sbm": sbm, "dcsbm": dcsbm, "lfr": lfr, "asbm": asbm, "hsbm": hsbm}

__all__ = ["GENERATORS", "asbm", "dcsbm", "hsbm", "lfr", "sbm"]
