"""graphclust: cluster the nodes of a graph, compare methods honestly."""

from graphclust.coerce import as_graph
from graphclust.graph import Graph, InputError

__version__ = "0.1.0"
__all__ = ["Graph", "InputError", "__version__", "as_graph"]
