"""Random graphs and streams with planted communities; all the randomness of each comes from ``seed``."""

from collections.abc import Callable

from torch_geometric.data import Data, TemporalData

from graphclust.data.generators.attributed import asbm
from graphclust.data.generators.hierarchical import hsbm
from graphclust.data.generators.lfr import lfr
from graphclust.data.generators.sbm import dcsbm, sbm
from graphclust.data.generators.temporal import drifting, sessions

GENERATORS: dict[str, Callable[..., Data | TemporalData]] = {
    "sbm": sbm, "dcsbm": dcsbm, "lfr": lfr, "asbm": asbm, "hsbm": hsbm, "sessions": sessions, "drifting": drifting,
}

__all__ = ["GENERATORS", "asbm", "dcsbm", "drifting", "hsbm", "lfr", "sbm", "sessions"]
