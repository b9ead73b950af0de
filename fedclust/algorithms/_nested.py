"""Any algorithm inside every group of a partition of the clients."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fedclust.algorithms import make_algorithm
from fedclust.algorithms._groups import best_fitting
from fedclust.algorithms.base import (
    Delivery,
    FederatedAlgorithm,
    Payload,
    Report,
    Reports,
    State,
    models,
    n_groups,
    one_hot,
    with_models,
)
from fedclust.contract import Form
from fedclust.models import Model, ModelConfig, Params
from fedclust.task import Cohort
from graphclust.graph import InputError


class Nested(FederatedAlgorithm):
    """Runs ``inner`` by itself inside every group of clients; the groups are the subclass's business.

    The state holds the inner states side by side. ``model/...`` is the models of group 0, then those of group 1...; the
    rest of group g's inner state has the prefix ``inner-g/``; ``weights`` has the inner weights in the group's columns.
    ``group`` (N,) and ``sizes`` (G,), models a group, say where everything is.
    """

    inner: str = "fedavg"
    """The algorithm inside every group; any that has its models on the server and needs no preparation."""
    inner_settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _inner_is_sound(self) -> Nested:
        if self._algorithm.preparation_rounds(2):
            raise InputError(f"inner = {self.inner!r} needs rounds of preparation; give one that trains from the "
                             "start, for example fedavg or fedprox")
        return self

    @cached_property
    def _algorithm(self) -> FederatedAlgorithm:
        return make_algorithm(self.inner, self.inner_settings, self.training)

    @property
    def hard(self) -> bool:  # type: ignore[override]  # a class variable elsewhere
        """As the inner algorithm."""
        return self._algorithm.hard

    @property
    def adapts(self) -> bool:
        """As the inner algorithm."""
        return self._algorithm.adapts

    @property
    def extras(self) -> tuple[str, ...]:
        """As the inner algorithm."""
        return self._algorithm.extras

    # --- server ---------------------------------------------------------------------------------------------------

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """All clients in one group."""
        spec = {"config": model.config.model_dump(), "shape": list(model.input_shape), "classes": model.n_classes}
        state = {"n_samples": n_samples, "seed": torch.tensor(seed),
                 "architecture": torch.tensor(list(json.dumps(spec).encode()), dtype=torch.uint8)}
        return self.regrouped(state, torch.zeros(len(n_samples), dtype=torch.long))

    def regrouped(self, state: State, groups: Tensor) -> State:
        """The inner algorithm from its beginning inside every group.

        Parameters
        ----------
        groups : (N,) 0..G-1
        """
        model, seed = _model(bytes(state["architecture"].tolist())), int(state["seed"])
        sizes = [state["n_samples"][groups == g] for g in range(int(groups.max()) + 1)]
        inner = [self._algorithm.start(n, model, seed) for n in sizes]
        if any(len(s["weights"][0]) != n_groups(s) for s in inner):
            raise InputError(f"inner = {self.inner!r} keeps its models on the clients; give one that has them on the "
                             "server, for example fedavg or fedprox")
        return _joined({**state, "group": groups}, inner)

    def needs_everyone(self, state: State) -> bool:
        """When a group does."""
        return any(self._algorithm.needs_everyone(s) for s in _inner_states(state))

    def payload(self, state: State, client: int) -> Payload:
        """What the inner algorithm sends, of the client's group."""
        return self._of_group(state, client, self._algorithm.payload)

    def reply(self, payload: Payload, n_classes: int) -> Form:
        """As the inner algorithm; groups of clients may be in different phases of it."""
        return self._algorithm.reply(payload, n_classes)

    def evaluation(self, state: State, client: int) -> Payload | None:
        """The same, for evaluation."""
        return self._of_group(state, client, self._algorithm.evaluation)

    def _of_group(self, state: State, client: int, ask: Any) -> Payload:
        g = int(state["group"][client])
        payload: Payload = ask(_inner_states(state)[g], int((state["group"][:client] == g).sum()))
        if payload.family != "model":
            return replace(payload, family=f"inner-{g}/{payload.family}")
        before = int(state["sizes"][:g].sum())
        return replace(payload, groups=[before + k for k in payload.groups])

    def update(self, state: State, reports: Reports) -> State:
        """The inner update of every group with replies."""
        inner = _inner_states(state)
        for g in range(len(inner)):
            rows = (state["group"][reports.clients] == g).nonzero()[:, 0]
            if len(rows):
                position = (state["group"] == g).cumsum(0) - 1
                own, arrays = ({name: t[rows] for name, t in part.items()} for part in (reports.models, reports.arrays))
                inner[g] = self._algorithm.update(inner[g], Reports(
                    position[reports.clients[rows]], reports.n[rows], own, arrays, reports.phase,
                    reports.robust))
        return _joined(state, inner)

    def finished(self, state: State) -> State:
        """The inner algorithm's, in every group."""
        return _joined(state, [self._algorithm.finished(s) for s in _inner_states(state)])

    # --- client ---------------------------------------------------------------------------------------------------

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """The inner algorithm's."""
        return self._algorithm.local_step(cohort, delivery)

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """The inner algorithm's."""
        return self._algorithm.local_predictor(cohort, delivery)

    def local_evidence(self, cohort: Cohort, delivery: Delivery) -> Report:
        """All weight on the model of smallest loss, of all groups."""
        k = next(iter(delivery.models.values())).shape[1]
        return Report(arrays={"weights": one_hot(best_fitting(cohort, delivery.models), k)})

    def local_adapted(self, cohort: Cohort, group_models: Params) -> Params:
        """As the inner algorithm."""
        return self._algorithm.local_adapted(cohort, group_models)


def _inner_states(state: State) -> list[State]:
    """Every group's inner state."""
    each, start = [], 0
    for g, size in enumerate(state["sizes"].tolist()):
        prefix, columns = f"inner-{g}/", slice(start, start + size)
        own = {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
        own["weights"] = state["weights"][state["group"] == g][:, columns]
        if "round" in state:
            own["round"] = state["round"]
        each.append(with_models(own, {name: t[columns] for name, t in models(state).items()}))
        start += size
    return each


def _joined(state: State, inner: list[State]) -> State:
    """``state`` with these inner states in place of the old ones."""
    kept = {key: t for key, t in state.items() if not key.startswith("inner-")}
    sizes = [n_groups(s) for s in inner]
    weights, start = torch.zeros(len(state["group"]), sum(sizes)), 0
    for g, own in enumerate(inner):
        members = state["group"] == g
        mine = torch.zeros(int(members.sum()), sum(sizes))
        mine[:, start : start + sizes[g]] = own["weights"]
        mine[own["weights"].isnan().any(1)] = torch.nan
        weights[members] = mine
        start += sizes[g]
        kept |= {f"inner-{g}/{key}": t for key, t in own.items()
                 if key not in ("weights", "round") and not key.startswith("model/")}
    together = {name: torch.cat([models(s)[name] for s in inner]) for name in models(inner[0])}
    return with_models(kept, together, weights=weights, sizes=torch.tensor(sizes))


@lru_cache(maxsize=8)
def _model(architecture: bytes) -> Model:
    spec = json.loads(architecture)
    return Model(ModelConfig.model_validate(spec["config"]), tuple(spec["shape"]), spec["classes"])
