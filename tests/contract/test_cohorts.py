"""A client gets from a cohort of many what it gets from a cohort of one, whatever the algorithm and the phase."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from fedclust.algorithms import algorithm_names
from fedclust.algorithms.base import Delivery, Report, models
from fedclust.config import Attack
from fedclust.data.client import Split
from fedclust.guard import Guard, guarded, guarded_evidence
from fedclust.participant import Participant
from fedclust.privacy import Privacy
from fedclust.task import Cohort
from graphclust.graph import InputError
from simulations.attacks import Attacker
from tests.contract.test_algorithms import make
from tests.fedclust.flower import settings
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


MANY = range(len(SIZES))


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
    name, more = CASES[case]
    if name == "oracle":
        more = {"true_groups": tuple(i % 2 for i in MANY)}
    loop = Watched(make(name, **more), some(SIZES))
    while loop.round < ROUNDS:
        everyone = loop.algorithm.needs_everyone({**loop.state, "round": torch.tensor(loop.round)})
        loop.step(None if everyone else [i for i in MANY if (i + loop.round) % 4])
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


# --- clients that poison, and clients that send noise -----------------------------------------------------------------


def a_round(people: Sequence[Participant], k: int = 2) -> tuple[Loop, Delivery]:
    """The people's clients, and what they are sent: ``k`` models, of every client others."""
    loop = Loop(people[0].algorithm, [p.data for p in people])
    each = [Loop(make("ifca", n_groups=k), loop.clients[:1], seed=i).state for i in range(len(people))]
    return loop, Delivery({name: torch.stack([models(s)[name] for s in each]) for name in MODEL.names})


@pytest.mark.parametrize("kind", ["sign_flip", "noise", "nan"])
def test_attackers_send_the_same_in_a_cohort(kind):
    config = settings("ifca", settings={"n_groups": 2}, attack=Attack(kind=kind, scale=3.0))
    people = [Attacker(config, c, 4) for c in some(SIZES)]
    loop, given = a_round(people)
    agree(people[0].algorithm.local_step(loop.cohort(*MANY), given),
          [p.algorithm.local_step(loop.cohort(i), given.of(i)) for i, p in enumerate(people)])


def test_attackers_of_one_kind_have_one_algorithm_and_liars_about_labels_the_honest_one():
    config = {kind: settings("fedcollab", settings={"inner_settings": {}}, attack=Attack(kind=kind))
              for kind in ("noise", "nan", "sign_flip", "label_flip")}

    def person(cls, kind, client):
        return cls(config[kind], client, 4).algorithm

    a, b = some((5, 6))
    assert person(Attacker, "noise", a) is person(Attacker, "noise", b)
    assert len({person(Attacker, kind, a) for kind in ("noise", "nan", "sign_flip")}) == 3
    assert person(Attacker, "label_flip", a) is person(Participant, "label_flip", b)
    spoiling = pickle.loads(pickle.dumps(person(Attacker, "noise", a)))
    assert spoiling == person(Attacker, "noise", b) and spoiling.hard is True


def test_every_client_of_a_cohort_has_its_own_noise():
    privacy = Privacy(clip=0.5, noise_multiplier=2.0)
    people = [Participant(settings("ifca", settings={"n_groups": 2}, privacy=privacy), c, 4) for c in some(SIZES)]
    loop, given = a_round(people)
    report = people[0].algorithm.local_step(loop.cohort(*MANY), given)
    sent = guarded(people, report, given, 3, "f")
    agree(sent, [Guard(p).report(report.of(i), given.of(i), 3, "f") for i, p in enumerate(people)])
    noise = {name: t - report.models[name] for name, t in sent.models.items()}
    assert all(len(t.flatten(1).unique(dim=0)) == len(SIZES) for t in noise.values())


def test_without_noise_the_report_is_not_touched(tmp_path):
    people = [Participant(settings(), c, 4) for c in some((5, 6))]
    report = Report({"w": torch.zeros(2, 1, 3)}, {"labels": torch.ones(2, 4)})
    assert guarded(people, report, Delivery({}), 0, "f") is report is guarded_evidence(people, report, 0)
    few = settings("community", privacy=Privacy(label_histogram="noised", label_epsilon=1.0))
    people = [Participant(few, p.data, 4) for p in people]
    found = guarded_evidence(people, report, 1)
    agree(found, [Guard(p).evidence(report.of(i), 1) for i, p in enumerate(people)])
    assert not torch.equal(found.arrays["labels"][0], found.arrays["labels"][1])
    loud = settings(privacy=Privacy(clip=0.5, noise_multiplier=2.0))
    with pytest.raises(InputError, match="newcomer"):
        guarded_evidence([Participant(loud, p.data, 4, home=tmp_path) for p in people], Report(), 0)
