"""What a federated algorithm is: what clients are sent, what they compute, how the server moves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from fedclust.contract import Form, shapes
from fedclust.models import Model, Params
from fedclust.robust import PLAIN, Robust
from fedclust.task import Cohort, Training, stream

State = dict[str, Tensor]
"""Everything the server knows, as tensors by name; it is checkpointed as it is.

``model/<parameter>`` (K, ...): the group models, stacked. ``weights`` (N, K): the assignment, rows sum to 1 (hard: a
single 1), NaN in the row of a client that has none yet. Kept by the strategy:
``round``, 0-d, the round being run; ``excluded`` (N,) bool, once there are any: clients that are not asked any more.
"""


@dataclass
class Payload:
    """What the server sends one client: group models by their number, and small extras."""

    groups: list[int]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    family: str = "model"
    phase: str = "train"


@dataclass
class Delivery:
    """A payload as it arrives at a cohort of B clients: models (B, k, ...), arrays (B, ...).

    The clients of a cohort were sent equally many models and the same arrays in the same phase; values may differ.
    Tensors may be shared with the server and with other clients (even expanded): they are never changed in place.
    """

    models: Params
    arrays: dict[str, Tensor] = field(default_factory=dict)
    phase: str = "train"

    def of(self, i: int) -> Delivery:
        """What client i of the cohort was sent, as to a cohort of one."""
        return Delivery(_row(self.models, i), _row(self.arrays, i), self.phase)


@dataclass
class Report:
    """What a cohort sends back: models (B, k', ...), or none, and arrays (B, ...).

    An array ``weights`` (B, k') says how the client itself mixes the models that it sends.
    """

    models: Params = field(default_factory=dict)
    arrays: dict[str, Tensor] = field(default_factory=dict)

    def of(self, i: int) -> Report:
        """What client i of the cohort sends back, as a cohort of one."""
        return Report(_row(self.models, i), _row(self.arrays, i))


@dataclass
class Reports:
    """The round's sound replies, stacked in the order of the clients' ids.

    ``clients`` (S,): positions in the sorted registry; ``n`` (S,): training samples; models (S, k', ...); arrays
    (S, ...); ``robust``: how the models are averaged inside a group.
    """

    clients: Tensor
    n: Tensor
    models: Params
    arrays: dict[str, Tensor]
    phase: str = "train"
    robust: Robust = PLAIN


class FederatedAlgorithm(BaseModel, ABC):
    """One algorithm; its fields are its settings.

    Pure: no Flower, no files; its whole state is a dict of tensors that the strategy keeps, checkpoints and hands back.
    The methods whose names begin with ``local_`` run on clients, the others on the server.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: ClassVar[str]
    """The paper, with arXiv id or DOI."""
    hard: ClassVar[bool] = True
    """A client predicts with the model of its largest weight; False: with the mixture."""
    sends: ClassVar[str] = "its model"
    """What a client reveals each round, in words, for the table of what travels."""

    training: Training = Field(default_factory=Training)

    def __hash__(self) -> int:
        """Of the kind and the training alone, for settings may be dicts; equal algorithms are told by all fields."""
        return hash((type(self), self.training))

    @property
    def needs_labels(self) -> bool:
        """True when it cannot run on clients that have no labels."""
        return False

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of the arrays that :meth:`local_step` reports beside the models, of all phases; a test holds it to it.

        What an array of that name promises, such as its shape, or a mixture to sum to 1, is in
        :mod:`fedclust.contract`; a reply that does not keep to it is left out of its round.
        Noise on what clients send (:mod:`fedclust.wire_privacy`) covers ``weights`` (a mixture of the models that were
        sent), ``group`` (which of them was trained) and label counts, ``counts`` or ``labels``; no others.
        """
        return ()

    # --- server ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """The state before round 0.

        Parameters
        ----------
        n_samples : (N,) training samples of the registered clients, in the order of their ids
        model : the architecture
        seed : of the federation; group k starts from :func:`initial_models`
        """

    @abstractmethod
    def payload(self, state: State, client: int) -> Payload:
        """What ``client`` (its position in the registry) is sent in this round."""

    @abstractmethod
    def update(self, state: State, reports: Reports) -> State:
        """The state after the round; ``state`` itself is not changed."""

    def finished(self, state: State) -> State:
        """The state after the last round, by which clients are evaluated and newcomers assigned; here the same."""
        return state

    def reply(self, payload: Payload, n_classes: int) -> Form:
        """What :meth:`local_step` makes of this payload; a reply of another form is left out of its round.

        By default all models that were sent, and :attr:`extras` in the shapes that their names stand for. Here an
        algorithm says so if it sends another number of models, not all its arrays in all phases, or arrays of names of
        its own. Replies of unlike forms in one round go to :meth:`update` one after the other, those of one form
        together.

        Raises
        ------
        InputError
            Nothing is known about the shape of an array in ``extras``.
        """
        sent = len(payload.groups)
        return Form(sent, shapes(self.extras, sent, n_classes, int(payload.arrays.get("starts", 1))))

    def preparation_rounds(self, n_clients: int) -> int:
        """Rounds that the algorithm needs before its first training round (``state["round"]`` is negative in them)."""
        return 0

    def prepared(self, state: State) -> bool:
        """True when the preparation rounds that are left are not needed."""
        return False

    def needs_everyone(self, state: State) -> bool:
        """True when this round must reach every client, whatever the fraction."""
        return False

    def evaluation(self, state: State, client: int) -> Payload | None:
        """What ``client`` is sent to be evaluated after the last round; None when no model is meant for it."""
        return self.payload(state, client)

    def newcomer(self, state: State) -> Payload:
        """What a client that was never seen in training is sent to find its group: all group models."""
        return Payload(list(range(n_groups(state))), phase="evidence")

    def assign(self, state: State, report: Reports | None) -> Tensor:
        """Weights (K,) of a newcomer from its report; NaN throughout: undetermined.

        Parameters
        ----------
        report : what :meth:`local_evidence` found, S = 1; None when the newcomer has no labelled sample
        """
        k = n_groups(state)
        if k == 1:
            return torch.ones(1)
        if report is None or "weights" not in report.arrays:
            return torch.full((k,), torch.nan)
        return report.arrays["weights"][0]

    @property
    def adapts(self) -> bool:
        """True when a newcomer goes on training its group's model: see :meth:`local_adapted`."""
        return False

    # --- client ---------------------------------------------------------------------------------------------------

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """What clients do in a round: by default, train every model that they were sent."""
        return Report(cohort.train(delivery.models, self.training))

    def local_probation(self, cohort: Cohort, delivery: Delivery) -> Report:
        """What clients do in a round of :mod:`fedclust.probation`, the same in all algorithms: train what was sent."""
        return Report(cohort.train(delivery.models, self.training))

    def local_predictor(self, cohort: Cohort, delivery: Delivery) -> tuple[Params, Tensor]:
        """The models (B, k, ...) and weights (B, k) with which the clients predict, given what was delivered."""
        one = next(iter(delivery.models.values()))
        b, k = one.shape[:2]
        return delivery.models, one.new_full((b, k), 1 / k)

    def local_evidence(self, cohort: Cohort, delivery: Delivery) -> Report:
        """What newcomers compute from their labelled samples: by default, the weights they would predict with."""
        return Report(arrays={"weights": self.local_predictor(cohort, delivery)[1]})

    def local_adapted(self, cohort: Cohort, group_models: Params) -> Params:
        """The models (B, k, ...) with which newcomers predict: by default those of the groups they were assigned.

        Parameters
        ----------
        cohort : the newcomers with the labelled samples that they may use
        group_models : (B, k, ...)
        """
        return group_models


def together(reports: Sequence[Report]) -> Report:
    """The reports of several cohorts as that of one, which has their clients in turn."""
    first = reports[0]
    return Report({name: torch.cat([r.models[name] for r in reports]) for name in first.models},
                  {name: torch.cat([r.arrays[name] for r in reports]) for name in first.arrays})


def _row(tensors: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    return {name: t[i : i + 1] for name, t in tensors.items()}


def initial_models(model: Model, seed: int, n_groups: int) -> Params:
    """K initial models (K, ...), each from its own stream; the first is the same in every algorithm."""
    return stack([model.init(stream(seed, "init", k)) for k in range(n_groups)])


def stack(models: list[Params]) -> Params:
    """Models stacked along a new first axis."""
    return {name: torch.stack([m[name] for m in models]) for name in models[0]}


def models(state: State, family: str = "model") -> Params:
    """The stacked models (K, ...) of ``state`` by parameter name."""
    start = family + "/"
    return {key.removeprefix(start): t for key, t in state.items() if key.startswith(start)}


def with_models(state: State, new: Params, family: str = "model", **others: Tensor) -> State:
    """A copy of ``state`` with these models in place of the family's, and ``others`` set."""
    kept = {key: t for key, t in state.items() if not key.startswith(family + "/")}
    return {**kept, **{f"{family}/{name}": t for name, t in new.items()}, **others}


def n_groups(state: State) -> int:
    """K."""
    return len(next(iter(models(state).values())))


def leading(state: State, k: int) -> slice:
    """The K groups of the start that leads (``best``), of several side by side: start s has s K to s K + K - 1."""
    first = int(state["best"]) * k
    return slice(first, first + k)


def one_hot(groups: Tensor, k: int) -> Tensor:
    """Hard assignment (N,) int as weights (N, K) float; a negative group gives a row of NaN."""
    weights = torch.nn.functional.one_hot(groups.clamp_min(0), k).float()
    weights[groups < 0] = torch.nan
    return weights


def group_of(state: State, client: int) -> int:
    """The group of ``client`` under the assignment as it stands."""
    return int(state["weights"][client].argmax())
