"""Clients that poison, as a setting of a simulation: what they train on and what they send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import torch
from flwr.app import Context
from flwr.clientapp import ClientApp
from torch import Tensor

from fedclust.algorithms import FederatedAlgorithm
from fedclust.algorithms.base import Delivery, Report
from fedclust.client_app import client_app, load_client
from fedclust.config import Attack, FederationConfig
from fedclust.data.client import UNKNOWN, ClientData, Split
from fedclust.models import Params
from fedclust.participant import Participant, simulated_federation
from fedclust.task import Cohort, stream
from graphclust.graph import InputError


def attackers(config: FederationConfig, ids: Sequence[str]) -> set[str]:
    """Which of the training clients ``ids`` attack.

    Raises
    ------
    InputError
        An attacker that is not among the clients; a share that is nobody, or everybody.
    """
    attack = config.attack
    if attack.kind == "none":
        return set()
    unknown = sorted(set(attack.clients) - set(ids))
    if unknown:
        raise InputError(f"attack.clients: no training client is called {unknown[0]!r}; the first is {min(ids)!r}")
    if attack.clients:
        return set(attack.clients)
    count = round(attack.share * len(ids))
    if not 0 < count < len(ids):
        raise InputError(f"attack.share = {attack.share:g}: that is {count} of {len(ids)} clients; give a share of at "
                         "least one client and not all, or attack.clients")
    order = torch.randperm(len(ids), generator=stream(config.seed, "attackers"))
    return {sorted(ids)[i] for i in order[:count]}


def planted_attackers(config: FederationConfig) -> dict[str, dict[str, int]]:
    """Which clients attack, for the evaluation: {"attacker": {id: 0 or 1}}; nothing without an attack."""
    if config.attack.kind == "none":
        return {}
    ids = simulated_federation(config).training_ids
    found = attackers(config, ids)
    return {"attacker": {i: int(i in found) for i in ids}}


@dataclass(frozen=True)
class Attacker(Participant):
    """A client that poisons: a participant whose data or whose algorithm is not what the federation agreed on."""

    @property
    def data(self) -> ClientData:
        """Its samples; a flip of labels gives it C - 1 - y in training, where it has any."""
        data = super().data
        if self.config.attack.kind != "label_flip":
            return data
        y = torch.where(data.train.y == UNKNOWN, UNKNOWN, self.n_classes - 1 - data.train.y)
        return replace(data, train=Split(data.train.x, y))

    @property
    def algorithm(self) -> FederatedAlgorithm:  # type: ignore[override]  # cached elsewhere; here by _spoiling
        """The algorithm, with reports that are spoilt; attackers of equal config have the same object."""
        honest = super().algorithm  # a flip of labels is in the data
        return honest if self.config.attack.kind == "label_flip" else _spoiling(honest, self.config.attack)


@dataclass(frozen=True)
class _Spoiling:
    """An algorithm whose local step sends something else than what was trained, of every client of the cohort."""

    inner: FederatedAlgorithm
    attack: Attack

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by copies, before there is an inner
            raise AttributeError(name)
        return getattr(self.inner, name)

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """The honest report with its models spoilt."""
        return self._spoilt(self.inner.local_step(cohort, delivery), cohort, delivery)

    def local_probation(self, cohort: Cohort, delivery: Delivery) -> Report:
        """The same before the first round."""
        return self._spoilt(self.inner.local_probation(cohort, delivery), cohort, delivery)

    def _spoilt(self, report: Report, cohort: Cohort, delivery: Delivery) -> Report:
        attack = self.attack
        if not report.models:
            return report
        if attack.kind == "sign_flip":
            before = _trained_from(report.models, delivery.models)
            spoilt = {name: before[name] - attack.scale * (t - before[name]) for name, t in report.models.items()}
        else:
            rngs = [stream(cohort.seed, "poison", client, cohort.round) for client in cohort.ids]
            deviation = torch.nan if attack.kind == "nan" else attack.scale
            spoilt = {name: deviation * torch.stack([torch.randn(t.shape[1:], generator=rng) for rng in rngs]).to(t)
                      for name, t in report.models.items()}
        return replace(report, models=spoilt)


@lru_cache(maxsize=8)
def _spoiling(inner: FederatedAlgorithm, attack: Attack) -> FederatedAlgorithm:
    return cast(FederatedAlgorithm, _Spoiling(inner, attack))


def _trained_from(trained: Params, delivered: Params) -> Params:
    """For each of the models (B, k', ...) the delivered one (B, k, ...) that it came from: the nearest."""
    k, sent = (next(iter(m.values())).shape[1] for m in (delivered, trained))
    if k == sent:
        return delivered
    far = sum((t[:, :, None] - delivered[name][:, None]).flatten(3).square().sum(-1) for name, t in trained.items())
    nearest = cast(Tensor, far).argmin(2)  # (B, k')
    clients = torch.arange(len(nearest), device=nearest.device)[:, None]
    return {name: t[clients, nearest] for name, t in delivered.items()}


class SimulatedClients:
    """The clients of a federation, some of them attackers if it is simulated; each attacker is made once."""

    def __init__(self) -> None:
        # by the identity of the honest participant, which is kept so that no other can take its number
        self._made: dict[int, tuple[Participant, Participant]] = {}
        self._attackers: dict[int, dict[str, int]] = {}

    def __call__(self, context: Context, job: int) -> Participant:
        me = load_client(context, job)
        config = me.config
        if config.attack.kind == "none" or me.role != "train" or "partition-id" not in context.node_config:
            return me
        if id(me) not in self._made:
            if id(config) not in self._attackers:
                self._attackers[id(config)] = planted_attackers(config)["attacker"]
            attacks = self._attackers[id(config)][me.client.id]
            attacker = Attacker(config, me.client, me.n_classes, me.role, stays=me.stays)
            self._made[id(me)] = me, attacker if attacks else me
        return self._made[id(me)][1]


def simulated_app() -> ClientApp:
    """The ClientApp of a federation, in which the attackers of a simulation attack; real clients never do."""
    return client_app(SimulatedClients())
