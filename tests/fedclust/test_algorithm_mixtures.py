"""FedEM and FedRC beyond one E-step: memory, pruning, newcomers, and what sets them apart."""

import math

import pytest
import torch

from fedclust.algorithms import make_algorithm
from fedclust.algorithms._mixture import e_step, over_relaxed, shares
from fedclust.algorithms.base import Reports, models
from fedclust.data.client import ClientData, Split
from fedclust.task import Cohort
from graphclust.graph import InputError
from tests.fedclust.loop import EMPTY, MODEL, TRAINING, Loop, blobs, concepts, deliver


@pytest.mark.parametrize("name", ["fedem", "fedrc"])
def test_two_concepts_are_told_apart(name):
    loop = Loop(make_algorithm(name, {"restarts": 1, "n_groups": 2}, TRAINING), concepts(6))
    weights = loop.run(25)["weights"]
    assert weights.argmax(1).tolist() in ([0, 1] * 3, [1, 0] * 3) and weights.max(1).values.min() > 0.9
    for client in concepts(8)[6:]:
        mine = int(client.id[1:]) % 2
        assert loop.newcomer(client).argmax() == weights[mine].argmax()


def skewed(seed: int) -> list[ClientData]:
    """One concept; half of the clients hold mostly classes 0 and 1, the others mostly 2 and 3."""
    classes = ([0, 1, 2, 3, 2, 3, 2, 3], [0, 1, 0, 1, 0, 1, 2, 3])
    return [ClientData(f"c{i}", blobs(f"c{i}", 40, seed=seed, classes=classes[i % 2]), EMPTY, EMPTY) for i in range(6)]


@pytest.mark.parametrize("seed", [0, 1])
def test_fedrc_keeps_clients_together_that_differ_in_labels_only(seed):
    apart = {}
    for name in ("fedrc", "fedem"):
        algorithm = make_algorithm(name, {"restarts": 1, "n_groups": 2, "aggregation": "omega"}, TRAINING)
        w = Loop(algorithm, skewed(seed), seed=seed).run(25)["weights"]
        apart[name] = float((w[0::2].mean(0) - w[1::2].mean(0)).abs().sum() / 2)  # total variation between the halves
    assert apart["fedrc"] < 0.1 and apart["fedem"] > 0.4


def test_weights_stay_with_the_client_and_are_reported():
    loop = Loop(make_algorithm("fedrc", {"restarts": 1, "n_groups": 2}, TRAINING), concepts(4))
    loop.run(3)
    for i, memory in enumerate(loop.memory):
        assert torch.equal(memory["omega"][0], loop.state["weights"][i])
    before = loop.state["weights"].clone()
    loop.step([0, 2])
    assert torch.equal(loop.state["weights"][[1, 3]], before[[1, 3]])
    assert not torch.equal(loop.state["weights"][[0, 2]], before[[0, 2]])


def test_a_weight_of_zero_comes_back():
    cohort = Loop(make_algorithm("fedrc", {"restarts": 1}, TRAINING), concepts(1)).cohort(0)
    costs = torch.tensor([5.0, 0.0])[None, :, None].expand(1, 2, cohort.mask.shape[1])
    omega, seen = torch.tensor([[1.0, 0.0]]), []
    for _ in range(30):
        gamma, omega = e_step(costs, omega, shares(cohort, 0))
        assert torch.isfinite(gamma).all()
        seen.append(float(omega[0, 1]))
    assert seen[0] == pytest.approx(1e-30 * math.exp(5), rel=1e-3) and seen[-1] > 0.99


def test_over_relaxed_weights_by_hand():
    """omega^(1 - eta) fitted^eta: .8^2 / .5 against .2^2 / .5 is 16 to 1."""
    held, fitted = torch.tensor([[0.5, 0.5, 0.9, 0.1]]), torch.tensor([[0.8, 0.2, 0.9, 0.1]])
    assert torch.equal(over_relaxed(held, fitted, 1.0, 2), fitted)
    moved = over_relaxed(held, fitted, 2.0, 2)
    assert moved.tolist()[0] == pytest.approx([16 / 17, 1 / 17, 0.9, 0.1])  # EM leaves the second start where it is
    gone = over_relaxed(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]), 1.9, 1)
    assert torch.isfinite(gone).all() and gone.sum() == pytest.approx(1)


def test_only_fedrc_over_relaxes_and_its_clients_do_as_the_rule_says():
    plain, longer = (Loop(make_algorithm("fedrc", {"restarts": 1, "n_groups": 2, "relaxation": eta}, TRAINING),
                          concepts(4)) for eta in (1.0, 1.5))
    assert make_algorithm("fedem", {}, TRAINING).relaxation == 1 < make_algorithm("fedrc", {}, TRAINING).relaxation < 2
    for loop in (plain, longer):
        loop.run(1)  # both from omega = 1/2 and the same models
    expected = plain.state["weights"] ** 1.5
    assert torch.allclose(longer.state["weights"], expected / expected.sum(1, keepdim=True), atol=1e-6)
    with pytest.raises(InputError, match="relaxation"):
        make_algorithm("fedrc", {"relaxation": 2.0}, TRAINING)


def test_in_the_end_all_samples_of_a_client_train_alike(monkeypatch):
    seen, train = [], Cohort.train

    def watched(cohort, models, training, *, sample_weight, **others):
        seen.append(sample_weight[0, :, : int(cohort.n[0])])
        return train(cohort, models, training, sample_weight=sample_weight, **others)

    monkeypatch.setattr(Cohort, "train", watched)
    loop = Loop(make_algorithm("fedrc", {"restarts": 1, "n_groups": 2, "trial_rounds": 2}, TRAINING), concepts(1))
    loop.run(3)
    spread = [float((w - w[:, :1]).abs().max()) for w in seen]
    assert spread[0] > 0.01 and spread[1] > 0.01 and spread[2] == 0
    assert torch.equal(seen[2][:, 0], loop.state["weights"][0]), "the weights that are reported"
    assert make_algorithm("fedem", {}, TRAINING).m_step == "samples", "as in its paper"


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_samples_of_a_rare_class_weigh_more_in_omega_by_hand(beta):
    """Four samples of class 0, which group 0 alone explains, one of class 2, which group 1 does: 4^(1 - beta) to 1."""
    few = ClientData("few", Split(torch.zeros(5, 6), torch.tensor([0, 0, 2, 0, 0])), EMPTY, EMPTY)
    cohort = Loop(make_algorithm("fedrc", {"restarts": 1}, TRAINING), [few]).cohort(0)
    costs = torch.zeros(1, 2, cohort.mask.shape[1])
    costs[0, 1, :5], costs[0, :, 2] = 99.0, torch.tensor([99.0, 0.0])
    gamma, omega = e_step(costs, torch.tensor([[0.5, 0.5]]), shares(cohort, beta))
    assert gamma.sum() == pytest.approx(5) and gamma[0, :, 5:].sum() == 0
    assert omega.tolist()[0] == pytest.approx([4 ** (1 - beta) / (4 ** (1 - beta) + 1), 1 / (4 ** (1 - beta) + 1)])


def test_classes_are_balanced_after_the_trial_rounds_and_never_in_fedem():
    plain, balanced = (Loop(make_algorithm("fedrc", {"restarts": 1, "n_groups": 2, "trial_rounds": 2,
                                                     "class_balance": beta}, TRAINING), concepts(4)) for beta in (0, 1))
    for loop in (plain, balanced):
        loop.run(2)
    assert torch.equal(plain.state["weights"], balanced.state["weights"])
    for loop in (plain, balanced):
        loop.run(1)
    assert not torch.equal(plain.state["weights"], balanced.state["weights"])
    assert make_algorithm("fedem", {}, TRAINING).class_balance == 0, "as in its paper"


def reported(algorithm, state, omega):
    """The state after replies with these weights, the models being as they were."""
    alive = state["alive"].nonzero()[:, 0]
    sent = {key: t[alive].expand(len(omega), -1, *t.shape[1:]) for key, t in models(state).items()}
    arrays = {"weights": omega, "counts": torch.ones(len(omega), len(alive), 4)}
    return algorithm.update(state, Reports(torch.arange(len(omega)), state["n"][: len(omega)], sent, arrays))


def test_pruning_drops_a_group_that_has_next_to_nothing():
    algorithm = make_algorithm("fedrc", {"restarts": 1, "n_groups": 3, "prune": 0.05}, TRAINING)
    state = algorithm.start(torch.tensor([10.0, 10.0, 20.0]), MODEL, 0)
    state = reported(algorithm, state, torch.tensor([[0.6, 0.1, 0.3], [0.5, 0.1, 0.4], [0.5, 0.05, 0.45]]))
    assert state["alive"].tolist() == [True, True, True], "group 1 has (1 + 1 + 1) / 40 = .075 of all"
    state = reported(algorithm, state, torch.tensor([[0.6, 0.04, 0.36], [0.5, 0.0, 0.5], [0.45, 0.05, 0.5]]))
    assert state["alive"].tolist() == [True, False, True], "group 1 has (.4 + 0 + 1) / 40 = .035"
    torch.testing.assert_close(state["weights"], torch.tensor([[0.625, 0, 0.375], [0.5, 0, 0.5], [9 / 19, 0, 10 / 19]]))
    payload = algorithm.payload(state, 0)
    assert payload.groups == [0, 2] and payload.arrays["groups"].tolist() == [0, 2]
    assert payload.arrays["class_weights"].shape == (2, 4)
    state = reported(algorithm, state, torch.tensor([[0.99, 0.01]] * 3))
    assert state["alive"].tolist() == [True, False, False], "the last one always stays"
    torch.testing.assert_close(state["weights"], torch.tensor([[1.0, 0, 0]] * 3))


def test_clients_go_on_with_the_groups_that_are_left():
    loop = Loop(make_algorithm("fedrc", {"restarts": 1, "n_groups": 3, "prune": 0.2}, TRAINING), concepts(6))
    loop.run(25)
    alive = loop.state["alive"]
    assert alive.sum() == 2
    weights = loop.state["weights"]
    assert (weights[:, ~alive] < 1e-6).all() and weights.argmax(1).tolist()[:2] * 3 == weights.argmax(1).tolist()
    report = loop.newcomer(concepts(7)[6])
    assert report.shape == (3,) and report[~alive].sum() == 0 and report.sum().item() == pytest.approx(1)


def test_newcomers_repeat_the_e_step_until_it_settles():
    loop = Loop(make_algorithm("fedrc", {"restarts": 1, "n_groups": 2}, TRAINING), concepts(6))
    loop.run(15)
    client = concepts(8)[7]
    state, algorithm = loop.state, loop.algorithm
    found = loop.newcomer(client).double()
    losses = Loop(algorithm, [client]).cohort(0).losses({k: t[None] for k, t in models(state).items()})[0].double()
    ratio = torch.exp(-losses[:, : len(client.train)]) / state["class_weights"].double()[:, client.train.y]
    omega = torch.full((2,), 0.5, dtype=torch.double)
    for _ in range(500):
        joint = omega[:, None] * ratio
        omega = (joint / joint.sum(0)).mean(1)
    torch.testing.assert_close(found, omega, atol=5e-3, rtol=0)
    delivery = deliver(state, algorithm.newcomer(state))
    assert delivery.phase == "evidence" and "class_weights" in delivery.arrays


def test_predictions():
    assert make_algorithm("fedem").hard is False, "a mixture of probabilities"
    assert make_algorithm("fedrc").hard is True, "the heaviest model"


@pytest.mark.parametrize("name", ["fedem", "fedrc"])
def test_of_several_starts_the_likeliest_goes_on(name):
    algorithm = make_algorithm(name, {"n_groups": 2, "restarts": 3, "trial_rounds": 4}, TRAINING)
    loop = Loop(algorithm, concepts(6))
    singles = []
    for s in range(3):  # each start alone, from the same models
        alone = Loop(make_algorithm(name, {"n_groups": 2, "restarts": 1}, TRAINING), concepts(6))
        mine = {key: t[2 * s: 2 * s + 2] for key, t in models(loop.state).items()}
        alone.states[-1] = {**alone.state, **{f"model/{key}": t for key, t in mine.items()}}
        alone.run(4)
        singles.append(alone)
    for _ in range(3):
        loop.step()
        assert loop.state["alive"].all() and loop.state["weights"].sum(1).allclose(torch.ones(6))
    loop.step()
    best = int(loop.state["best"])
    assert loop.state["alive"].tolist() == [True, True], "the groups of the start that goes on are 0 and 1"
    for key, t in models(loop.state).items():
        torch.testing.assert_close(t, models(singles[best].state)[key])
    torch.testing.assert_close(loop.state["weights"], singles[best].state["weights"])
    fits = [sum(float(fit(single, i)) for i in range(6)) for single in singles]
    assert best == max(range(3), key=fits.__getitem__)
    assert loop.newcomer(concepts(7)[6]).shape == (2,)
    loop.run(2)
    assert algorithm.payload(loop.state, 0).groups == [0, 1]
    for i, memory in enumerate(loop.memory):  # a client remembers its weights among those of all starts
        torch.testing.assert_close(memory["omega"][0, 2 * best : 2 * best + 2], loop.state["weights"][i])


def fit(loop, client):
    """The log-likelihood of a client in the last round that ran, by loops over samples and groups."""
    before = loop.states[-2]
    cohort = loop.cohort(client)
    costs = loop.algorithm.costs(cohort, deliver(before, loop.algorithm.payload(before, client)))[0]
    omega = before["weights"][client]
    samples = range(costs.shape[1])
    return sum(math.log(sum(float(omega[k] * torch.exp(-costs[k, j])) for k in range(2))) for j in samples)


def test_one_group_needs_no_second_start():
    state = make_algorithm("fedrc", {"n_groups": 1, "restarts": 3}).start(torch.ones(2), MODEL, 0)
    assert len(state["alive"]) == 1
