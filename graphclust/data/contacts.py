"""Face-to-face contacts (SocioPatterns): lines of time, two persons and, mostly, the class of each."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pandas as pd

from graphclust.data.planetoid import Arrays
from graphclust.graph import InputError


def read_contacts(member: Callable[[str], bytes]) -> Arrays:
    """Lines ``t i j Ci Cj``, separated by white space; the nodes are the persons, by id."""
    table = _table(member("csv"))
    who = pd.DataFrame({"person": np.concatenate((table[1], table[2])), "class": np.concatenate((table[3], table[4]))})
    return _arrays(table, who)


def read_workplace(member: Callable[[str], bytes]) -> Arrays:
    """Lines ``t i j``, and a table whose columns ``nodeName`` and ``class`` hold each person and department."""
    who = pd.read_csv(io.BytesIO(member("_meta.csv")))
    return _arrays(_table(member(".dat")), who[["nodeName", "class"]].set_axis(["person", "class"], axis=1))


def _table(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content), sep=r"\s+", header=None, keep_default_na=False)


def _arrays(table: pd.DataFrame, who: pd.DataFrame) -> Arrays:
    who = who.drop_duplicates().sort_values("person")
    repeated = who["person"].duplicated()
    if repeated.any():
        raise InputError(f"the archive gives the person {who['person'][repeated].iloc[0]} two classes")
    persons = pd.Index(who["person"])
    src, dst = persons.get_indexer(table[1]), persons.get_indexer(table[2])
    if min(src.min(), dst.min()) < 0:
        raise InputError("the archive gives no class of a person who has contacts")
    return {"src": src, "dst": dst, "time": table[0].to_numpy(), "y": who["class"].to_numpy(dtype=object),
            "node_id": persons.to_numpy()}
