"""The table of data sets that have a name, and the errors for names that are not in it."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from graphclust.graph import InputError


class Entry(BaseModel, frozen=True):
    """One named data set.

    ``n`` nodes, ``m`` undirected edges after the default policy, ``d`` features, ``k`` classes that the set declares;
    None where it depends on parameters. Of a stream ``m`` counts the distinct pairs, and ``events`` the events.
    ``fetchable``: ``graphclust data fetch`` can bring it. ``file``: the stem of the user's own copy, where it differs.
    """

    name: str
    kind: Literal["embedded", "generator", "archive", "pyg", "file"]
    n: int | None = None
    m: int | None = None
    d: int | None = None
    k: int | None = None
    events: int | None = None
    stream: bool = False
    source: str
    licence: str
    fetchable: bool = False
    note: str = ""
    file: str = ""


_PLANETOID = "Sen et al. 2008, split of Yang et al. 2016 (arXiv 1603.08861)"
_PITFALLS = "Shchur et al. 2018 (arXiv 1811.05868)"
_SDCN = "Bo et al. 2020 (arXiv 2002.01633)"
_OWN_COPY = "put your own NAME.npz in the folder GRAPHCLUST_DATA"
_OPEN = "research use; no licence stated by the source"
_CONTACTS = "CC BY-NC-SA"
_TGC = "Liu et al. 2024 (arXiv 2305.10738)"

_ENTRIES = [
    Entry(name="debtopics13", kind="embedded", n=3399, m=5705, d=703, k=13, source="Debian bookworm package index",
          licence="package metadata (facts)", note="packages, dependencies, archive sections, description words"),
    Entry(name="karate", kind="embedded", n=34, m=78, k=2, source="Zachary 1977 (DOI 10.1086/jar.33.4.3629752)",
          licence="BSD-3-Clause (networkx)", note="weighted; classes: the club's two factions"),
    Entry(name="digits-knn", kind="embedded", n=1797, m=6310, d=64, k=10, source="UCI optdigits, scikit-learn's copy",
          licence="CC BY 4.0", note="symmetric nearest-neighbour graph; parameter k=5"),
    Entry(name="sbm", kind="generator", source="Holland et al. 1983 (DOI 10.1016/0378-8733(83)90021-7)",
          licence="generated", note="n, k, p_in, p_out or degree_in, degree_out, sizes, seed"),
    Entry(name="dcsbm", kind="generator", source="Karrer and Newman 2011 (arXiv 1008.3926)", licence="generated",
          note="as sbm, exponent, max_ratio"),
    Entry(name="lfr", kind="generator", source="Lancichinetti et al. 2008 (arXiv 0805.4770)", licence="generated",
          note="n, mu, tau1, tau2, average_degree, max_degree, min_community, max_community, seed"),
    Entry(name="asbm", kind="generator", source="Deshpande et al. 2018 (arXiv 1807.09596)", licence="generated",
          note="as sbm, d, features=gaussian|binary, signal, noise"),
    Entry(name="hsbm", kind="generator", source="Dreveton et al. 2023 (arXiv 2306.00833)", licence="generated",
          note="depth, arity, leaf_size, a_leaf, beta, seed"),
    Entry(name="sessions", kind="generator", stream=True, source="communities in the timing alone, this project",
          licence="generated", note="n, k, sessions, events, gap, pause, seed"),
    Entry(name="drifting", kind="generator", stream=True, source="planted partition in each time window, this project",
          licence="generated", note="n, k, windows, events, mixing, move, merge, split, birth, death, seed"),
    Entry(name="cora", kind="archive", n=2708, m=5278, d=1433, k=7, source=_PLANETOID, licence=_OPEN, fetchable=True),
    Entry(name="citeseer", kind="archive", n=3327, m=4552, d=3703, k=6, source=_PLANETOID, licence=_OPEN,
          fetchable=True, note="48 isolated nodes"),
    Entry(name="pubmed", kind="archive", n=19717, m=44324, d=500, k=3, source=_PLANETOID, licence=_OPEN,
          fetchable=True),
    Entry(name="amazon_photo", kind="pyg", n=7650, m=119081, d=745, k=8, source=_PITFALLS, licence=_OPEN,
          fetchable=True),
    Entry(name="amazon_computers", kind="pyg", n=13752, m=245861, d=767, k=10, source=_PITFALLS, licence=_OPEN,
          fetchable=True),
    Entry(name="coauthor_cs", kind="pyg", n=18333, m=81894, d=6805, k=15, source=_PITFALLS, licence=_OPEN,
          fetchable=True),
    Entry(name="coauthor_physics", kind="pyg", n=34493, m=247962, d=8415, k=5, source=_PITFALLS, licence=_OPEN,
          fetchable=True),
    Entry(name="wikics", kind="pyg", n=11701, d=300, k=10, source="Mernyei and Cangea 2020 (arXiv 2007.02901)",
          licence="MIT", fetchable=True),
    Entry(name="blogcatalog", kind="pyg", n=5196, d=8189, k=6, source="Yang et al. 2020 (arXiv 2009.00826)",
          licence=_OPEN, fetchable=True),
    Entry(name="flickr", kind="pyg", n=7575, d=12047, k=9, source="Yang et al. 2020 (arXiv 2009.00826)",
          licence=_OPEN, fetchable=True),
    Entry(name="acm", kind="file", n=3025, m=13128, d=1870, k=3, source=_SDCN, licence=_OPEN, note=_OWN_COPY),
    Entry(name="dblp", kind="file", n=4057, m=3528, d=334, k=4, source=_SDCN, licence=_OPEN, note=_OWN_COPY),
    Entry(name="usps", kind="file", n=9298, m=21452, d=256, k=10, source=_SDCN, licence=_OPEN, note=_OWN_COPY),
    Entry(name="school", kind="archive", fetchable=True, stream=True, n=327, m=5818, k=9, events=188508,
          source="Mastrandrea et al. 2015 (DOI 10.1371/journal.pone.0136497)", licence=_CONTACTS,
          note="high school 2013; static methods solve it; person 28 is in class 2BIO1 here, 2BIO2 in other copies"),
    Entry(name="primary_school", kind="archive", fetchable=True, stream=True, n=242, m=8317, k=11, events=125773,
          source="Stehle et al. 2011 (DOI 10.1371/journal.pone.0023176)", licence=_CONTACTS,
          note="one of the 11 classes is the teachers"),
    Entry(name="highschool_2012", kind="archive", fetchable=True, stream=True, n=180, m=2220, k=5, events=45047,
          source="Fournet and Barrat 2014 (DOI 10.1371/journal.pone.0107878)", licence=_CONTACTS),
    Entry(name="hospital", kind="archive", fetchable=True, stream=True, n=75, m=1139, k=4, events=32424,
          source="Vanhems et al. 2013 (DOI 10.1371/journal.pone.0073970)", licence=_CONTACTS,
          note="the classes are roles, not communities"),
    Entry(name="workplace", kind="archive", fetchable=True, stream=True, n=92, m=755, k=5, events=9827,
          source="Genois et al. 2015 (DOI 10.1017/nws.2015.10)", licence=_CONTACTS, note="departments"),
    Entry(name="patent", kind="file", stream=True, n=12214, m=41916, k=6, events=41916, source=_TGC, licence=_OPEN,
          note=_OWN_COPY),
    Entry(name="dblp_temporal", kind="file", stream=True, n=28085, m=150568, k=10, events=222165, source=_TGC,
          licence=_OPEN, note="co-authors by year; own copy: temporal/dblp.npz in the folder GRAPHCLUST_DATA",
          file="dblp"),
]

PYG_SETS = {
    "amazon_photo": "Amazon/Photo",
    "amazon_computers": "Amazon/Computers",
    "coauthor_cs": "Coauthor/CS",
    "coauthor_physics": "Coauthor/Physics",
    "wikics": "WikiCS",
    "blogcatalog": "AttributedGraphDataset/BlogCatalog",
    "flickr": "AttributedGraphDataset/Flickr",
}
"""The class of torch_geometric, and the set's name in it, of each set of the kind pyg."""

CATALOGUE: dict[str, Entry] = {e.name: e for e in _ENTRIES}


def data_names() -> list[str]:
    """The names that :func:`graphclust.data.load` knows, in the catalogue's order."""
    return list(CATALOGUE)


def unknown_name(name: str) -> InputError:
    """The refusal of a name that is neither in the catalogue nor a file, with the nearest name and the whole list."""
    near = difflib.get_close_matches(name.lower(), CATALOGUE, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return InputError(
        f"unknown data set {name!r}{hint} Known: {', '.join(CATALOGUE)}; 'pyg:Class/Name' asks torch_geometric; "
        "a file is given by its path"
    )


def check_params(name: str, given: dict[str, object], allowed: list[str]) -> None:
    """Refuse parameters that ``name`` does not take, with the nearest one."""
    for key in given:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            words = ", ".join(allowed) if allowed else "none"
            raise InputError(f"{name} has no parameter {key!r}{hint}; it takes: {words}")


def data_folder() -> Path | None:
    """The user's own folder of data sets, searched first: the environment variable GRAPHCLUST_DATA."""
    value = os.environ.get("GRAPHCLUST_DATA")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise InputError(f"GRAPHCLUST_DATA = {value} is no folder; set it to the folder of your npz files, or unset it")
    return folder


def local_copy(name: str) -> Path | None:
    """``NAME.npz``, ``graphs/NAME.npz`` or ``temporal/NAME.npz`` in :func:`data_folder`.

    A graph and a stream of the catalogue may share a file name: each is looked for among its own kind.
    """
    folder = data_folder()
    if folder is None or "/" in name:
        return None
    entry = CATALOGUE.get(name)
    places = [f"{name}.npz"]
    if entry is None or not entry.stream:
        places.append(f"graphs/{name}.npz")
    if entry is None or entry.stream:
        places += [f"temporal/{name}.npz", *([f"temporal/{entry.file}.npz"] if entry and entry.file else [])]
    return next((path for path in (folder / place for place in places) if path.is_file()), None)


def cache_folder() -> Path:
    """Where fetched sets are kept: ``$XDG_CACHE_HOME/graphclust``, or ``~/.cache/graphclust``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "graphclust"


def pyg_folder(which: str) -> Path:
    """Where torch_geometric's ``Class/Name`` is kept; it appears in one rename, when download and reading are done."""
    return cache_folder() / "pyg" / which.replace("/", "-")


def cached(name: str) -> Path | None:
    """The cached file, ``NAME-<first 16 hex digits of its sha256>.npz``: content and checksum appear in one rename.

    Of a set of torch_geometric its folder.
    """
    which = PYG_SETS.get(name, name.removeprefix("pyg:") if name.startswith("pyg:") else "")
    if which:
        return pyg_folder(which) if pyg_folder(which).is_dir() else None
    return next(iter(sorted(cache_folder().glob(f"{name}-{'[0-9a-f]' * 16}.npz"))), None)


def describe() -> list[dict[str, Any]]:
    """The catalogue as rows: the fields of :class:`Entry`, and ``here``, whether loading needs no download."""
    return [
        {**e.model_dump(), "here": e.kind in ("embedded", "generator") or bool(local_copy(e.name) or cached(e.name))}
        for e in CATALOGUE.values()
    ]


def offline() -> bool:
    """True when GRAPHCLUST_OFFLINE forbids downloads."""
    return os.environ.get("GRAPHCLUST_OFFLINE", "") not in ("", "0")
