"""Which clients poison, judged without data and without labels: by how their updates agree with their group's.

Agreement of client i in a round: the cosine between its update and the sum of the others' updates in its group, each
brought to length 1, so that nobody counts more than once by sending much. Clients are judged by the mean of their last
:data:`WINDOW` agreements: one round says little where clients hold unlike labels. A client is suspected when it lies
more than ``alarm`` modified z-scores, (median - mean_i) / (1.4826 MAD), below the median of all clients (Iglewicz and
Hoaglin, 1993, ISBN 9780873892476).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fedclust.algorithms.base import Payload, Reports, State, models, n_groups
from fedclust.probation import PHASE
from fedclust.robust import Robust

WINDOW, LEAST_ROUNDS = 10, 5
"""Rounds of a client whose agreement is averaged, and with fewer than which it is not judged."""
LEAST_GROUP = 4
"""In a group with fewer replies nobody is scored: there is no majority to disagree with."""
LEAST_SPREAD = 0.1
"""Cosines closer together than this are alike, however much closer the others are."""
EPSILON = 1e-12


def agreements(updates: Sequence[Tensor], groups: Tensor) -> Tensor:
    """cos(u_i, sum_{j in group of i, j != i} u_j / |u_j|) of updates with groups (S,); NaN in small groups.

    Parameters
    ----------
    updates : of every parameter (S, p); together they are the u_i
    """
    lengths = torch.stack([torch.linalg.vector_norm(u, dim=1) for u in updates]).norm(dim=0)
    scale = torch.where(lengths > 0, 1 / lengths, 0)  # no update points nowhere
    share = one_hot(groups).float().T * scale  # (K, S)
    totals = [share @ u for u in updates]  # (K, p) the sum s of u_j / |u_j| over every group
    along = torch.stack([(u @ s.T).gather(1, groups[:, None])[:, 0] for u, s in zip(updates, totals, strict=True)])
    # with v = u_i / |u_i|: <v, s - v> and |s - v|^2, in which <v, v> is 1, or 0 for no update
    along, one = (along.sum(0) * scale).double(), (scale > 0).double()
    whole = torch.stack([s.square().sum(1) for s in totals]).sum(0).double()[groups]
    cosine = (along - one) / (whole - 2 * along + one).clamp_min(EPSILON).sqrt()
    return torch.where((groups.bincount() >= LEAST_GROUP)[groups], cosine, torch.nan).float()


def agreement_of(before: State, after: State, payloads: Sequence[Payload], reports: Reports) -> Tensor:
    """The agreement (S,) of every reply of a training round; NaN for what was not trained from a group's model.

    Parameters
    ----------
    before, after : the state that was sent, and the one that came of it: a client's group is the one it has then
    payloads : what the client of each reply was sent
    reports : the round's sound replies
    """
    old, nothing = models(before), torch.full((len(payloads),), torch.nan)
    if reports.phase != "train" or not reports.models or set(old) != set(reports.models):
        return nothing
    if after["weights"].shape[1] < n_groups(before):
        return nothing  # the groups were numbered anew
    sent = next(iter(reports.models.values())).shape[1]
    groups = after["weights"][reports.clients].nan_to_num(0).argmax(1)
    rows, origin, place = [], [], []
    for s, (payload, group) in enumerate(zip(payloads, groups.tolist(), strict=True)):
        given = payload.groups
        first = given[0] if len(given) == 1 else group
        if payload.family == "model" and first in given and len(given) % sent == 0:
            rows.append(s)
            origin.append(first)
            place.append(given.index(first) * sent // len(given))  # of several that were sent one comes back
    if not rows:
        return nothing
    moving = {name: t for name, t in reports.models.items() if t.is_floating_point()}
    if len(rows) == len(payloads) and not any(place):
        own = {name: t[:, 0] for name, t in moving.items()}
    else:
        own = {name: t[torch.tensor(rows), torch.tensor(place)] for name, t in moving.items()}
    start = torch.tensor(origin)
    same = not start.any()
    moved = [(t - (old[name][0] if same else old[name][start])).flatten(1) for name, t in own.items()]
    return nothing.index_copy(0, torch.tensor(rows), agreements(moved, groups[rows]))


def suspicion(table: Tensor) -> Tensor:
    """Modified z-scores (N,) of agreements (R, N): how far a client lies below the others; NaN: not judged yet."""
    known = ~table.isnan()
    known &= known.flip(0).cumsum(0).flip(0) <= WINDOW
    count = known.sum(0)
    means = torch.where(count >= LEAST_ROUNDS, table.where(known, 0).sum(0) / count, torch.nan)
    middle = means.nanmedian()
    spread = 1.4826 * (means - middle).abs().nanmedian()
    return (middle - means) / spread.clamp_min(LEAST_SPREAD)


def suspects(table: Tensor, ids: Sequence[str], robust: Robust) -> dict[str, float]:
    """Clients of the last round that are beyond the alarm, and their z-scores, the most suspect first."""
    if not len(table):
        return {}
    z = torch.where(table[-1].isnan(), torch.nan, suspicion(table))
    order = z.nan_to_num(0).argsort(descending=True)
    return {ids[i]: round(float(z[i]), 2) for i in order[z[order] > robust.alarm].tolist()}


def excluded(rounds: Sequence[Mapping[str, Any]], n_clients: int, robust: Robust) -> dict[str, str]:
    """Clients that are not asked any more after these rounds (rows of the history), and why.

    Of the suspects at most ``share`` of all clients, those that were suspected first.
    """
    tried = Counter(client for row in rounds for client in row.get("unusable", []))
    worked = {client for row in rounds for client in row.get("participants", [])} if tried else set()
    out = {client: f"none of its {n} replies could be used" for client, n in sorted(tried.items())
           if n >= robust.unusable_rounds and client not in worked}
    if robust.exclude:
        first: dict[str, str] = {}
        for row in rounds:
            for client, z in row.get("suspects", {}).items():
                reason = (f"on probation its updates pointed against the others' (cosine {z:g})"
                          if row.get("phase") == PHASE else f"suspected in round {row['round']} (z = {z:g})")
                first.setdefault(client, reason)
        out |= dict(list(first.items())[: int(robust.share * n_clients)])
    return out
