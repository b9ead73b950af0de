"""The strategy's loop against a plain loop without Flower, its order of things, and what it keeps."""

import math
from dataclasses import replace

import pytest
import torch
from flwr.app import Error, Message

from fedclust.algorithms import algorithm_names, make_algorithm
from fedclust.participant import ALL
from fedclust.rounds import select
from simulations.engines.inprocess import InProcessGrid
from tests.fedclust.flower import Flower, settings
from tests.fedclust.loop import TRAINING, Loop, concepts

NEEDS = {"oracle": {"true_groups": (0, 1, 0, 1, 0, 1)}}


def same_state(a, b):
    names = set(a) - {"round"}
    assert names == set(b) - {"round"}
    for name in names:
        assert torch.equal(a[name].nan_to_num(-1), b[name].nan_to_num(-1)), name


@pytest.mark.parametrize("name", algorithm_names())
def test_a_run_through_flower_is_the_plain_loop(name):
    extra = NEEDS.get(name, {})
    result = Flower(settings(name, settings=extra)).run()
    loop = Loop(make_algorithm(name, extra, TRAINING), concepts())
    same_state(result.state, loop.algorithm.finished(loop.run(3)))
    assert [row["accuracy"] for row in result.clients] == pytest.approx([loop.evaluate(i) for i in range(6)])
    assert not any(row["failures"] for row in result.history.rounds)


class Reversed(InProcessGrid):
    """Replies come in the opposite order."""

    def send_and_receive(self, messages, *, timeout=None):
        return super().send_and_receive(messages, timeout=timeout)[::-1]


def test_the_result_does_not_depend_on_which_reply_comes_first():
    config = settings("fedrc", fraction=0.7)
    one, other = Flower(config).run(), Flower(config, grid_class=Reversed).run()
    same_state(one.state, other.state)
    assert one.clients == other.clients


def test_nodes_in_another_order_are_the_same_clients():
    clients = concepts()
    one, other = Flower(settings("ifca"), clients).run(), Flower(settings("ifca"), clients[::-1]).run()
    assert one.ids == other.ids == [c.id for c in clients]
    same_state(one.state, other.state)


def test_selection_is_seeded_sorted_and_of_the_right_size():
    chosen = [select(20, 0.3, 0, r) for r in range(50)]
    assert all(c == sorted(set(c)) and len(c) == 6 for c in chosen)
    assert chosen == [select(20, 0.3, 0, r) for r in range(50)] and chosen != [select(20, 0.3, 1, r) for r in range(50)]
    assert len({tuple(c) for c in chosen}) > 40
    counts = torch.tensor(chosen).flatten().bincount(minlength=20)
    assert counts.min() >= 5, "everyone has its turn"
    assert select(20, 0.001, 0, 0) and select(7, 1.0, 0, 0) == list(range(7))


def test_the_selected_clients_take_part_and_the_others_are_left_alone():
    flower = Flower(settings(fraction=0.5, rounds=4))
    result = flower.run()
    for r, row in enumerate(result.history.rounds):
        assert row["participants"] == [result.ids[i] for i in select(6, 0.5, 0, r)]
        told = ~result.history.tables["after_accuracy"][r].isnan()
        assert told.nonzero()[:, 0].tolist() == select(6, 0.5, 0, r)


def test_an_algorithm_that_needs_everyone_gets_everyone(monkeypatch):
    cls = type(make_algorithm("fedavg"))
    monkeypatch.setattr(cls, "needs_everyone", lambda self, state: int(state["round"]) == 1)
    result = Flower(settings(fraction=0.5)).run()
    assert [len(row["participants"]) for row in result.history.rounds] == [3, 6, 3]


def test_preparation_rounds_are_negative_and_have_a_phase_of_their_own(monkeypatch):
    cls, seen = type(make_algorithm("fedavg")), []
    payload, update = cls.payload, cls.update
    monkeypatch.setattr(cls, "preparation_rounds", lambda self, n: 2)
    monkeypatch.setattr(cls, "payload", lambda self, state, i: replace(
        payload(self, state, i), phase="warm" if int(state["round"]) < 0 else "train"))

    def watched(self, state, reports):
        seen.append((int(state["round"]), reports.phase))
        return update(self, state, reports)

    monkeypatch.setattr(cls, "update", watched)
    result = Flower(settings()).run()
    assert seen == [(-2, "warm"), (-1, "warm"), (0, "train"), (1, "train"), (2, "train")]
    assert [row["round"] for row in result.history.rounds] == [-2, -1, 0, 1, 2]
    measured = ~result.history.tables["before_accuracy"].isnan().all(1)
    assert measured.tolist() == [False, False, True, True, True], "a preparation round is not evaluated"


def test_before_is_the_state_of_the_round_before():
    result = Flower(settings(rounds=3)).run()
    loop = Loop(make_algorithm("fedavg", {}, TRAINING), concepts())
    for r in range(3):
        expected = [loop.evaluate(i) for i in range(6)]
        assert result.history.tables["before_accuracy"][r].tolist() == pytest.approx(expected)
        assert result.history.rounds[r]["mean"]["before_accuracy"] == pytest.approx(sum(expected) / 6)
        loop.step()
    assert result.history.tables["before_accuracy_validation"].isnan().all(), "these clients have no such samples"
    assert result.clients[0]["accuracy_validation"] is None


@pytest.mark.parametrize(("every", "rounds"), [(0, []), (1, [0, 1, 2]), (2, [0, 2])])
def test_clients_evaluate_as_often_as_they_are_told(every, rounds):
    result = Flower(settings(evaluate_every=every)).run()
    table = result.history.tables.get("after_loss", torch.full((3, 6), math.nan))
    assert (~table.isnan().all(1)).nonzero()[:, 0].tolist() == rounds
    assert all(row["accuracy"] is not None for row in result.clients), "everyone is evaluated after the last round"


def test_groups_over_rounds_and_final_weights():
    result = Flower(settings("ifca", settings={"n_groups": 2}, rounds=4)).run()
    assert torch.equal(result.history.tables["group"][-1], result.state["weights"].argmax(1).float())
    assert result.weights.shape == (6, 2) and result.weights.sum(1).tolist() == [1] * 6
    one = Flower(settings("ifca", settings={"n_groups": 2}, rounds=1, fraction=0.5)).run()
    assert one.history.tables["group"][0].isnan().sum() == 3, "three clients have no group yet"


def test_a_client_without_a_group_is_not_filed_under_the_model_that_it_is_evaluated_with():
    absent = Flower(settings("hierarchical", settings={"warmup": 1, "cut": "k", "n_groups": 2}, rounds=2),
                    spoil={"c01": lambda message, _: Message(Error(0, "away"), reply_to=message)})
    result = absent.run()
    assert result.weights[1].isnan().all() and not result.weights[[0, 2, 3, 4, 5]].isnan().any()
    assert result.clients[1]["accuracy"] is not None, "the warm model's"


def test_bytes_are_counted_by_the_tensor():
    result = Flower(settings("ifca", settings={"n_groups": 3}, rounds=2)).run()
    model = 4 * (6 * 8 + 8 + 8 * 4 + 4)
    assert [row["bytes_down"] for row in result.history.rounds] == [6 * 3 * model] * 2
    assert [row["bytes_up"] for row in result.history.rounds] == [6 * (model + 8)] * 2, "its model and its group"
    assert result.traffic["rounds"] == {"down": 2 * 6 * 3 * model, "up": 2 * 6 * (model + 8)}
    assert result.traffic["evaluation"] == {"down": 6 * 3 * model, "up": 6 * 3 * 4}


def test_a_monitor_sees_every_round():
    told = []

    class Watch:
        checkpoint = None

        def start(self, total, what):
            told.append((total, what))

        def step(self, step, values, labels=None):
            told.append((step, sorted(values)))

    Flower(settings(rounds=2)).run(monitor=Watch())
    names = ["after_accuracy", "after_loss", "before_accuracy", "before_loss", "loss"]
    assert told == [(2, "rounds"), (0, names), (1, names)]


NEWCOMERS = [replace(c, id=f"new{i}") for i, c in enumerate(concepts(2, 2))]


def test_newcomers_are_assigned_from_few_and_from_all_labels():
    result = Flower(settings("ifca", settings={"n_groups": 2}, rounds=8), unseen=NEWCOMERS).run()
    trials = [(r["client"], r["shots"], r["draw"], r["labels_used"]) for r in result.unseen]
    one = [(None, 0, True), (0, 0, False), (2, 0, True), (2, 1, True)]
    assert trials == [(f"new{i}", *t) for i in range(2) for t in one]
    assert result.unseen_weights.shape == (8, 2)
    for row, weights in zip(result.unseen, result.unseen_weights, strict=True):
        assert row["undetermined"] == (row["shots"] == 0) == bool(weights.isnan().any())
        assert (row["accuracy"] is None) == row["undetermined"] and row["error"] is None
    assert result.ids == [c.id for c in concepts()], "newcomers do not train"


def test_a_newcomer_fares_as_a_cohort_of_it_would():
    config = settings("fedrc", settings={"n_groups": 2}, rounds=4)
    flower = Flower(config, unseen=NEWCOMERS)
    result = flower.run()
    loop = Loop(make_algorithm("fedrc", {"n_groups": 2}, TRAINING), concepts())
    loop.states.append(loop.algorithm.finished(loop.run(4)))
    for i, client in enumerate(NEWCOMERS):
        weights = loop.newcomer(client)
        assert torch.allclose(result.unseen_weights[4 * i], weights)
        group = {name: t[weights.argmax()][None, None] for name, t in result.state.items() if name.startswith("model/")}
        model = {name.removeprefix("model/"): t for name, t in group.items()}
        cohort = flower.participants[6 + i].cohort(4, {})
        expected = cohort.evaluate(model, torch.ones(1, 1), hard=True)["accuracy"]
        assert result.unseen[4 * i]["accuracy"] == pytest.approx(float(expected))


def test_shots_are_drawn_by_client_number_and_draw():
    me = Flower(settings(), unseen=NEWCOMERS).participants[6]

    def labels(m, draw):
        return me.with_shots(m, draw).train.x.sum(1).tolist()

    assert len(labels(5, 0)) == 5 and labels(5, 0) == labels(5, 0) != labels(5, 1)
    assert labels(ALL, 0) == labels(1000, 0) == me.data.train.x.sum(1).tolist()
    assert set(labels(5, 1)) <= set(labels(ALL, 0))
    assert me.with_shots(5, 0).test is me.data.test
