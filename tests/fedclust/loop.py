"""A federation in a for loop, without Flower: what the tests of algorithms stand on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedclust.algorithms.base import (
    Delivery,
    FederatedAlgorithm,
    Payload,
    Report,
    Reports,
    State,
    models,
    together,
)
from fedclust.data.client import ClientData, Split
from fedclust.models import Model, ModelConfig
from fedclust.task import Cohort, Training, stream

MODEL = Model(ModelConfig(hidden=(8,)), (6,), 4)
TRAINING = Training(epochs=1, lr=0.2, batch_size=10)
EMPTY = Split(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))


def blobs(client: str, n: int, shift: int = 0, seed: int = 0, classes: Sequence[int] = (0, 1, 2, 3)) -> Split:
    """Samples around four centres in six dimensions; concept ``shift``: y -> (y + shift) mod 4."""
    centres = 2 * torch.randn(4, 6, generator=stream(seed, "centres"))
    g = stream(seed, "samples", client)
    y = torch.tensor(classes)[torch.randint(len(classes), (n,), generator=g)]
    return Split(centres[y] + 0.5 * torch.randn(n, 6, generator=g), (y + shift) % 4)


def concepts(n_clients: int = 6, n_concepts: int = 2, seed: int = 0) -> list[ClientData]:
    """Clients of different sizes; client i labels by concept i mod n_concepts."""
    out = []
    for i in range(n_clients):
        name = f"c{i:02d}"
        train = blobs(name, 20 + 5 * (i % 3), i % n_concepts, seed)
        out.append(ClientData(name, train, blobs(name + "test", 20, i % n_concepts, seed), EMPTY))
    return out


def deliver(state: State, payload: Payload) -> Delivery:
    """The payload as one client receives it."""
    sent = {}
    if payload.groups:
        sent = {name: t[payload.groups][None] for name, t in models(state, payload.family).items()}
    return Delivery(sent, {name: t[None] for name, t in payload.arrays.items()}, payload.phase)


@dataclass
class Loop:
    """One algorithm on some clients; ``states[r]`` is the state after r rounds (with the preparation, if any)."""

    algorithm: FederatedAlgorithm
    clients: Sequence[ClientData]
    model: Model = MODEL
    seed: int = 0

    def __post_init__(self) -> None:
        self.n = torch.tensor([float(len(c.train)) for c in self.clients])
        self.states = [self.algorithm.start(self.n, self.model, self.seed)]
        self.memory: list[dict[str, Tensor]] = [{} for _ in self.clients]
        self.round = -self.algorithm.preparation_rounds(len(self.clients))

    @property
    def state(self) -> State:
        """The newest state."""
        return self.states[-1]

    def cohort(self, *who: int) -> Cohort:
        """Client i by itself, with its memory; or several side by side, with copies of theirs."""
        held = [self.memory[i] for i in who]
        memory = held[0] if len(who) == 1 else {name: torch.cat([m[name] for m in held]) for name in held[0]}
        return Cohort([self.clients[i] for i in who], self.model, seed=self.seed, round=self.round, memory=memory)

    def answers(self, who: Sequence[int], deliveries: Sequence[Delivery]) -> list[Report]:
        """What every client makes of its delivery, each by itself."""
        return [self.algorithm.local_step(self.cohort(i), d) for i, d in zip(who, deliveries, strict=True)]

    def step(self, who: Sequence[int] | None = None, spoil: Callable[[Reports], Reports] = lambda r: r) -> State:
        """One round of the clients ``who`` (all), whatever the algorithm needs."""
        state = {**self.state, "round": torch.tensor(self.round)}
        chosen = list(range(len(self.clients)) if who is None else who)
        deliveries = [deliver(state, self.algorithm.payload(state, i)) for i in chosen]
        replies = together(self.answers(chosen, deliveries))
        reports = Reports(torch.tensor(chosen), self.n[chosen], replies.models, replies.arrays, deliveries[0].phase)
        self.states.append(self.algorithm.update(state, spoil(reports)))
        self.round = 0 if self.round < 0 and self.algorithm.prepared(self.state) else self.round + 1
        return self.state

    def run(self, rounds: int, fraction: float = 1.0) -> State:
        """The preparation and this many rounds; with a fraction a seeded choice of clients."""
        last = max(self.round, 0) + rounds
        while self.round < last:
            everyone = fraction == 1 or self.round < 0 or self.algorithm.needs_everyone(
                {**self.state, "round": torch.tensor(self.round)})
            order = torch.randperm(len(self.clients), generator=stream(self.seed, "select", self.round))
            self.step(None if everyone else sorted(order[: max(1, round(fraction * len(order)))].tolist()))
        return self.state

    def evaluate(self, i: int) -> float:
        """Test accuracy of client i after the last round."""
        state = {**self.state, "round": torch.tensor(self.round)}
        predictor = self.algorithm.local_predictor(self.cohort(i), deliver(state, self.algorithm.evaluation(state, i)))
        return float(self.cohort(i).evaluate(*predictor, hard=self.algorithm.hard)["accuracy"])

    def newcomer(self, client: ClientData) -> Tensor:
        """Weights (K,) of a client that never trained."""
        state = {**self.state, "round": torch.tensor(self.round)}
        cohort = Cohort([client], self.model, seed=self.seed, round=self.round)
        offer = self.algorithm.newcomer(state)
        found = self.algorithm.local_evidence(cohort, deliver(state, offer))
        n = torch.tensor([float(len(client.train))])
        return self.algorithm.assign(state, Reports(torch.zeros(1).long(), n, found.models, found.arrays, offer.phase))
