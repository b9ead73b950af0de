"""CFL: when groups are split, and who is asked (the splits themselves: tests/reference/test_federated.py)."""

import math

import pytest
import torch

from fedclust.algorithms import make_algorithm
from fedclust.algorithms.base import Reports, models
from graphclust.graph import InputError
from tests.fedclust.loop import MODEL, TRAINING, Loop, concepts

KEY = "head.layers.0.bias"  # four numbers


def after(updates, n=None, who=None, round=0, state=None, **settings):
    """The state after replies whose updates (S, 4) are these in one parameter and zero elsewhere."""
    algorithm = make_algorithm("cfl", {"first_split": 0, **settings}, TRAINING)
    updates = torch.tensor(updates, dtype=torch.float32)
    who = list(range(len(updates))) if who is None else who
    state = state or algorithm.start(torch.ones(len(updates)), MODEL, 0)
    groups = state["weights"][who].argmax(1)
    sent = {name: t[groups][:, None].clone() for name, t in models(state).items()}
    sent[KEY][:, 0] += updates
    n = torch.ones(len(updates)) if n is None else torch.tensor(n)
    return algorithm.update({**state, "round": torch.tensor(round)}, Reports(torch.tensor(who), n, sent, {}))


def groups(state):
    return state["weights"].argmax(1).tolist()


OPPOSED = [[1.0, 0, 0, 0], [-1.0, 0.1, 0, 0], [0.9, 0.1, 0, 0], [-0.9, 0, 0.1, 0]]


def test_opposed_clients_are_split_and_agreeing_ones_are_not():
    assert groups(after(OPPOSED)) == [0, 1, 0, 1]
    assert groups(after([[1.0, 0.1 * i, 0, 0] for i in range(4)])) == [0] * 4


def test_the_mean_counts_samples():
    # |mean| / max |Delta| = .5 for equal clients; 0 when the single one has as many samples as the other three
    updates = [[1.0, 0, 0, 0], [1.0, 0, 0, 0], [1.0, 0, 0, 0], [-1.0, 0, 0, 0]]
    assert groups(after(updates)) == [0] * 4
    assert groups(after(updates, n=[1.0, 1.0, 1.0, 3.0])) == [0, 0, 0, 1]


def test_two_clients_stay_together_and_nobody_is_split_before_the_first_round_for_it():
    assert groups(after(OPPOSED[:2])) == [0, 0]
    assert groups(after(OPPOSED, round=4, first_split=5)) == [0] * 4
    assert groups(after(OPPOSED, round=5, first_split=5)) == [0, 1, 0, 1]


def test_absolute_lengths_in_place_of_the_ratio():
    # mean (0, .05, .025, 0): length .056; longest 1.005
    assert groups(after(OPPOSED, eps1=0.06, eps2=1.0)) == [0, 1, 0, 1]
    assert groups(after(OPPOSED, eps1=0.05, eps2=1.0)) == [0] * 4
    assert groups(after(OPPOSED, eps1=0.06, eps2=1.1)) == [0] * 4
    with pytest.raises(InputError, match="eps1 and eps2 belong together"):
        make_algorithm("cfl", {"eps1": 0.4})


def test_gap_test():
    units = [torch.tensor(u) / torch.tensor(u).norm() for u in OPPOSED]
    alpha = max(float(units[i] @ units[j]) for i in (0, 2) for j in (1, 3))
    gap = math.sqrt((1 - alpha) / 2)
    assert groups(after(OPPOSED, gamma_max=gap - 1e-3)) == [0, 1, 0, 1]
    assert groups(after(OPPOSED, gamma_max=gap + 1e-3)) == [0] * 4


def test_a_group_is_split_only_when_all_its_members_answered():
    state = after(OPPOSED * 2)
    assert groups(state) == [0, 1] * 4
    second = [[0, 1.0, 0, 0], [0, 1.0, 0, 0], [0, 1.0, 0, 0], [0, -1.0, 0, 0], [0, -1.0, 0, 0], [0, -1.0, 0, 0]]
    state = after(second, who=[0, 1, 2, 4, 6, 7], state=state)
    # group 0 = {0, 2, 4, 6}, all there, is split into {0, 2} and {4, 6}; of group 1 = {1, 3, 5, 7} two are away
    assert groups(state) == [0, 1, 0, 1, 2, 1, 2, 1]
    assert state["tree"].tolist() == [[1, -2], [-1, -3]]


def test_groups_need_not_be_numbered_as_their_splits():
    state = after(OPPOSED * 2)
    third = [[0, s, 0, 0] for s in (1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0)]
    state = after(third, state=state)
    assert groups(state) == [0, 1, 0, 1, 2, 3, 2, 3] and state["tree"].tolist() == [[1, 2], [-1, -3], [-2, -4]]


def test_everyone_is_asked_once_splits_may_happen():
    algorithm = make_algorithm("cfl", {"first_split": 3}, TRAINING)
    state = algorithm.start(torch.ones(4), MODEL, 0)
    assert [algorithm.needs_everyone({**state, "round": torch.tensor(r)}) for r in (2, 3, 4)] == [False, True, True]


def test_concepts_are_found_and_newcomers_join_them():
    loop = Loop(make_algorithm("cfl", {"first_split": 8}, TRAINING), concepts(6))
    weights = loop.run(20)["weights"]
    for client in concepts(8)[6:]:
        assert loop.newcomer(client).argmax() == weights[int(client.id[1:]) % 2].argmax()
    together = weights @ weights.T
    assert all(together[i, j] == 0 for i in range(6) for j in range(6) if (i + j) % 2), "no group mixes two concepts"
