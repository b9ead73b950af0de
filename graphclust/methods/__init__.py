"""Every clusterer, one a file, found by its file name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from graphclust.graph import InputError
from graphclust.methods.base import Clustering, GraphClusterer

__all__ = ["Clustering", "GraphClusterer", "get_method", "method_names"]


def method_names() -> list[str]:
    """Names of all methods, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and not m.name.startswith("_"))


def get_method(name: str) -> type[GraphClusterer]:
    """The clusterer class called ``name``; InputError, with the nearest name, when there is none."""
    if name not in method_names():
        near = difflib.get_close_matches(name, method_names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"unknown method {name!r}; {hint}the methods are: {', '.join(method_names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    return next(
        c for c in vars(module).values() if isinstance(c, type) and issubclass(c, GraphClusterer)
        and c.__module__ == module.__name__ and getattr(c, "name", None) == name
    )
