"""FedCollab: clients form coalitions by the divergence and the quantity of their data, before any training."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedclust.algorithms._coalitions import c_curve, find_coalitions, most_stable
from fedclust.algorithms._discriminators import FAMILY, JUDGE, LEARN, PairwiseDivergence
from fedclust.algorithms._nested import Nested
from fedclust.algorithms.base import Delivery, Payload, Report, Reports, State
from fedclust.contract import Form
from fedclust.models import Model
from fedclust.task import Cohort

GRID = np.geomspace(0.5, 10.0, 27)
"""Values of C that are looked at; 10 is the largest that the authors use."""


class FedCollab(Nested):
    """min over partitions of sum_i [ C / sqrt(n_S(i)) + sum_{j in S(i)} (n_j / n_S(i)) D_ij ], then ``inner`` inside
    every coalition S.

    The paper's three steps: divergences in the preparation rounds (``divergence`` (N, N) in the state; see
    :class:`fedclust.algorithms._discriminators.PairwiseDivergence`), the search on the server
    (:func:`fedclust.algorithms._coalitions.find_coalitions`), and an algorithm of choice in every coalition, which all
    start from the same initial model.

    Deviations: the search adds merge and swap moves; C has a default that looks at no label and no accuracy. A pair
    that was never heard together counts as D = 1. A newcomer, which the paper does not treat, joins the coalition whose
    model has the smallest loss on its labelled samples: for its divergences every coalition would have to train
    discriminators with it.
    """

    source: ClassVar[str] = "Bao, Wang, Wu and He, ICML 2023, arXiv 2306.06508"
    sends: ClassVar[str] = "one small discriminator and its accuracy for every other client, once; then as inner"

    c: Annotated[float, Field(ge=0)] | None = None
    """C, the price of few samples; the authors take 8 or 10. None: of 27 values in .5..10 the middle of the longest
    stretch (in ratio) over which the coalitions are the same; ``c`` and ``c_curve`` in the state tell the choice."""
    starts: Annotated[int, Field(ge=1)] = 20
    """Starts of the search from singletons, and as many from random partitions."""
    divergence: PairwiseDivergence = Field(default_factory=PairwiseDivergence)

    @property
    def needs_labels(self) -> bool:
        """True: the discriminators tell labelled samples apart."""
        return True

    @property
    def extras(self) -> tuple[str, ...]:
        """The discriminators' accuracies, and what the inner algorithm reports."""
        return ("accuracy", *super().extras)

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """Nobody is assigned; a lone client has nobody to be compared with."""
        state = super().start(n_samples, model, seed)
        if len(n_samples) == 1:
            return state
        return {**state, **self.divergence.start(n_samples, model, seed),
                "weights": torch.full_like(state["weights"], torch.nan)}

    def preparation_rounds(self, n_clients: int) -> int:
        """The rounds of the discriminators, unless there is no pair."""
        return self.divergence.rounds if n_clients > 1 else 0

    def prepared(self, state: State) -> bool:
        """True once the coalitions are known."""
        return not _searching(state)

    def needs_everyone(self, state: State) -> bool:
        """True in the preparation: every client belongs to N - 1 pairs."""
        return int(state["round"]) < 0 or super().needs_everyone(state)

    def payload(self, state: State, client: int) -> Payload:
        """The discriminators of the client's pairs; once the coalitions are known, what ``inner`` sends."""
        if _searching(state):
            return self.divergence.payload(state, client, state["n_samples"])
        return super().payload(state, client)

    def reply(self, payload: Payload, n_classes: int) -> Form:
        """Discriminators and their accuracies, or what ``inner`` does."""
        if payload.phase in (LEARN, JUDGE):
            return self.divergence.reply(payload)
        return super().reply(payload, n_classes)

    def update(self, state: State, reports: Reports) -> State:
        """A step of the discriminators, the search after their last, or the inner algorithm's."""
        if reports.phase not in (LEARN, JUDGE):
            return super().update(state, reports)
        state = self.divergence.update(state, reports, len(state["n_samples"]))
        return state if _searching(state) else self._coalitions(state)

    def _coalitions(self, state: State) -> State:
        d, n = state["divergence"].double().numpy(), state["n_samples"].numpy()
        rng = np.random.default_rng(int(state["seed"]))
        c = self.c
        if c is None:
            partitions = c_curve(d, n, GRID, rng)
            c = most_stable(GRID, partitions)
            counts = partitions.max(axis=1) + 1.0
            state = {**state, "c_curve": torch.from_numpy(np.stack([GRID, counts], axis=1))}
        groups = torch.from_numpy(find_coalitions(d, n, c, rng, restarts=self.starts))
        return self.regrouped({**state, "c": torch.tensor(c)}, groups)

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Train and test the discriminators, or what ``inner`` does."""
        if delivery.phase in (LEARN, JUDGE):
            return self.divergence.local_step(cohort, delivery)
        return super().local_step(cohort, delivery)


def _searching(state: State) -> bool:
    return any(key.startswith(FAMILY + "/") for key in state)
