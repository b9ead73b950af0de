"""The audit of a private method: attempts to refute its claim, by anyone, on any machine.

A pass is no proof of privacy; a violation refutes it, up to the stated confidence. Attempts without chance: the
sensitivity over flipped edges (:mod:`.sensitivity`), and the replay of one noisy matrix on other graphs
(:mod:`.replay`). Attempts with chance: the likelihood ratio on the worst pair and the published density
(:mod:`.likelihood`; Jagielski, Ullman & Oprea 2020, arXiv 2006.07709, Nasr et al. 2023, arXiv 2302.07956), and coins
hidden in the edges (:mod:`.canary`; Steinke, Nasr & Jagielski 2023, arXiv 2305.08846).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphclust.graph import InputError
from graphclust.methods._private import PrivateClusterer
from graphclust.monitor import Monitor
from graphclust.privacy.audit.canary import canaries
from graphclust.privacy.audit.finding import Finding
from graphclust.privacy.audit.likelihood import count, noise, scale
from graphclust.privacy.audit.replay import replay
from graphclust.privacy.audit.sensitivity import fuzz
from graphclust.privacy.sampling import os_uniform, seeded_uniform

__all__ = ["Finding", "audit"]

ATTEMPTS = 8
"""The most rows with chance in them; each takes that share of 1 - confidence."""

SCALE_RELEASES = 50
"""Releases whose noise is measured."""


def audit(
    model: PrivateClusterer, n: int = 60, *, pairs: int = 90, trials: int = 2000, fits: int = 20,
    confidence: float = 1 - 1e-6, seed: int = 0, random_state: Any = None, monitor: Monitor | None = None,
) -> list[Finding]:
    """Attempt to refute the privacy that ``model`` claims.

    Parameters
    ----------
    model : an instance with its parameters; it is not fitted, its copies are
    n : number of nodes of the audit's graphs, at least 8
    pairs : flipped edges of the sensitivity
    trials : releases of each side in a likelihood ratio
    fits : fits with about n / 2 canaries each, and as many for the replay
    confidence : of all rows together: a private method is called violated with at most 1 - confidence
    seed : of graphs, flips and coins, never of the noise
    random_state : None for the operating system's entropy, as in a release; a Generator makes a test repeatable
    monitor : watcher, optional

    Raises
    ------
    InputError
        A parameter of the model or of the audit outside its range.
    """
    _check(model, n, pairs, trials, fits, confidence)
    rng = np.random.default_rng(seed)
    alpha = (1 - confidence) / ATTEMPTS
    uniform = os_uniform if random_state is None else seeded_uniform(np.random.default_rng(random_state))
    sensitivity, worst = fuzz(model, n, pairs, rng, monitor)
    found = [sensitivity, replay(model, n, fits, rng, monitor)]
    found.append(scale(model, worst, SCALE_RELEASES, alpha, uniform=uniform))
    found += noise(model, worst, trials, alpha, uniform=uniform, monitor=monitor)
    published = count(model, worst.pair, trials, alpha, random_state=random_state, monitor=monitor)
    found += [published] if published else []
    return found + canaries(model, n, fits, alpha, rng, random_state=random_state, monitor=monitor)


def _check(model: PrivateClusterer, n: int, pairs: int, trials: int, fits: int, confidence: float) -> None:
    model.check_params()
    for name, value, least in (("n", n, 8), ("pairs", pairs, 1), ("trials", trials, 100), ("fits", fits, 1)):
        if value < least:
            raise InputError(f"{name} = {value}; the audit needs at least {least}")
    if not 0.5 <= confidence < 1 or math.isclose(confidence, 1, rel_tol=0, abs_tol=1e-12):
        raise InputError(f"confidence = {confidence:g}; it must lie in 0.5..1 and differ from 1, for example 0.999999")
