"""Load graphs by name, from files, or from generators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphclust.data.catalogue import CATALOGUE, Entry, data_names
from graphclust.data.reference import parse_ref

if TYPE_CHECKING:
    from graphclust.data.loading import load

__all__ = ["CATALOGUE", "Entry", "data_names", "load", "parse_ref"]


def __getattr__(name: str) -> Any:
    """``load`` brings torch with it, which takes seconds: only who asks for it waits."""
    if name == "load":
        from graphclust.data.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
