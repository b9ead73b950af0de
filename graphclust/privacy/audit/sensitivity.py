"""Does one edge ever move the answer by more than the stated sensitivity, or anything public at all?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from graphclust.graph import Graph
from graphclust.methods._private import PrivateClusterer
from graphclust.monitor import Monitor, Silent
from graphclust.privacy.accountant import epsilon_of
from graphclust.privacy.audit.finding import Finding, delta_claimed, events_before, weight_of
from graphclust.privacy.audit.pairs import Pair, pairs
from graphclust.privacy.ledger import Event
from graphclust.privacy.sampling import os_uniform


@dataclass(frozen=True)
class Moved:
    """How far the answer moved on one pair: ``ratio`` is ||change||, upper triangle, over the stated sensitivity."""

    pair: Pair
    density: float
    event: Event
    one: np.ndarray
    two: np.ndarray
    ratio: float


def claim_of(event: Event, delta: float, share: float = 1.0) -> float:
    """The epsilon at ``delta`` of an event when the answer moves by ``share`` of its sensitivity."""
    if event.mu is None:
        return float(event.loss or 0) if share > 0 else 0.0
    return epsilon_of(delta, event.mu * share) if share > 0 else 0.0


def fuzz(
    model: PrivateClusterer, n: int, trials: int, rng: np.random.Generator, monitor: Monitor | None = None
) -> tuple[Finding, Moved]:
    """Flip one edge of ``trials`` graphs and compare the exact answers; the finding, and the pair that moved most.

    The density, public or private by itself, is the same on both sides. Every other value that decides on the noise or
    goes into the ledger must then be the same too, the diagonal as well, and the number of edges may move by 1.

    Parameters
    ----------
    model : what is audited
    n : number of nodes, at least 4
    trials : number of pairs
    rng : decides on graphs, flips and densities

    Raises
    ------
    RuntimeError
        The method fails on every pair.
    """
    monitor = monitor or Silent()
    monitor.start(trials, "sensitivity")
    before = events_before(model, os_uniform)
    worst: Moved | None = None
    faults: dict[str, int] = {}
    for step, pair in enumerate(islice(pairs(n, weight_of(model), rng), trials)):
        density = _density(model, pair, rng)
        looks = [_looked(model, graph, density, before) for graph in (pair.one, pair.two)]
        failed = [type(look).__name__ for look in looks if isinstance(look, Exception)]
        if failed:
            # a neighbour that fails in the same way tells nothing apart, yet the pair was not compared
            fault = f"one of two neighbours fails ({failed[0]})" if len(failed) == 1 else f"both fail ({failed[0]})"
            faults[fault] = faults.get(fault, 0) + 1
            continue
        (one, public_one), (two, public_two) = looks
        event = public_one["look"]
        change = (two - one)[np.triu_indices(n, 1)]
        # a flip of every bit is private by the number of bits, a matrix with Gaussian noise by its length
        size = float(np.abs(change).sum() if event.mu is None else np.linalg.norm(change))
        moved = Moved(pair, density, event, one, two, size / event.sensitivity)
        worst = moved if worst is None or moved.ratio > worst.ratio else worst
        found = [f"public value {k} moves" for k in public_one if public_one[k] != public_two[k]]
        if event.mu is not None and np.any(np.diagonal(one) != np.diagonal(two)):
            found.append("the diagonal moves")
        if abs(model.edge_count(pair.one) - model.edge_count(pair.two)) > 1:
            found.append("the edge count moves by more than 1")
        if moved.ratio > 1 + 1e-9:
            found.append("the answer moves by more than the sensitivity")
        for fault in found:
            faults[fault] = faults.get(fault, 0) + 1
        monitor.step(step, {})
    if worst is None:
        raise RuntimeError(f"{model.name} answered on no pair: {faults}")
    delta = delta_claimed(model)
    shown = claim_of(worst.event, delta, worst.ratio)
    said = "; ".join(f"{fault} ({count}x)" for fault, count in faults.items())
    detail = (f"worst change / sensitivity = {worst.ratio:.3f} ({worst.pair.family}, density {worst.density:.3g}, "
              f"sensitivity {worst.event.sensitivity:.4g})")
    return Finding("sensitivity", claim_of(worst.event, delta), delta, shown, None, trials, bool(faults),
                   f"{said}: {detail}" if said else detail), worst


def _density(model: PrivateClusterer, pair: Pair, rng: np.random.Generator) -> float:
    if model.density is not None:
        return float(model.density)
    own = 2 * pair.one.m / (pair.one.n * (pair.one.n - 1))
    # at the ends the scale of dp_sdp's matrix runs off, and a projection takes minutes
    return float(np.clip(rng.choice([own, 0.5, rng.random()]), 0.05, 0.95))


def _looked(model: PrivateClusterer, graph: Graph, density: float, before: list[Event]) -> Any:
    """The exact answer and what is public after the look at it; or the error, which everybody sees as well."""
    try:
        answer = model.answer(model.adjacency(graph), density)
    except (ArithmeticError, RuntimeError, ValueError) as error:
        return error
    return answer, {"look": model.look(graph.n, density, before), **model.public(graph.n, density)}
