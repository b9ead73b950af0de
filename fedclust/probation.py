"""Rounds before the first that teach nobody anything and show whose updates point against everybody's.

Inside groups attackers hide: groups are small, come and go, and their models start unlike each other. So clients are
judged before there are any, where all of them start from the same. In each of ``robust.probation`` rounds every client
trains one random model, another one in every round, as it would train its group's, and

    c_ij = mean over these rounds of cos(u_i, u_j)                                                               (1)

is taken of the encoder's part of the updates. Clients of unlike concept teach the head unlike things and the encoder
much the same (all of the update of a model that has no encoder below a head). Then, from T = all clients,

    while min_i s_i < 0, s_i = sum_{j in T, j != i} c_ij: the i in T with the least s_i leaves T                 (2)

Who left T is suspected; if that is more than ``share`` of the clients, nobody is: then what holds of attackers, that
they are few and all others pull one way, does not hold here. A rule of this project; no data, label or group is read.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fedclust.aggregate import flatten
from fedclust.algorithms.base import Payload, Reports, State, models, stack, with_models
from fedclust.models import Model
from fedclust.robust import Robust
from fedclust.task import stream

log = logging.getLogger(__name__)
PHASE = "probation"
HEAD = "head."
"""What the names of a classifier's last layer begin with."""


def payload() -> Payload:
    """What every client is sent in such a round: the model to train."""
    return Payload([0], family=PHASE, phase=PHASE)


def begun(state: State, model: Model, seed: int) -> State:
    """The state with the model of its round, drawn from a stream of its own."""
    start = model.init(stream(seed, PHASE, int(state["round"])))
    return with_models(state, stack([start]), PHASE)


def judged(state: State, reports: Reports) -> State:
    """The state without the model and with the round's cosines: ``probation_cosines``, ``probation_rounds`` (N, N)."""
    start, n = models(state, PHASE), len(state["weights"])
    named = [name for name in start if not name.startswith(HEAD)] or list(start)
    updates = flatten({name: reports.models[name][:, 0] - start[name] for name in named})
    u = normalize(updates, dim=1)
    pairs = reports.clients[:, None], reports.clients
    sums, met = state.get("probation_cosines", torch.zeros(n, n)), state.get("probation_rounds", torch.zeros(n, n))
    return with_models(state, {}, PHASE, probation_cosines=sums.index_put(pairs, u @ u.T, accumulate=True),
                       probation_rounds=met.index_put(pairs, torch.ones(()), accumulate=True))


def opposed(cosines: Tensor) -> dict[int, float]:
    """Who leaves T by (2), in that order, and the mean of its cosines with those that were in it: s_i / (|T| - 1).

    Parameters
    ----------
    cosines : (N, N), equation 1; 0 for clients that never met, who say nothing about each other
    """
    cosines = cosines.clone().fill_diagonal_(0)
    s, trusted = cosines.sum(1), torch.ones(len(cosines), dtype=torch.bool)
    out: dict[int, float] = {}
    while len(out) < len(s) - 1:
        i = int(s.where(trusted, torch.inf).argmin())
        if s[i] >= 0:
            break
        out[i] = round(float(s[i]) / (len(s) - len(out) - 1), 3)
        trusted[i] = False
        s = s - cosines[:, i]
    return out


def verdict(state: State, ids: Sequence[str], robust: Robust) -> tuple[State, dict[str, float]]:
    """After the last of these rounds: the state without their traces; the suspects, the clearest first, with
    :func:`opposed`'s means."""
    found = opposed(state["probation_cosines"] / state["probation_rounds"].clamp_min(1))
    if len(found) > int(robust.share * len(ids)):
        log.warning("probation: %d of %d clients pull against the others, more than robust.share = %g are expected to; "
                    "nobody is suspected", len(found), len(ids), robust.share)
        found = {}
    kept = {name: t for name, t in state.items() if not name.startswith(PHASE)}
    return kept, {ids[i]: mean for i, mean in found.items()}
