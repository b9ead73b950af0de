"""IFCA and FeSEM: one group a client, chosen anew in every round."""

import itertools

import pytest
import torch

from fedclust.algorithms import make_algorithm
from fedclust.algorithms.base import Delivery, models
from tests.fedclust.loop import MODEL, TRAINING, Loop, concepts, deliver


def losses_by_loops(client, group_models, k):
    one = {key: t[k] for key, t in group_models.items()}
    total = 0.0
    for x, y in zip(client.train.x, client.train.y.tolist(), strict=True):
        total -= float(torch.log_softmax(MODEL.logits(one, x[None])[0], 0)[y])
    return total


def test_ifca_clients_train_the_model_that_fits_best_and_say_which():
    clients = concepts(4)
    loop = Loop(make_algorithm("ifca", {"n_groups": 3}, TRAINING), clients)
    loop.run(3)
    old = models(loop.state)
    best = [min(range(3), key=lambda k, c=c: losses_by_loops(c, old, k)) for c in clients]
    cohort, delivery = loop.cohort(1), deliver(loop.state, loop.algorithm.payload(loop.state, 1))
    report = loop.algorithm.local_step(cohort, delivery)
    assert report.arrays["group"].tolist() == [best[1]]
    mine = {key: t[best[1]][None, None] for key, t in old.items()}
    for key, t in cohort.train(mine, TRAINING).items():
        assert torch.equal(report.models[key], t)
    new = loop.step()
    assert new["weights"].argmax(1).tolist() == best
    for k in range(3):
        members = [i for i in range(4) if best[i] == k]
        if not members:
            assert all(torch.equal(models(new)[key][k], t[k]) for key, t in old.items())


def test_ifca_separates_concepts_and_places_newcomers():
    loop = Loop(make_algorithm("ifca", {"n_groups": 2}, TRAINING), concepts(6))
    weights = loop.run(20)["weights"]
    assert weights.argmax(1).tolist() in ([0, 1] * 3, [1, 0] * 3)
    for client in concepts(8)[6:]:
        assert loop.newcomer(client).tolist() == weights[int(client.id[1:]) % 2].tolist()


def test_of_several_starts_of_ifca_the_one_with_the_least_loss_goes_on():
    algorithm = make_algorithm("ifca", {"n_groups": 2, "restarts": 3, "trial_rounds": 4}, TRAINING)
    loop, singles = Loop(algorithm, concepts(6)), []
    for s in range(3):  # each start alone, from the same models
        alone = Loop(make_algorithm("ifca", {"n_groups": 2}, TRAINING), concepts(6))
        mine = {key: t[2 * s : 2 * s + 2] for key, t in models(loop.state).items()}
        alone.states[-1] = {**alone.state, **{f"model/{key}": t for key, t in mine.items()}}
        alone.run(4)
        singles.append(alone)
    spent = []
    for r in range(4):
        before = [models(single.states[r]) for single in singles]
        spent.append([sum(min(losses_by_loops(c, of, k) for k in range(2)) for c in loop.clients) for of in before])
        leads = min(range(3), key=spent[-1].__getitem__)
        found = loop.step()["weights"]
        mine = slice(2 * leads, 2 * leads + 2) if r < 3 else slice(0, 2)
        assert torch.equal(found[:, mine], singles[leads].states[r + 1]["weights"]) and found.sum() == 6
        assert algorithm.payload(loop.state, 0).groups == list(range(6 if r < 3 else 2))
    for key, t in models(loop.state).items():
        torch.testing.assert_close(t, models(singles[leads].state)[key])
    assert {*loop.state} == {*singles[leads].state}, "nothing is left of the trial"
    after = loop.run(2)["weights"]
    assert torch.equal(after, singles[leads].run(2)["weights"])


def test_the_leading_start_of_ifca_predicts_and_takes_newcomers():
    algorithm = make_algorithm("ifca", {"n_groups": 2, "restarts": 2, "trial_rounds": 99}, TRAINING)
    loop = Loop(algorithm, concepts(7))
    loop.run(6)
    loop.step([0, 1, 2])
    state = loop.state
    assert not state["weights"].isnan().any(), "who was not asked keeps its group in every start"
    leads = int(state["best"])
    for client in concepts(9)[7:]:
        held = {key: t[2 * leads : 2 * leads + 2] for key, t in models(state).items()}
        best = 2 * leads + min(range(2), key=lambda k, c=client, of=held: losses_by_loops(c, of, k))
        assert loop.newcomer(client).tolist() == [float(k == best) for k in range(4)]
    assert make_algorithm("ifca", {"n_groups": 1, "restarts": 3}).starts == 1


def test_fesem_moves_clients_to_the_nearest_centre():
    clients = concepts(4)
    loop = Loop(make_algorithm("fesem", {"n_groups": 3, "start_from": "random"}, TRAINING), clients)
    assert loop.algorithm.payload(loop.state, 0).groups == [0, 1, 2], "nothing is known about the client yet"
    sent = {}

    def keep(reports):
        # client 2 answers with a model next to centre 1
        for key, t in models(loop.state).items():
            reports.models[key][2, 0] = t[1] + 0.01
            sent[key] = reports.models[key][:, 0].clone()
        return reports

    old = models(loop.state)
    new = loop.step(spoil=keep)

    def distance(i, k):
        return sum(float((sent[key][i] - old[key][k]).square().sum()) for key in old)

    nearest = [min(range(3), key=lambda k, i=i: distance(i, k)) for i in range(4)]
    assert new["weights"].argmax(1).tolist() == nearest and nearest[2] == 1
    for key, t in models(new).items():
        assert torch.equal(models(new, "local")[key], sent[key])
        for k in range(3):
            members = [i for i in range(4) if nearest[i] == k]
            n = [float(loop.n[i]) for i in members]
            mean = sum(w * sent[key][i] for w, i in zip(n, members, strict=True)) / sum(n) if members else old[key][k]
            torch.testing.assert_close(t[k], mean)
    assert loop.algorithm.payload(new, 2).groups == [1], "from now on only the model of its group travels"


@pytest.mark.parametrize("start_from", ["random", "kmeans"])
def test_fesem_keeps_the_last_model_of_a_client_that_is_away(start_from):
    loop = Loop(make_algorithm("fesem", {"n_groups": 2, "start_from": start_from}, TRAINING), concepts(4))
    loop.step([0, 1])
    assert loop.state["weights"].isnan().all(1).tolist() == [False, False, True, True]
    held = {key: t[0].clone() for key, t in models(loop.state, "local").items()}
    loop.step([1, 2, 3])
    assert all(torch.equal(models(loop.state, "local")[key][0], t) for key, t in held.items())
    assert not loop.state["weights"].isnan().any()


def inertia(vectors, n, groups):
    """sum_i n_i |W_i - centre of its group|^2, the centres being means weighted by n_i."""
    total = 0.0
    for k in set(groups):
        members = [i for i, g in enumerate(groups) if g == k]
        centre = sum(n[i] * vectors[i] for i in members) / sum(n[i] for i in members)
        total += sum(float(n[i] * (vectors[i] - centre).square().sum()) for i in members)
    return total


def test_fesem_starts_from_the_best_k_means_of_the_first_weights():
    loop, sent = Loop(make_algorithm("fesem", {"n_groups": 2}, TRAINING), concepts(5)), {}
    first = models(loop.state)
    assert all(torch.equal(t[0], t[1]) for t in first.values()), "one model for everyone"
    assert loop.algorithm.payload(loop.state, 3).groups == [0]
    assert loop.algorithm.needs_everyone({**loop.state, "round": torch.tensor(0)})

    def keep(reports):
        sent.update({key: t[:, 0].clone() for key, t in reports.models.items()})
        return reports

    found = loop.step(spoil=keep)["weights"].argmax(1).tolist()
    flat = torch.cat([t.flatten(1) for _, t in sorted(sent.items())], 1)
    best = min(itertools.product(range(2), repeat=5), key=lambda groups: inertia(flat, loop.n, groups))
    assert found in (list(best), [1 - g for g in best]) and len(set(found)) == 2
    for key, t in models(loop.state).items():
        for k in range(2):
            members = torch.tensor(found) == k
            torch.testing.assert_close(t[k], torch.tensordot(loop.n[members] / loop.n[members].sum(),
                                                             sent[key][members], 1))
    assert not loop.algorithm.needs_everyone({**loop.state, "round": torch.tensor(1)})
    assert loop.algorithm.payload(loop.state, 3).groups == [found[3]]


def test_fesem_separates_concepts_whose_clients_start_from_one_model():
    weights = Loop(make_algorithm("fesem", {"n_groups": 2}, TRAINING), concepts(6)).run(5)["weights"]
    assert weights.argmax(1).tolist() in ([0, 1] * 3, [1, 0] * 3)


def test_fesem_takes_a_client_in_that_missed_the_first_round():
    loop = Loop(make_algorithm("fesem", {"n_groups": 3}, TRAINING), concepts(4))
    loop.step([0, 2])
    assert loop.state["weights"].isnan().all(1).tolist() == [False, True, False, True]
    assert sorted(loop.state["weights"][[0, 2]].argmax(1).tolist()) == [0, 1], "no more groups than clients"
    assert loop.algorithm.payload(loop.state, 1).groups == [0, 1, 2]
    assert not loop.step()["weights"].isnan().any()


@pytest.mark.parametrize("name", ["ifca", "fesem"])
def test_a_cohort_of_several_clients_makes_the_choices_of_each(name):
    clients = concepts(3)
    loop = Loop(make_algorithm(name, {"n_groups": 2}, TRAINING), clients)
    delivery = deliver(loop.state, loop.algorithm.payload(loop.state, 0))
    alone = [loop.algorithm.local_step(loop.cohort(i), delivery) for i in range(3)]
    together = Delivery({key: t.expand(3, *t.shape[1:]) for key, t in delivery.models.items()})
    all_at_once = loop.algorithm.local_step(
        type(loop.cohort(0))(clients, MODEL, seed=0, round=0), together)
    for i in range(3):
        for key, t in alone[i].models.items():
            torch.testing.assert_close(all_at_once.models[key][i], t[0], atol=1e-5, rtol=1e-4)
        for key, t in alone[i].arrays.items():
            assert torch.equal(all_at_once.arrays[key][i], t[0])
