"""A client gets from a cohort of many what it gets from a cohort of one, whatever the algorithm and the phase."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from fedclust.algorithms import algorithm_names
from fedclust.algorithms.base import Delivery, Report, models
from fedclust.data.client import Split
from fedclust.task import Cohort
from tests.contract.test_algorithms import make
from tests.fedclust.loop import MODEL, Loop, concepts, deliver

SIZES = (20, 9, 30, 13, 25, 7, 16, 3, 28)
NEWCOMERS = (12, 1, 30, 5, 20, 2)
ROUNDS = 6
DISCRIMINATORS = {"rounds": 4, "width": 8}
PAPER = {**DISCRIMINATORS, "server": "average", "batch_size": 5, "local_steps": 2, "projection": None}
CASES = {
    **{name: (name, {}) for name in algorithm_names()},
    "community again": ("community", {"warmup": 2, "every": 2}),
    "community by labels": ("community", {"similarity": "labels"}),
    "community by losses": ("community", {"similarity": "losses", "warmup": 2}),
    "community by divergence": ("community", {"similarity": "divergence", "divergence": DISCRIMINATORS}),
    "fedcollab as published": ("fedcollab", {"c": 4.0, "divergence": PAPER}),
    "fedcollab of mixtures": ("fedcollab", {"c": 1.0, "divergence": {**DISCRIMINATORS, "projection": 4},
                                            "inner": "fedrc", "inner_settings": {"n_groups": 2, "trial_rounds": 9}}),
    "fedcollab of meta-learners": ("fedcollab", {
        "c": 1.0, "divergence": DISCRIMINATORS, "inner": "hierarchical",
        "inner_settings": {"warmup": 1, "meta": "fomaml", "inner_lr": 0.1}}),
    "fesem from several models": ("fesem", {"start_from": "random"}),
    "pruned mixture": ("fedrc", {"n_groups": 3, "prune": 0.3}),
}
PHASES = {
    "community again": {"train", "probe"}, "community by labels": {"train", "labels"},
    "community by losses": {"train", "losses"}, "fedcollab": {"train", "divergence", "divergence-last"},
    "community by divergence": {"train", "divergence", "divergence-last"},
}


def some(sizes, first=0):
    clients = concepts(first + len(sizes))[first:]
    return [replace(c, train=Split(c.train.x[:n], c.train.y[:n])) for c, n in zip(clients, sizes, strict=True)]


def same(found: dict[str, Tensor], alone: dict[str, Tensor]) -> None:
    assert found.keys() == alone.keys()
    for name, t in alone.items():
        assert found[name].dtype == t.dtype, name
        torch.testing.assert_close(found[name], t, rtol=1e-5, atol=2e-6, equal_nan=True, msg=lambda m, n=name: n + m)


def agree(found: Report, alone: Sequence[Report]) -> None:
    for i, one in enumerate(alone):
        same(found.of(i).models, one.models)
        same(found.of(i).arrays, one.arrays)


def side_by_side(deliveries: Sequence[Delivery]) -> Delivery:
    first = deliveries[0]
    models, arrays = ({name: torch.cat([getattr(d, kind)[name] for d in deliveries]) for name in getattr(first, kind)}
                      for kind in ("models", "arrays"))
    return Delivery(models, arrays, first.phase)


def alike(deliveries: Sequence[Delivery], memories: Sequence[dict[str, Tensor]]) -> list[list[int]]:
    """Which of them may be one cohort, as an engine tells by names and shapes."""
    groups: dict[tuple, list[int]] = {}
    for j, (d, memory) in enumerate(zip(deliveries, memories, strict=True)):
        shapes = [sorted((name, t.shape) for name, t in tensors.items()) for tensors in (d.models, d.arrays, memory)]
        groups.setdefault((d.phase, str(shapes)), []).append(j)
    return list(groups.values())


@dataclass
class Watched(Loop):
    """A federation whose every round is also run in cohorts as large as can be."""

    phases: dict[str, int] = field(default_factory=dict)

    def answers(self, who: Sequence[int], deliveries: Sequence[Delivery]) -> list[Report]:
        groups = [g for g in alike(deliveries, [self.memory[i] for i in who]) if len(g) > 1]
        found = []
        for g in groups:
            cohort, given = self.cohort(*(who[j] for j in g)), side_by_side([deliveries[j] for j in g])
            if given.phase == "train":
                self.predict([who[j] for j in g], [deliveries[j] for j in g])
            found.append((self.algorithm.local_step(cohort, given), cohort.memory))
            self.phases[given.phase] = max(self.phases.get(given.phase, 0), len(g))
        alone = super().answers(who, deliveries)
        for g, (report, memory) in zip(groups, found, strict=True):
            agree(report, [alone[j] for j in g])
            agree(Report(arrays=memory), [Report(arrays=self.memory[who[j]]) for j in g])
        return alone

    def predict(self, who: Sequence[int], deliveries: Sequence[Delivery]) -> None:
        """Predictors of these clients side by side and alone."""
        params, weights = self.algorithm.local_predictor(self.cohort(*who), side_by_side(deliveries))
        agree(Report(params, {"weights": weights}), [
            Report(p, {"weights": w}) for p, w in
            (self.algorithm.local_predictor(self.cohort(i), d) for i, d in zip(who, deliveries, strict=True))])

    def final(self) -> None:
        """Predictors of all clients that have one."""
        state = {**self.state, "round": torch.tensor(self.round)}
        sent = {i: p for i in range(len(self.clients)) if (p := self.algorithm.evaluation(state, i)) is not None}
        who, deliveries = list(sent), [deliver(state, p) for p in sent.values()]
        for g in alike(deliveries, [self.memory[i] for i in who]):
            self.predict([who[j] for j in g], [deliveries[j] for j in g])


@pytest.mark.parametrize("case", CASES)
def test_many_at_once_equal_one_by_one(case):
    name, settings = CASES[case]
    if name == "oracle":
        settings = {"true_groups": tuple(i % 2 for i in range(len(SIZES)))}
    loop = Watched(make(name, **settings), some(SIZES))
    while loop.round < ROUNDS:
        everyone = loop.algorithm.needs_everyone({**loop.state, "round": torch.tensor(loop.round)})
        loop.step(None if everyone else [i for i in range(len(SIZES)) if (i + loop.round) % 4])
    loop.final()
    assert PHASES.get(case, {"train"}) <= set(loop.phases) and loop.phases["train"] > 1
    newcomers(loop)


def newcomers(loop: Loop) -> None:
    """Evidence of newcomers, and the models that they adapt."""
    state, clients = {**loop.state, "round": torch.tensor(loop.round)}, some(NEWCOMERS, len(SIZES))
    offer = deliver(state, loop.algorithm.newcomer(state))
    groups = {name: t[None, :2] for name, t in models(state).items()}

    def ask(which: list[int]) -> tuple[Report, Report]:
        cohort = Cohort([clients[i] for i in which], MODEL, seed=0, round=loop.round)
        sent = {name: t.expand(len(which), *t.shape[1:]) for name, t in groups.items()}
        found = loop.algorithm.local_evidence(cohort, side_by_side([offer] * len(which)))
        return found, Report(loop.algorithm.local_adapted(cohort, sent))

    together, alone = ask(list(range(len(clients)))), [ask([i]) for i in range(len(clients))]
    for j in range(2):
        agree(together[j], [one[j] for one in alone])
