"""The strongest attack that there is: who knows both graphs compares the likelihoods of what was released."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np
from scipy.stats import chi2
from sklearn.base import clone

from graphclust.graph import Graph
from graphclust.methods._private import PrivateClusterer
from graphclust.monitor import Monitor, Silent
from graphclust.privacy.accountant import epsilon_of
from graphclust.privacy.audit.bounds import clopper_pearson, gaussian_shift, log_ratio, two_sample_bound
from graphclust.privacy.audit.finding import Finding, delta_claimed
from graphclust.privacy.audit.pairs import Pair
from graphclust.privacy.audit.sensitivity import Moved, claim_of
from graphclust.privacy.ledger import Event, Ledger
from graphclust.privacy.sampling import Uniform, os_uniform


def noise(
    model: PrivateClusterer, moved: Moved, trials: int, alpha: float, *, uniform: Uniform = os_uniform,
    monitor: Monitor | None = None,
) -> list[Finding]:
    """Tell the answers of two neighbouring graphs apart by their releases, ``trials`` of each.

    The statistic is <answer of the one - answer of the other, release>, a growing function of the likelihood ratio of
    Gaussian noise, and the bit of flipped pairs. Where the pair moves less than the sensitivity allows, a second pair
    moves by all of it: the noise must hide that one too.

    Parameters
    ----------
    model : what is audited; its ``noisy`` is called
    moved : the pair, from :func:`graphclust.privacy.audit.sensitivity.fuzz`
    trials : releases of each side, half of them to pick the threshold
    alpha : chance that a row's bound is too high
    uniform : source of the noise
    """
    monitor = monitor or Silent()
    cases = [("worst pair", moved.one, moved.two, moved.ratio)]
    event = moved.event
    if event.mu is not None and 0 < moved.ratio < 0.95:
        # the sensitivity counts the rounding to the grid, which the noise adds by itself
        share = 1 - event.details["rounding"] / event.sensitivity
        cases.append(("largest move", moved.one, moved.one + (moved.two - moved.one) * share / moved.ratio, share))
    return [row for name, one, two, share in cases
            for row in _attack(model, event, name, (one, two), share, trials, alpha, uniform, monitor)]


def scale(
    model: PrivateClusterer, moved: Moved, trials: int, alpha: float, *, uniform: Uniform = os_uniform
) -> Finding:
    """Measure the noise itself, on all pairs of nodes at once, as if each had its own as stated.

    The variance of the mean of both triangles (chi-square, one-sided), or the share of flipped bits (Clopper-Pearson).
    It sees a wrong scale in a few releases, and no other fault.

    Parameters
    ----------
    model, moved, alpha, uniform : as for :func:`noise`
    trials : releases
    """
    event, delta = moved.event, delta_claimed(model)
    upper = np.triu_indices(len(moved.one), 1)
    exact, size = moved.one[upper], trials * len(upper[0])
    drawn = np.empty((trials, len(upper[0])))
    for run in range(trials):
        release = model.noisy(moved.one, event, uniform)
        drawn[run] = (release[upper] + release.T[upper]) / 2 - exact
    if event.mu is None:
        rate = float(clopper_pearson(np.array([np.count_nonzero(drawn)]), size, alpha)[1][0])
        shown = max(math.log1p(-min(rate, 0.5)) - math.log(rate), 0.0)
        detail = f"at most {rate:.5f} of the pairs are flipped, stated {event.scale:.5f}"
    else:
        sigma = math.sqrt(np.square(drawn).sum() / chi2.ppf(alpha, size))
        shown = epsilon_of(delta, event.sensitivity / sigma)
        detail = f"sigma is at most {sigma:.5g}, stated {event.scale:.5g}"
    return _row("noise scale", claim_of(event, delta), delta, shown, alpha, size, detail)


def _attack(
    model: PrivateClusterer, event: Event, name: str, answers: tuple[np.ndarray, np.ndarray], share: float, trials: int,
    alpha: float, uniform: Uniform, monitor: Monitor,
) -> list[Finding]:
    towards = answers[1] - answers[0]
    monitor.start(2 * trials, f"likelihood ratio, {name}")
    seen = np.empty((2, trials))
    for run in range(trials):
        for side in (0, 1):
            seen[side, run] = np.vdot(towards, model.noisy(answers[side], event, uniform))
        monitor.step(2 * run + 1, {})
    delta = delta_claimed(model)
    claim, exact = claim_of(event, delta), claim_of(event, delta, share)
    detail = f"{event.what}: this pair costs {exact:.4g} in theory"
    shown = two_sample_bound(seen[0], seen[1], alpha, log_ratio(delta))
    rows = [_row(f"likelihood ratio, {name}", claim, delta, shown, alpha, 2 * trials, detail)]
    if event.mu is not None:
        mu = two_sample_bound(seen[0], seen[1], alpha, gaussian_shift)
        said = f"sensitivity / sigma >= {mu:.4g}, stated {event.mu:.4g}, of this pair {event.mu * share:.4g}"
        rows.append(_row(f"Gaussian shift, {name}", claim, delta, epsilon_of(delta, mu) if mu > 0 else 0.0, alpha,
                         2 * trials, said))
    return rows


def count(
    model: PrivateClusterer, pair: Pair, trials: int, alpha: float, *, random_state: Any = None,
    monitor: Monitor | None = None,
) -> Finding | None:
    """Tell two neighbouring graphs apart by the density that real fits publish; None where the density is given.

    Each fit is ended when it has published its density, before it looks at the edges themselves.

    Parameters
    ----------
    model : what is audited
    pair : two neighbouring graphs
    trials : fits on each side, half of them to pick the threshold
    alpha : chance that the bound is too high
    random_state : None for the operating system's entropy
    """
    if model.density is not None:
        return None
    monitor = monitor or Silent()
    monitor.start(2 * trials, "edge count")
    seen = np.empty((2, trials))
    events: list[Event] = []
    ledger = model._new_ledger(random_state is not None)  # it reads the versions of packages, which takes long
    for run in range(trials):
        for side, graph in enumerate((pair.one, pair.two)):
            seen[side, run], events = _published(model, graph, random_state, ledger)
        monitor.step(2 * run + 1, {})
    claim = sum(e.loss or 0.0 for e in events)
    shown = two_sample_bound(seen[0], seen[1], alpha, log_ratio(0.0))
    detail = f"number of edges ({pair.family}): this pair costs {claim:.4g} in theory"
    return _row("edge count", claim, 0.0, shown, alpha, 2 * trials, detail)


class _Published(Exception):
    """Ends a fit that has published its density."""


def _published(
    model: PrivateClusterer, graph: Graph, random_state: Any, ledger: Ledger
) -> tuple[float, list[Event]]:
    copy = clone(model).set_params(random_state=random_state, budget=None, force=True)

    def end(n: int, density: float, events: list[Event]) -> NoReturn:
        raise _Published(density, list(events))

    vars(copy).update(look=end, _new_ledger=lambda seeded: ledger.model_copy(deep=True))
    try:
        copy.fit(graph)
    except _Published as published:
        return published.args
    raise RuntimeError(f"{model.name} fitted without a look at the edges")


def _row(audit: str, claim: float, delta: float, shown: float, alpha: float, trials: int, detail: str) -> Finding:
    return Finding(audit, claim, delta, shown, 1 - alpha, trials, shown > claim * (1 + 1e-9), detail)
