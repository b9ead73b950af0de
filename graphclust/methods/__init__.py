"""Every clusterer, one a file, found by its file name."""

from __future__ import annotations

import sys

from graphclust.methods.base import Clustering, GraphClusterer
from graphclust.registry import class_in, names_in

__all__ = ["Clustering", "GraphClusterer", "get_method", "method_names"]


def method_names() -> list[str]:
    """Names of all methods, sorted."""
    return names_in(sys.modules[__name__])


def get_method(name: str) -> type[GraphClusterer]:
    """The clusterer class called ``name``; InputError, with the nearest name, when there is none."""
    return class_in(sys.modules[__name__], name, GraphClusterer, "method")
