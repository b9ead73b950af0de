"""graphclust: cluster the nodes of a graph, compare methods honestly."""

from graphclust.graph import Graph, InputError, as_graph

__version__ = "0.1.0"
__all__ = ["Graph", "InputError", "__version__", "as_graph"]
