"""Streams of events with planted communities: visible through timing alone, or changing over time."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch_geometric.data import TemporalData

from graphclust.data.catalogue import CATALOGUE
from graphclust.data.events import build_events
from graphclust.data.generators.sampling import real, whole
from graphclust.data.generators.sbm import block_sizes
from graphclust.graph import InputError


def sessions(
    n: int = 400, k: int = 4, sessions: int = 5, events: int = 10, gap: float = 1.0, pause: float = 100.0, seed: int = 0
) -> TemporalData:
    """Communities that only timing shows: who is met in the same session belongs together.

    Each node draws ``k * sessions * events`` partners, uniformly among all others, before there are communities. Then
    the nodes get communities at random, and each node meets its partners of one community in ``sessions`` short
    sessions, long pauses apart, those of all communities in random order. So the aggregated graph is independent of the
    communities, and no static method can know anything of them. (Had every node exactly as many events with each
    community, the communities would span the null space of the aggregated adjacency matrix: visible after all.)

    Parameters
    ----------
    n, k : nodes, and communities of equal sizes up to one node
    sessions : of each node with each community
    events : mean number of events in a session, which starts with its visitor as ``src``
    gap, pause : mean times between two events of a session, and between two sessions of a visitor (exponential)
    seed : of the one generator that draws everything

    Returns
    -------
    TemporalData with n * k * sessions * events events
    """
    n = whole("n", n, 2)
    k, sessions, events = whole("k", k, 1, n), whole("sessions", sessions, 1), whole("events", events, 1)
    gap, pause = real("gap", gap, 0, open_low=True), real("pause", pause, 0, open_low=True)
    rng = np.random.default_rng(whole("seed", seed, 0))
    each = k * sessions * events
    src = np.repeat(np.arange(n), each)
    dst = (src + rng.integers(1, n, n * each)) % n
    y = rng.permutation(np.repeat(np.arange(k), block_sizes(n, k, None)))
    group = src * k + y[dst]
    order = np.argsort(group, kind="stable")
    size = np.bincount(group, minlength=n * k)
    rank = np.arange(n * each) - np.repeat(np.cumsum(size) - size, size)
    # the partners of one community are dealt to its sessions in turn: their sizes differ by one at most
    session = group[order] * sessions + rank % sessions
    turn = rng.random(n * k * sessions).reshape(n, -1).argsort(axis=1).argsort(axis=1)
    played = src[order] * (k * sessions) + turn.ravel()[session]
    order = order[np.argsort(played, kind="stable")]
    played.sort()
    first = np.append(True, played[1:] != played[:-1])
    time = np.cumsum(rng.standard_exponential(n * each) * np.where(first, pause, gap))
    start = time[::each].copy()
    time -= np.repeat(start - rng.random(n) * pause, each)
    params = {"n": n, "k": k, "sessions": sessions, "events": events, "gap": gap, "pause": pause, "seed": seed}
    return build_events("sessions", src, dst[order], time, n, y=y, k=k, info=_info("sessions", params))


def drifting(
    n: int = 500, k: int = 5, windows: int = 10, events: float = 10.0, mixing: float = 0.2, move: float = 0.05,
    merge: list[Any] | None = None, split: list[Any] | None = None, birth: list[Any] | None = None,
    death: list[Any] | None = None, seed: int = 0,
) -> TemporalData:
    """Communities that change over time: a planted partition drawn anew in each of ``windows`` windows of length 1.

    ``y`` is the community of a node in the last window in which it has an event, -1 where it has none at all; these
    are 0..k-1, and communities of ``y_windows`` that are gone by then have higher numbers.

    Parameters
    ----------
    n, k : nodes, and communities of equal sizes up to one node at the start
    windows : their number; the times are in [0, windows)
    events : mean number of events of a node in a window
    mixing : share of the events that join two communities, in [0, 1]
    move : probability that a node goes over to another community between two windows
    merge : ``[window, a, b]``: from that window (1..windows-1) on, the nodes of b belong to a; or a list of such
    split : ``[window, a]``: half of a's nodes become a new community, numbered k, k + 1...; or a list of such
    birth : ``[window, a]``: a's nodes have no events before that window; or a list of such
    death : ``[window, a]``: a's nodes have no events from that window on; or a list of such
    seed : of the one generator that draws everything

    Raises
    ------
    InputError
        Parameters out of range, a change of a community that does not exist.
    """
    rng = np.random.default_rng(whole("seed", seed, 0))
    windows = whole("windows", windows, 1)
    events, mixing = real("events", events, 0, open_low=True), real("mixing", mixing, 0, 1)
    move = real("move", move, 0, 1)
    size = block_sizes(n, k, None)
    changes = _check_changes({"merge": merge, "split": split, "birth": birth, "death": death}, k, windows)
    of_node = rng.permutation(np.repeat(np.arange(k), size))
    alive = np.arange(k + len(changes["split"])) < k
    alive[[a for _, a in changes["birth"]]] = False
    y_windows, parts = np.full((windows, n), -1), []
    for w in range(windows):
        if w:
            _move(of_node, alive, move, rng)
            _change(of_node, alive, {name: [row[1:] for row in rows if row[0] == w] for name, rows in changes.items()},
                    k + sum(at < w for at, _ in changes["split"]), rng)
        src, dst = _partition_events(of_node, alive, events, mixing, rng)
        # the sum may round up to the next window's start
        parts.append((src, dst, np.minimum(w + rng.random(len(src)), np.nextafter(w + 1.0, 0))))
        for ends in (src, dst):
            y_windows[w, ends] = of_node[ends]
    src, dst, time = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    y = y_windows[windows - 1 - (y_windows[::-1] >= 0).argmax(axis=0), np.arange(n)]
    last = np.unique(y[y >= 0])
    order = np.concatenate((last, np.setdiff1d(np.arange(len(alive)), last)))
    number = np.append(np.argsort(order), -1)  # the last one for the -1 of the nodes without event
    params = {"n": n, "k": k, "windows": windows, "events": events, "mixing": mixing, "move": move, **changes,
              "seed": seed}
    return build_events("drifting", src, dst, time, n, y=number[y], k=len(last), y_windows=number[y_windows],
                        window_edges=np.arange(windows + 1.0), info=_info("drifting", params))


def _check_changes(given: dict[str, list[Any] | None], k: int, windows: int) -> dict[str, list[list[int]]]:
    """Each kind of change as a list of [window, community...], in the order of the windows."""
    changes = {}
    for name, value in given.items():
        rows = [] if value is None else value
        rows = rows if isinstance(rows, list) and all(isinstance(row, list) for row in rows) else [rows]
        width = 3 if name == "merge" else 2
        for row in rows:
            fits = isinstance(row, list) and len(row) == width and all(type(v) is int and v >= 0 for v in row)
            if not fits or not 1 <= row[0] < windows:
                raise InputError(f"{name} = {row!r}; it must be [window{', community' * (width - 1)}], the window in "
                                 f"1..{windows - 1}")
        changes[name] = sorted(rows)
    for name, rows in changes.items():
        for at, *who in rows:
            there = k + sum(before < at for before, _ in changes["split"])
            if max(who) >= there or len(set(who)) < len(who):
                raise InputError(f"{name} = {[at, *who]}: before window {at} there are the communities 0..{there - 1}, "
                                 "and a merge needs two of them")
    return changes


def _change(
    of_node: np.ndarray, alive: np.ndarray, now: dict[str, list[list[int]]], new: int, rng: np.random.Generator
) -> None:
    """Carry out the changes of one window; the communities that splits make are numbered from ``new``."""
    for split, (a,) in enumerate(now["split"], start=new):
        members = rng.permutation(np.flatnonzero(of_node == a))
        of_node[members[: len(members) // 2]] = split
        alive[split] = alive[a]
    for a, b in now["merge"]:
        of_node[of_node == b] = a
        alive[b] = False
    for name, lives in (("birth", True), ("death", False)):
        alive[[a for (a,) in now[name]]] = lives


def _move(of_node: np.ndarray, alive: np.ndarray, move: float, rng: np.random.Generator) -> None:
    """Nodes of living communities go over to another one, each with probability ``move``."""
    living = np.flatnonzero(alive)
    if len(living) < 2:
        return
    moving = np.flatnonzero(alive[of_node] & (rng.random(len(of_node)) < move))
    at = np.searchsorted(living, of_node[moving])
    of_node[moving] = living[(at + rng.integers(1, len(living), len(moving))) % len(living)]


def _partition_events(
    of_node: np.ndarray, alive: np.ndarray, events: float, mixing: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Events among the nodes of living communities: a random node with another of its community, or of the others."""
    nodes = np.flatnonzero(alive[of_node])
    nodes = nodes[np.argsort(of_node[nodes], kind="stable")]
    total = len(nodes)
    size = np.bincount(of_node[nodes], minlength=len(alive))
    position = rng.integers(0, total, round(total * events / 2)) if total else np.empty(0, np.int64)
    community = of_node[nodes[position]]
    first, mine = (np.cumsum(size) - size)[community], size[community]
    outside = rng.random(len(position)) < mixing
    keep = np.where(outside, mine < total, mine > 1)  # a lonely node, or a lonely community, has nobody to meet
    step = rng.random(len(position))
    inner = first + (position - first + 1 + (step * (mine - 1)).astype(np.int64)) % mine
    outer = (first + mine + (step * (total - mine)).astype(np.int64)) % max(total, 1)
    return nodes[position][keep], nodes[np.where(outside, outer, inner)][keep]


def _info(name: str, params: dict[str, Any]) -> dict[str, Any]:
    entry = CATALOGUE[name]
    return {"source": entry.source, "licence": entry.licence, "parameters": params, "policy": "generated stream"}
