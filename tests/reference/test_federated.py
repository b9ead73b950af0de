"""Federated algorithms against what their equations say, written out in loops."""

import itertools
import math

import numpy as np
import pytest
import torch

from fedclust.aggregate import group_means, weighted_mean
from fedclust.algorithms import make_algorithm
from fedclust.algorithms.base import Reports, initial_models, models
from fedclust.data.client import ClientData
from fedclust.task import Cohort
from tests.fedclust.loop import EMPTY, MODEL, TRAINING, blobs, deliver

K, C = 3, 4


def mixture_after(name: str, omega: torch.Tensor | None, class_weights: torch.Tensor):
    """One local step of two clients of unlike size in one cohort, from group models that are far from alike."""
    clients = [ClientData(f"c{i}", blobs(f"c{i}", n), EMPTY, EMPTY) for i, n in enumerate((5, 9))]
    algorithm = make_algorithm(name, {"n_groups": K, "restarts": 1}, TRAINING)
    state = algorithm.start(torch.tensor([5.0, 9.0]), MODEL, seed=3)
    for key in models(state):
        state[f"model/{key}"] = 4 * state[f"model/{key}"]
    if name == "fedrc":
        state["class_weights"] = class_weights
    delivery = deliver(state, algorithm.payload(state, 0))
    delivery.models = {key: t.expand(2, *t.shape[1:]) for key, t in delivery.models.items()}
    delivery.arrays = {key: t.expand(2, *t.shape[1:]) for key, t in delivery.arrays.items()}
    memory = {} if omega is None else {"omega": omega}
    cohort = Cohort(clients, MODEL, seed=0, round=0, memory=memory)
    report = algorithm.local_step(cohort, delivery)
    reports = Reports(torch.arange(2), torch.tensor([5.0, 9.0]), report.models, report.arrays)
    return clients, state, report, cohort, algorithm.update(state, reports)


def log_sum_exp(values):
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def e_step_by_loops(clients, group_models, omega, class_weights):
    """gamma[i][j][k] by logarithms of Python floats."""
    gamma = []
    for i, client in enumerate(clients):
        of_client = []
        for x, y in zip(client.train.x, client.train.y.tolist(), strict=True):
            logs = []
            for k in range(K):
                logits = MODEL.logits({key: t[k].double() for key, t in group_models.items()}, x[None].double())[0]
                loss = log_sum_exp(logits.tolist()) - logits[y].item()
                logs.append(math.log(omega[i][k]) - loss - math.log(class_weights[k][y]))
            total = log_sum_exp(logs)
            of_client.append([math.exp(v - total) for v in logs])
        gamma.append(of_client)
    return gamma


def over_relaxed_by_loops(old, fitted, eta):
    """omega^(1 - eta) fitted^eta of every client, normalised."""
    rows = [[(1 - eta) * math.log(a) + eta * math.log(b) for a, b in zip(*pair, strict=True)]
            for pair in zip(old, fitted, strict=True)]
    return [[math.exp(v - log_sum_exp(row)) for v in row] for row in rows]


@pytest.mark.parametrize("name", ["fedrc", "fedem"])
@pytest.mark.parametrize("first", [True, False])
def test_mixtures_e_step(name, first):
    held = torch.tensor([[0.7, 0.3 - 1e-6, 1e-6], [0.05, 0.15, 0.8]])
    omega = [[1 / 3] * K] * 2 if first else held.double().tolist()
    c = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.25] * C, [0.01, 0.01, 0.49, 0.49]])
    clients, state, report, cohort, after = mixture_after(name, None if first else held, c)
    weights = c.tolist() if name == "fedrc" else [[1.0] * C] * K
    gamma = e_step_by_loops(clients, models(state), omega, weights)
    fitted = [[sum(g[k] for g in of_client) / len(of_client) for k in range(K)] for of_client in gamma]
    new_omega = over_relaxed_by_loops(omega, fitted, 1.9 if name == "fedrc" else 1)
    np.testing.assert_allclose(report.arrays["weights"].numpy(), new_omega, atol=1e-5)
    np.testing.assert_allclose(cohort.memory["omega"].numpy(), new_omega, atol=1e-5)
    np.testing.assert_allclose(after["weights"].numpy(), new_omega, atol=1e-5)
    if name == "fedrc":
        counts = np.zeros((K, C))
        for client, of_client in zip(clients, gamma, strict=True):
            for y, g in zip(client.train.y.tolist(), of_client, strict=True):
                counts[:, y] += g
        expected = np.maximum(counts, 1e-8)
        np.testing.assert_allclose(after["class_weights"].numpy(), expected / expected.sum(1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(("name", "aggregation"), list(itertools.product(["fedrc", "fedem"], ["n", "omega"])))
def test_mixtures_aggregation(name, aggregation):
    algorithm = make_algorithm(name, {"n_groups": 2, "aggregation": aggregation, "restarts": 1}, TRAINING)
    state = algorithm.start(torch.tensor([1.0, 2.0, 4.0]), MODEL, 0)
    sent = {key: torch.randn(3, 2, *t.shape[1:], generator=torch.Generator().manual_seed(1))
            for key, t in models(state).items()}
    omega = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    n = torch.tensor([1.0, 2.0, 4.0])
    arrays = {"weights": omega, "counts": torch.ones(3, 2, C)}
    new = models(algorithm.update(state, Reports(torch.arange(3), n, sent, arrays)))
    for key, t in sent.items():
        for k in range(2):
            w = [float(n[i]) * (float(omega[i, k]) if aggregation == "omega" else 1) for i in range(3)]
            torch.testing.assert_close(new[key][k], sum(w[i] * t[i, k] for i in range(3)) / sum(w))


def test_aggregation_by_hand():
    sent = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 8.0]])}
    assert weighted_mean(sent, torch.tensor([1.0, 1.0, 2.0]))["w"].tolist() == [3.5, 5.5]
    previous = {"w": torch.tensor([[9.0, 9.0], [7.0, 7.0], [5.0, 5.0]]), "steps": torch.tensor([1, 2, 3])}
    weights = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    found = group_means({**sent, "steps": torch.tensor([10, 20, 30])}, weights, previous)
    assert found["w"].tolist() == [[2.0, 3.0], [7.0, 7.0], [5.0, 8.0]], "the empty group keeps its model"
    assert found["steps"].tolist() == [1, 2, 3], "counters are not averaged"


def test_aggregation_of_one_model_for_every_group():
    sent = {"w": torch.tensor([[[1.0], [2.0]], [[3.0], [6.0]], [[5.0], [7.0]]])}  # three clients, two groups
    weights = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0]])
    assert group_means(sent, weights, {"w": torch.tensor([[0.0], [4.0]])})["w"].tolist() == [[2.5], [4.0]]


# --- CFL: twelve clients whose updates agree by pairs of bits of a number that has nothing to do with their position --


CODES = [5, 0, 3, 6, 1, 4, 2, 7, 0, 5, 3, 6]
"""Client i pulls in the direction of CODES[i]: bit 2 decides the first split, bit 1 the second and third."""


def pull(code: int, level: int, size: int) -> torch.Tensor:
    """An update in which the clients of one group disagree about the bit of ``level``, and agree about the others."""
    g = torch.Generator().manual_seed(code)
    v = 0.05 * torch.randn(size, generator=g)
    for bit in range(level, 3):
        v[bit] += 3.0 / 3 ** (bit - level) * (1 if code >> (2 - bit) & 1 else -1)
    return v


def two_clusters_by_loops(updates):
    """Complete linkage on 1 - cos, merged until two clusters are left."""
    clusters = [[i] for i in range(len(updates))]

    def height(pair):
        several = itertools.product(clusters[pair[0]], clusters[pair[1]])
        return max(1 - float(updates[i] @ updates[j] / (updates[i].norm() * updates[j].norm())) for i, j in several)

    while len(clusters) > 2:
        a, b = min(itertools.combinations(range(len(clusters)), 2), key=height)
        clusters[a] += clusters.pop(b)
    return clusters


def cfl_by_loops(groups, updates, rho):
    """Groups as lists of client numbers, after one round that may split."""
    out = []
    for members in groups:
        mine = [updates[i] for i in members]
        mean, longest = sum(mine) / len(mine), max(float(u.norm()) for u in mine)
        if len(members) > 2 and float(mean.norm()) < rho * longest:
            out += [sorted(members[i] for i in child) for child in two_clusters_by_loops(mine)]
        else:
            out.append(members)
    return sorted(out)


def test_cfl_loses_and_doubles_no_client_over_three_successive_splits():
    n = len(CODES)
    algorithm = make_algorithm("cfl", {"first_split": 0, "rho": 0.5}, TRAINING)
    state = algorithm.start(torch.ones(n), MODEL, 0)
    size = sum(t[0].numel() for t in models(state).values())
    expected, seen = [list(range(n))], []
    for r in range(4):
        groups = state["weights"].argmax(1)
        updates = [pull(code, min(r, 2), size) for code in CODES]
        old, sent, at = models(state), {}, 0
        for key in sorted(old):
            flat = torch.stack([u[at : at + old[key][0].numel()] for u in updates])
            sent[key] = (old[key][groups] + flat.view(n, *old[key].shape[1:]))[:, None]
            at += old[key][0].numel()
        state = algorithm.update({**state, "round": torch.tensor(r)}, Reports(torch.arange(n), torch.ones(n), sent, {}))
        expected = cfl_by_loops(expected, updates, 0.5)
        weights = state["weights"]
        assert ((weights == 0) | (weights == 1)).all() and (weights.sum(1) == 1).all()
        found = sorted(weights[:, k].nonzero()[:, 0].tolist() for k in range(weights.shape[1]))
        assert found == expected
        seen.append(len(found))
        for k in range(weights.shape[1]):  # each group's model is the mean of its members' models
            members = weights[:, k].bool()
            for key, t in models(state).items():
                torch.testing.assert_close(t[k], sent[key][members, 0].mean(0), atol=1e-5, rtol=1e-4)
    assert seen == [2, 4, 8, 8], "the clients' codes fall apart bit by bit"
    assert found == sorted([i for i in range(n) if CODES[i] == code] for code in range(8))


def test_cfl_takes_newcomers_down_the_tree():
    n = len(CODES)
    algorithm = make_algorithm("cfl", {"first_split": 0, "rho": 0.5}, TRAINING)
    state = algorithm.start(torch.ones(n), MODEL, 0)
    key = "head.layers.0.weight"  # the first three numbers of this parameter carry the codes
    width = models(state)[key][0].numel()
    for r in range(3):
        groups = state["weights"].argmax(1)
        sent = {name: t[groups][:, None].clone() for name, t in models(state).items()}
        sent[key] += torch.stack([pull(code, r, width).view(1, *sent[key].shape[2:]) for code in CODES])
        state = algorithm.update({**state, "round": torch.tensor(r)}, Reports(torch.arange(n), torch.ones(n), sent, {}))
    assert state["tree"].shape == (7, 2) and state["weights"].shape == (n, 8)
    depth = [0, 1, 1, 2, 2, 2, 2]  # the round in which each of the seven splits was made
    assert algorithm.newcomer(state).groups == list(range(7))
    for code in range(8):
        answer = {name: t[None].clone() for name, t in models(state, "node").items()}
        for m, level in enumerate(depth):
            answer[key][0, m] += pull(code, level, width).view(answer[key].shape[2:])
        weights = algorithm.assign(state, Reports(torch.zeros(1).long(), torch.ones(1), answer, {}))
        assert weights.argmax() == state["weights"][CODES.index(code)].argmax()


def test_every_algorithm_starts_from_the_same_first_model():
    first = {key: t[0] for key, t in initial_models(MODEL, 7, 1).items()}
    for name in ("fedavg", "ifca", "fedrc", "fesem", "cfl"):
        state = make_algorithm(name).start(torch.ones(5), MODEL, 7)
        assert all(torch.equal(t[0], first[key]) for key, t in models(state).items())
