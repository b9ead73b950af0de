"""One run with many canaries: coins decide on edges, the release is asked for the coins.

Steinke, Nasr & Jagielski 2023, arXiv 2305.08846. Several fits count as one with all their canaries: side by side they
are one mechanism, of which every edge reaches one fit only, and so as private as each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import clone

from graphclust.methods._private import PrivateClusterer
from graphclust.monitor import Monitor, Silent
from graphclust.privacy.audit.bounds import canary_bound
from graphclust.privacy.audit.finding import Finding, delta_claimed, weight_of
from graphclust.privacy.audit.pairs import as_weighted
from graphclust.privacy.ledger import Event
from graphclust.privacy.sampling import Uniform

MATRIX_GUESSES = 4
"""One canary in so many is guessed present from the noisy matrix, and as many absent."""
LABEL_GUESSES = 8
"""One canary in so many is guessed absent because its ends have different labels; none is guessed present, since by
chance alone every second pair shares a label."""


def canaries(
    model: PrivateClusterer, n: int, fits: int, alpha: float, rng: np.random.Generator, *, random_state: Any = None,
    monitor: Monitor | None = None,
) -> list[Finding]:
    """Guess coins from the noisy matrix and from the labels of real fits.

    Two cliques of n / 4 nodes each are fixed; every node left over has one canary, the edge to a clique's node. Whoever
    moves nodes to the cluster of their real neighbours never tears a present canary apart.

    Parameters
    ----------
    model : what is audited
    n : number of nodes, at least 8
    fits : number of fits, each with about n / 2 canaries
    alpha : chance that a row's bound is too high
    rng : the coins, and the order of equal scores
    random_state : None for the operating system's entropy
    """
    monitor = monitor or Silent()
    monitor.start(fits, "canaries")
    size = n // 4
    fixed = np.zeros((n, n))
    fixed[:size, :size] = fixed[size : 2 * size, size : 2 * size] = 1
    np.fill_diagonal(fixed, 0)
    pendants = np.arange(2 * size, n)
    anchors = np.arange(len(pendants)) % (2 * size)
    coins, values, same = [], [], []
    for step in range(fits):
        coin = rng.integers(2, size=len(pendants))
        edges = fixed.copy()
        edges[pendants, anchors] = edges[anchors, pendants] = coin
        noisy, labels = _fit(model, edges, random_state)
        coins.append(coin)
        values.append(noisy[pendants, anchors] + noisy[anchors, pendants])
        same.append(labels[pendants] == labels[anchors])
        monitor.step(step, {})
    truth = np.concatenate(coins).astype(bool)
    m = len(truth)
    rows = []
    for what, scores, present, absent in (("noisy matrix", values, m // MATRIX_GUESSES, m // MATRIX_GUESSES),
                                          ("labels", same, 0, m // LABEL_GUESSES)):
        score = np.concatenate(scores).astype(float)
        order = np.lexsort((rng.random(m), score))
        correct = int((~truth[order[:absent]]).sum() + truth[order[m - present :]].sum())
        guesses = present + absent
        delta, claim = delta_claimed(model), float(model.epsilon)
        shown = canary_bound(m, guesses, correct, delta, alpha)
        rows.append(Finding(f"canaries, {what}", claim, delta, shown, 1 - alpha, m, shown > claim,
                            f"{correct} of {guesses} guesses right, {m} coins in {fits} fits"))
    return rows


def _fit(model: PrivateClusterer, edges: np.ndarray, random_state: Any) -> tuple[np.ndarray, np.ndarray]:
    """The noisy matrix and the labels of one fit."""
    copy = clone(model).set_params(random_state=random_state, budget=None, force=True, n_init=5)
    real, kept = copy.noisy, []

    def noisy(answer: np.ndarray, event: Event, uniform: Uniform) -> np.ndarray:
        kept.append(real(answer, event, uniform))
        return kept[-1]

    vars(copy).update(noisy=noisy)
    copy.fit(as_weighted(edges, weight_of(model)))
    return kept[-1], copy.labels_
