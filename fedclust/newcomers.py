"""Clients that were never seen in training: what they need to find their group, and how they fare in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fedclust.algorithms import FederatedAlgorithm
from fedclust.algorithms.base import Payload, Reports, State, n_groups
from fedclust.config import FederationConfig
from fedclust.contract import mixtures
from fedclust.messages import Packer, reports, tensor_bytes
from fedclust.participant import ALL
from fedclust.rounds import UNUSABLE, Registry, Sent, exchange


@dataclass
class Newcomers:
    """What became of the newcomers: one row a client and trial, and its weights (trials, K)."""

    rows: list[dict[str, Any]]
    weights: Tensor
    bytes_down: int = 0
    bytes_up: int = 0


def trials(config: FederationConfig, n: int) -> list[tuple[int, int]]:
    """(shots, draw) of a newcomer with ``n`` labelled samples: all once, none once, other numbers in every draw."""
    some = [(m, draw) for m in config.shots if 0 < m <= n for draw in range(config.draws)]
    return [(ALL, 0), *([(0, 0)] if 0 in config.shots else []), *some]


def meet_newcomers(
    algorithm: FederatedAlgorithm, state: State, config: FederationConfig, registry: Registry, grid: Grid, job: int,
) -> Newcomers:
    """Assign every newcomer from some of its labelled samples, and evaluate it with these weights.

    Two messages a newcomer: all group models go there once for all its trials, and then those that it was assigned.
    A trial whose weights are NaN is "undetermined" and has no accuracy.
    """
    found = Newcomers([], torch.zeros(0, n_groups(state)))
    offer, packer = algorithm.newcomer(state), Packer(state)
    about = {client: trials(config, n) for client, n in sorted(registry.unseen.items())}
    settings = {"job": job, "round": config.rounds}

    def ask(kind: str, contents: dict[str, RecordDict]) -> tuple[dict[str, RecordDict], dict[str, str]]:
        sent = Sent.addressed(contents, registry.nodes, kind, config.timeout, "newcomers")
        replies, failed = exchange(grid, sent, config.timeout) if contents else ({}, {})
        found.bytes_down += tensor_bytes(contents.values())
        found.bytes_up += tensor_bytes(replies.values())
        return replies, failed

    evidence, failures = ask("query.evidence", {
        client: packer.content(offer, {
            **settings, "shots": [m for m, _ in some if m], "draws": [draw for m, draw in some if m],
        }) for client, some in about.items()
    })
    weights = {}
    for c, content in evidence.items():
        try:
            weights[c] = _assigned(algorithm, state, about[c], registry.unseen[c], content)
        except (LookupError, RuntimeError, TypeError, ValueError) as e:  # nobody else's evidence is in it
            failures[c] = f"{UNUSABLE}{type(e).__name__}: {e}"
    questions = {c: _question(w, about[c], algorithm) for c, w in weights.items()}
    measured, failed = ask("evaluate.assigned", {
        c: packer.content(Payload(q.groups, {"weights": q.weights}, phase="assigned"), {
            **settings, "shots": [m for m, _ in q.shown], "draws": [draw for _, draw in q.shown],
        }) for c, q in questions.items() if q.groups
    })
    failures |= failed
    for c in [*measured]:
        if not _fits(measured[c], len(questions[c].shown)):
            failures[c] = f"{UNUSABLE}metrics is not an accuracy and a loss for each trial"
            del measured[c]
    for client, some in about.items():
        of_client = weights.get(client, torch.full((len(some), n_groups(state)), math.nan))
        found.weights = torch.cat([found.weights, of_client])
        metrics = cast(MetricRecord, measured[client]["metrics"]) if client in measured else None
        for j, (m, draw) in enumerate(some):
            row: dict[str, Any] = {"client": client, "shots": None if m == ALL else m, "draw": draw,
                                   "labels_used": m != 0, "accuracy": None, "loss": None,
                                   "undetermined": bool(of_client[j].isnan().any()), "error": failures.get(client)}
            if metrics is not None and not row["undetermined"]:
                at = int(questions[client].row[j])
                row |= {name: cast(list[float], metrics[name])[at] for name in ("accuracy", "loss")}
            found.rows.append(row)
    return found


def _fits(content: RecordDict, trials: int) -> bool:
    """Whether a newcomer tells how it fares in each of so many trials."""
    told = content.get("metrics")
    each = [told.get(name) for name in ("accuracy", "loss")] if isinstance(told, MetricRecord) else [None]
    return all(isinstance(values, list) and len(values) == trials for values in each)


def _assigned(
    algorithm: FederatedAlgorithm, state: State, some: list[tuple[int, int]], n: int, content: RecordDict
) -> Tensor:
    """(trials, K); a row that is no mixture is undetermined."""
    rows, asked = [], 0
    for m, _ in some:
        report = None
        if m:
            found = reports([content], prefix=f"{asked}-")
            used = torch.tensor([float(n if m == ALL else m)])
            report = Reports(torch.zeros(1, dtype=torch.long), used, found.models, found.arrays, "evidence")
            asked += 1
        w = algorithm.assign(state, report)
        sound = w.shape == (n_groups(state),) and bool(mixtures(w[None]).all())
        rows.append(w if sound else torch.full((n_groups(state),), math.nan))
    return torch.stack(rows)


@dataclass
class _Question:
    """What a newcomer is to be evaluated with: ``weights`` (R, k) over ``groups``, the (shots, draw) that it may adapt
    the models to in each row, none as 0 shots, and the row of each trial, -1 for none."""

    groups: list[int]
    weights: Tensor
    shown: list[tuple[int, int]]
    row: Tensor


def _question(weights: Tensor, some: list[tuple[int, int]], algorithm: FederatedAlgorithm) -> _Question:
    """A row for every trial that is determined; trials with equal weights share one unless the models are adapted."""
    known = ~weights.isnan().any(1)
    used = weights[known]
    if algorithm.hard:
        used = torch.nn.functional.one_hot(used.argmax(1), weights.shape[1]).to(weights.dtype)
    row = torch.full((len(weights),), -1)
    if algorithm.adapts:
        shown, row[known] = [trial for trial, k in zip(some, known, strict=True) if k], torch.arange(len(used))
    else:
        used, row[known] = torch.unique(used, dim=0, return_inverse=True)
        shown = [(0, 0)] * len(used)
    groups = (used > 0).any(0).nonzero()[:, 0]
    return _Question(groups.tolist(), used[:, groups], shown, row)
