"""The federation that a declaration describes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fedclust.data.client import Federation
from fedclust.data.cutting import build_cut, build_files, build_nodes
from fedclust.data.draw import Draw
from fedclust.data.drawing import build_drawn
from fedclust.data.folder import Files
from fedclust.data.graphs import Nodes
from fedclust.data.spec import FederationSpec, Stored


def build_federation(spec: FederationSpec) -> Federation:
    """Build every client that ``spec`` declares, or read those that are stored; deterministic, no global randomness.

    Raises
    ------
    InputError
        Settings that do not fit the source; a client without samples, by its id; a broken file, by its name; stored
        samples that have changed.
    """
    if spec.stored is not None:
        return _read(spec.stored)
    if isinstance(spec.partition, Draw):
        return build_drawn(spec)
    if isinstance(spec.partition, Files):
        return build_files(spec)
    if isinstance(spec.partition, Nodes):
        return build_nodes(spec)
    return build_cut(spec)


@lru_cache(maxsize=2)
def _read(stored: Stored) -> Federation:
    """The stored federation; its files are hashed, and if they were changed each is read, and so only once."""
    from fedclust.data.artefact import load  # with pandas, which no other federation needs

    return load(Path(stored.folder), stored.digest)[0]
