"""Load graphs by name, from files, or from generators."""

from graphclust.data.catalogue import CATALOGUE, Entry, data_names
from graphclust.data.loading import load
from graphclust.data.reference import parse_ref

__all__ = ["CATALOGUE", "Entry", "data_names", "load", "parse_ref"]
