"""Local training, FedAvg, FedProx and the oracle."""

import pytest
import torch

from fedclust.algorithms import algorithm_names, get_algorithm, make_algorithm
from fedclust.algorithms.base import models
from fedclust.evaluation import evaluate
from fedclust.outcome import outcome
from fedclust.rounds import select
from fedclust.task import Training
from graphclust.graph import InputError
from tests.fedclust.flower import Flower, settings
from tests.fedclust.loop import TRAINING, Loop, concepts, deliver


def test_fedavg_is_the_weighted_mean_of_its_clients():
    loop = Loop(make_algorithm("fedavg", training=TRAINING), concepts(3))
    start = {key: t[None] for key, t in models(loop.state).items()}
    trained = [loop.cohort(i).train(start, TRAINING) for i in range(3)]
    n = [20.0, 25.0, 30.0]
    assert loop.n.tolist() == n
    new = models(loop.step())
    for key, t in new.items():
        torch.testing.assert_close(t[0], sum(n[i] * trained[i][key][0, 0] for i in range(3)) / 75)


def test_fedprox_stays_nearer_to_the_sent_model():
    def distance(mu):
        loop = Loop(make_algorithm("fedprox", {"mu": mu}, TRAINING), concepts(3))
        old, new = models(loop.state), models(loop.step())
        return sum(float((new[key] - old[key]).square().sum()) for key in old)

    assert distance(0.0) > 1.1 * distance(1.0) > 1.1 * distance(4.0)


def test_local_clients_train_alone_and_nothing_travels_after_the_first_round():
    clients = concepts(3)
    loop = Loop(make_algorithm("local", training=TRAINING), clients)
    assert loop.algorithm.payload(loop.state, 0).groups == [0]
    loop.step([0, 2])
    assert [loop.algorithm.payload(loop.state, i).groups for i in range(3)] == [[], [0], []]
    loop.step()
    report = loop.algorithm.local_step(loop.cohort(0), deliver(loop.state, loop.algorithm.payload(loop.state, 0)))
    assert report.models == {} and report.arrays == {}
    assert torch.equal(loop.state["weights"], torch.eye(3)[[0, 2, 1]])  # numbered as they began
    # the second client began a round later: one round of it equals its memory
    start = {key: t[None] for key, t in models(loop.states[0]).items()}
    loop.round = 1
    expected = loop.cohort(1).train(start, TRAINING)
    assert all(torch.equal(loop.memory[1][f"model/{key}"], t) for key, t in expected.items())


def test_local_has_no_result_for_a_client_that_was_never_drawn():
    flower = Flower(settings("local", rounds=1, fraction=0.5))
    result = flower.run()
    drawn = select(6, 0.5, 0, 0)
    assert result.history.rounds[0]["participants"] == [result.ids[i] for i in drawn]
    for i, row in enumerate(result.clients):
        if i in drawn:
            assert row["accuracy"] is not None and row["error"] is None
            assert result.weights[i].tolist() == [float(i == j) for j in drawn]  # nothing for those who never began
        else:
            assert row["accuracy"] is None and "no model" in row["error"]
            assert result.weights[i].isnan().all()
    tables = outcome(result, {})
    assert (tables.found >= 0).nonzero()[0].tolist() == drawn and evaluate(tables)["unassigned"] == 0.5
    trained = [row["accuracy"] for i, row in enumerate(result.clients) if i in drawn]
    assert evaluate(tables)["local"] == pytest.approx(sum(trained) / 3)


def test_local_equals_sgd_without_a_federation():
    clients = concepts(2)
    loop = Loop(make_algorithm("local", training=TRAINING), clients)
    loop.run(4)
    alone = Loop(make_algorithm("fedavg", training=TRAINING), clients[1:])
    alone.run(4)
    for key, t in models(alone.state).items():
        torch.testing.assert_close(loop.memory[1][f"model/{key}"][0], t)
    assert loop.evaluate(1) == alone.evaluate(0)


def test_oracle_is_fedavg_in_every_true_group():
    clients, groups = concepts(5), (7, 2, 7, 2, 2)
    state = Loop(make_algorithm("oracle", {"true_groups": groups}, TRAINING), clients).run(4)
    for k, true in enumerate(sorted(set(groups))):
        members = [c for c, g in zip(clients, groups, strict=True) if g == true]
        alone = Loop(make_algorithm("fedavg", training=TRAINING), members).run(4)
        for key, t in models(alone).items():
            torch.testing.assert_close(models(state)[key][k], t[0])
        assert state["weights"][:, k].tolist() == [float(g == true) for g in groups]


@pytest.mark.parametrize("given", [None, (0, 1), (0, 1, 0, 1)])
def test_oracle_needs_the_truth_about_every_client(given):
    with pytest.raises(InputError, match=r"true_groups of oracle.* 3 clients"):
        make_algorithm("oracle", {"true_groups": given}).start(torch.ones(3), Loop.model, 0)


def test_registry():
    assert {"cfl", "fedavg", "fedem", "fedprox", "fedrc", "fesem", "flhc", "hierarchical", "ifca", "local",
            "oracle"} <= set(algorithm_names())
    with pytest.raises(InputError, match="did you mean 'fedavg'"):
        get_algorithm("fedvag")
    with pytest.raises(InputError, match=r"settings of ifca: n_groups = 0: .*greater than or equal to 1"):
        make_algorithm("ifca", {"n_groups": 0})
    assert make_algorithm("fedavg", training=Training(lr=3.0)).training.lr == 3.0
