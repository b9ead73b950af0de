"""What protects the clients from the server: how much noise, and the ledger of what was spent.

The noise itself is drawn at the clients, in :mod:`fedclust.noising`. Two protections, of which one may be had:

- ``clip``: the whole of what a client sends in a round is clipped and noised. Neighbouring federations differ in all
  data of one client, replaced by any other: client-level, and local, for the server itself sees noise only. A reply
  has p parts: the joint update of all models that were sent to the client, of L2 norm at most ``clip``, and every array
  beside the models, brought onto the unit simplex (L2 diameter sqrt 2) and scaled by sqrt(2) clip. So a reply moves by
  at most Delta = 2 clip sqrt(p), its noise is sigma = noise_multiplier Delta, and R replies together have the trade-off
  of N(0, 1) against N(mu, 1), mu = sqrt(R) / noise_multiplier (Dong, Roth and Su 2022, arXiv 1905.02383).
- ``label_histogram = noised``: the label counts alone. Neighbouring clients differ in one sample, replaced by any
  other, their number of samples being public: two counts move by at most 1, Delta = sqrt 2, soft counts no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field

from fedclust.config import FederationConfig
from fedclust.privacy import HISTOGRAMS, VACUOUS

VALUES = 2**30
"""Most numbers that a client sends under noise in all rounds together."""


class WireLedger(BaseModel):
    """The guarantee of what every client sent, all that it rests on, and what it does not cover.

    ``sensitivity`` and ``sigma`` are in the unit of the parameters, or in samples for label counts, and of the replies
    that have most parts (see above); ``group_sigma`` (K,) is the noise, of every parameter, on each group's mean after
    the last round. ``guarantee`` is true only where everything that a client sends in training is covered; else
    ``void`` says why not.
    """

    model_config = ConfigDict(extra="forbid")

    what: str
    adjacency: str
    epsilon: float | None
    delta: float
    guarantee: bool
    void: list[str] = Field(default_factory=list)
    rounds: int
    mechanism: str = "discrete Gaussian on a grid, drawn at the client"
    noise_multiplier: float
    sensitivity: float
    sigma: float
    clip: float | None = None
    group_sigma: list[float] = Field(default_factory=list)
    not_covered: list[str] = Field(default_factory=list)
    randomness: str
    accountant: str = "closed form: mu = sqrt(rounds) / noise_multiplier (Balle & Wang 2018, theorem 8)"


def releases(config: FederationConfig) -> int:
    """How often at most a client sends something under noise: in every round; a histogram called ``labels`` once."""
    algorithm = config.make()
    if config.privacy.clip is None and "labels" in algorithm.extras:
        return 1
    return config.rounds + algorithm.preparation_rounds(2)


def multiplier_of(config: FederationConfig) -> float:
    """sigma over the sensitivity, of updates or of label counts, so that all releases together keep to the budget."""
    privacy = config.privacy
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    epsilon = privacy.epsilon or privacy.label_epsilon
    assert epsilon is not None
    return math.sqrt(releases(config)) * _calibrated(epsilon, privacy.delta)


@lru_cache(maxsize=8)
def _calibrated(epsilon: float, delta: float) -> float:
    """The multiplier for one release."""
    from graphclust.privacy.accountant import gaussian_multiplier  # scipy is long to import, and most do without

    zeta, left = _slack(epsilon, delta)
    return gaussian_multiplier(epsilon - 2 * zeta, left)


def epsilon_spent(multiplier: float, rounds: int, delta: float) -> float | None:
    """The epsilon of so many releases at this delta; None where it is too large to mean anything."""
    from graphclust.privacy.accountant import epsilon_of

    zeta, left = _slack(VACUOUS, delta)
    found = epsilon_of(left, math.sqrt(rounds) / multiplier) + 2 * zeta
    return found if found < VACUOUS else None


def _slack(epsilon: float, delta: float) -> tuple[float, float]:
    """(zeta, delta that is left): what discrete noise on at most :data:`VALUES` numbers costs beside continuous."""
    from graphclust.privacy.accountant import discreteness
    from graphclust.privacy.sampling import SCALE

    zeta, tail = discreteness(VALUES, SCALE)
    return zeta, (delta - (1 + math.exp(epsilon + zeta)) * tail) * math.exp(-zeta)


def ledger(
    config: FederationConfig, weights: Sequence[Sequence[float]], *, deployed: bool
) -> WireLedger | None:
    """The ledger of a finished run; None where nothing was protected.

    Parameters
    ----------
    config : of the run
    weights : (N, K) the last assignment; NaN: none
    deployed : on real clients, whose noise comes from their operating systems
    """
    privacy, algorithm = config.privacy, config.make()
    updates = privacy.clip is not None
    counts = privacy.label_histogram == "noised" and {*algorithm.extras} & {*HISTOGRAMS}
    if algorithm.sends == "nothing" or not (updates or counts):
        return None
    rounds, multiplier = releases(config), multiplier_of(config)
    spent = privacy.epsilon or privacy.label_epsilon or epsilon_spent(multiplier, rounds, privacy.delta)
    parts = 1 + len(algorithm.extras)
    sensitivity = 2 * (privacy.clip or 0) * math.sqrt(parts) if updates else math.sqrt(2)
    sigma = multiplier * sensitivity
    void = _void(config, spent, deployed)
    return WireLedger(
        what="everything that a client sends in training" if updates else "the label counts of a client, alone",
        adjacency="one client's whole data replaced by any other; which clients there are is public" if updates else
        "one sample of one client replaced by any other; the number of samples is public",
        epsilon=spent, delta=privacy.delta, guarantee=not void, void=void, rounds=rounds, noise_multiplier=multiplier,
        sensitivity=sensitivity, sigma=sigma, clip=privacy.clip,
        group_sigma=_of_means(weights, sigma) if updates else [], not_covered=_not_covered(updates, privacy.metrics),
        randomness="the client's operating system" if deployed else "the run's seed (a dry run)",
    )


def _void(config: FederationConfig, spent: float | None, deployed: bool) -> list[str]:
    privacy, void = config.privacy, []
    if not deployed:
        void.append("a simulation: the noise is drawn from the run's seed, so that engines agree, and who knows the "
                    "seed can take it off; the metrics were measured without noise")
    elif privacy.clip is not None and privacy.metrics == "sent":
        void.append("privacy.metrics = 'sent': accuracies and losses left without noise")
    if privacy.clip is None:
        void.append("the models, and what else is sent, left without noise and tell about the same labels")
    if spent is None:
        void.append(f"so little noise that epsilon is above {VACUOUS:g}")
    return void


def _not_covered(updates: bool, metrics: str) -> list[str]:
    always = ["whether and when a client answers, and the text of its errors",
              "the shape of its samples and the number of classes, told at the handshake"]
    if updates:
        return [*always, "newcomers, who take part in no round: real ones send nothing and are assigned where they are",
                *(["accuracies and losses"] if metrics == "sent" else []),
                "other runs with the same data: their budgets add up"]
    return [*always, "the number of samples", "models, weights, discriminators, accuracies and losses"]


def _of_means(weights: Sequence[Sequence[float]], sigma: float) -> list[float]:
    """sigma |w_k| / sum_i w_ik of every group's mean over its clients; 0 for a group without any."""
    known = [row for row in weights if not any(math.isnan(w) for w in row)]
    columns = list(zip(*known, strict=True))
    return [sigma * math.hypot(*c) / sum(c) if sum(c) > 0 else 0.0 for c in columns]
