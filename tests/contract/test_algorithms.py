"""What every federated algorithm of the registry promises."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors.torch import load, save

from fedclust.algorithms import algorithm_names, get_algorithm, make_algorithm
from fedclust.algorithms.base import Reports, models, n_groups
from fedclust.data.client import Split
from graphclust.graph import InputError
from tests.fedclust.loop import TRAINING, Loop, concepts

N = 6
ROUNDS = 6
QUICK = {
    "cfl": {"first_split": 3, "rho": 0.9},
    "community": {"warmup": 3},
    "fedcollab": {"c": 4.0, "divergence": {"rounds": 8, "width": 16, "server_lr": 0.05}},
    "flhc": {"warmup": 3, "n_groups": 2},
    "hierarchical": {"warmup": 3, "min_size": 2},
    "oracle": {"true_groups": tuple(i % 2 for i in range(N))},
}
"""Settings under which six rounds see every phase of the algorithm."""
ONE_GROUP = {
    "cfl": {"first_split": 10**6},
    "community": {"method": "spectral", "n_groups": 1, "warmup": 2},
    "fedcollab": {"c": 1e9, "divergence": {"rounds": 2, "width": 2}},
    "fedprox": {"mu": 0.0},
    "hierarchical": {"warmup": 2, "cut": "k", "n_groups": 1, "meta": "fedavg"},
    "flhc": {"warmup": 2, "n_groups": 1},
    "oracle": {"true_groups": (4,) * N},
}
"""Settings under which the algorithm has one group; elsewhere ``n_groups`` is 1 where there is one."""


def make(name: str, **settings):
    known = get_algorithm(name).model_fields
    two = {"n_groups": 2} if "n_groups" in known and name not in QUICK else {}
    two |= {"restarts": 2, "trial_rounds": 3} if "restarts" in known else {}
    return make_algorithm(name, {**two, **QUICK.get(name, {}), **settings}, TRAINING)


def make_one_group(name: str):
    known = get_algorithm(name).model_fields
    return make_algorithm(name, ONE_GROUP.get(name, {"n_groups": 1} if "n_groups" in known else {}), TRAINING)


@cache
def finished(name: str) -> Loop:
    """The algorithm after all rounds; not to be run on."""
    loop = Loop(make(name), concepts(N))
    loop.run(ROUNDS)
    return loop


SOFT = ("fedem", "fedrc")
ONE_MODEL = ("fedavg", "fedprox", "local")
"""One model on the server, whatever happens."""


def same(a, b, besides=()) -> bool:
    """Equal states, bit for bit; NaN is NaN."""
    return a.keys() == b.keys() and all(
        torch.allclose(t, b[key], rtol=0, atol=0, equal_nan=True) for key, t in a.items() if key not in besides)


def check(state, hard: bool, complete: bool = True) -> None:
    """Only finite tensors; every client's weights sum to 1; hard groups partition the clients."""
    assert all(isinstance(t, torch.Tensor) for t in state.values())
    weights = state["weights"]
    assert len(weights) == N and all(torch.isfinite(t).all() for t in models(state).values())
    unknown = weights.isnan()
    assert (unknown.all(1) == unknown.any(1)).all()
    assert not complete or not unknown.any(), "a client has no group"
    known = weights[~unknown.any(1)]
    torch.testing.assert_close(known.sum(1), torch.ones(len(known)))
    assert (known >= 0).all()
    assert not hard or ((known == 0) | (known == 1)).all()


@pytest.fixture(params=algorithm_names())
def name(request):
    return request.param


def test_says_what_it_is_and_refuses_what_it_does_not_know(name):
    cls = get_algorithm(name)
    assert cls.__doc__ and cls.source and cls.sends
    assert make(name) == type(make(name)).model_validate_json(make(name).model_dump_json())
    with pytest.raises(InputError, match="colour"):
        make(name, colour=3)


def test_invariants_hold_in_every_round(name):
    loop = Loop(make(name), concepts(N))
    while loop.round < ROUNDS:
        before = {key: t.clone() for key, t in loop.state.items()}
        loop.step()
        assert same(before, loop.states[-2]), "update changed its input"
        check(loop.state, name not in SOFT, complete=loop.round > 0)
    for i in range(N):
        assert 0 <= loop.evaluate(i) <= 1


@pytest.mark.parametrize("name", sorted({*algorithm_names()} - {"local"}))
def test_one_group_is_fedavg(name):
    clients = concepts(N)
    reference = Loop(make_algorithm("fedavg", training=TRAINING), clients).run(5, fraction=0.7)
    state = Loop(make_one_group(name), clients)
    if any(state.algorithm.needs_everyone({**state.state, "round": torch.tensor(r)}) for r in range(5)):
        reference = Loop(make_algorithm("fedavg", training=TRAINING), clients).run(5)
        found = state.run(5)
    else:
        found = state.run(5, fraction=0.7)
    assert n_groups(found) == 1
    for key, t in models(reference).items():
        torch.testing.assert_close(models(found)[key], t, atol=1e-5, rtol=1e-4)


def test_permuting_the_clients_permutes_the_groups(name):
    order = [4, 0, 5, 2, 1, 3]
    clients = concepts(N)
    first = finished(name)
    settings = {"true_groups": tuple(i % 2 for i in order)} if name == "oracle" else {}
    second = Loop(make(name, **settings), [clients[i] for i in order])
    a, b = first.state, second.run(ROUNDS)
    together = a["weights"] @ a["weights"].T
    torch.testing.assert_close(together[order][:, order], b["weights"] @ b["weights"].T, atol=1e-3, rtol=1e-3)
    for i, j in enumerate(order):
        assert second.evaluate(i) == pytest.approx(first.evaluate(j), abs=0.05)


def test_same_seed_same_result_and_no_global_randomness(name):
    a = finished(name).state
    torch.rand(5)
    torch_state = torch.random.get_rng_state()
    b = Loop(make(name), concepts(N)).run(ROUNDS)
    assert torch.equal(torch.random.get_rng_state(), torch_state), "drew from torch's global generator"
    assert same(a, b)


@pytest.mark.parametrize("name", sorted({*algorithm_names()} - {*ONE_MODEL}))
def test_a_group_without_replies_keeps_its_model(name):
    loop = Loop(make(name), concepts(N))
    state = loop.run(ROUNDS)
    assert n_groups(state) > 1
    only = (state["weights"].argmax(1) == state["weights"].argmax(1)[0]).nonzero()[:, 0].tolist()
    if "alive" in state:  # the groups of a start that was not chosen are not groups
        assert (state["weights"][:, ~state["alive"]] == 0).all()
    old = models(state)

    def without_second_group(reports: Reports) -> Reports:
        arrays = dict(reports.arrays)
        if "weights" in arrays:  # a mixture: nobody puts weight on the groups that client 0 does not lead
            keep = torch.zeros_like(arrays["weights"])
            keep[:, arrays["weights"][0].argmax()] = 1
            arrays["weights"] = keep
        return replace(reports, arrays=arrays)

    new = loop.step(only, spoil=without_second_group)
    moved = [k for k in range(n_groups(state))
             if any(not torch.equal(models(new)[key][k], t[k]) for key, t in old.items())]
    used = new["weights"][only].argmax(1).unique().tolist()
    everyone = state["alive"].nonzero()[:, 0].tolist() if "alive" in state else list(range(n_groups(state)))
    expected = everyone if getattr(loop.algorithm, "aggregation", "") == "n" else used
    assert moved == expected


def test_clients_may_miss_rounds(name):
    loop = Loop(make(name), concepts(N))
    loop.run(5, fraction=0.4)
    check(loop.state, name not in SOFT, complete=False)
    while loop.round < 9:
        loop.step([i for i in range(N) if (i + loop.round) % 3])
        check(loop.state, name not in SOFT, complete=False)
    check(loop.state, name not in SOFT)
    for i in range(N):
        assert 0 <= loop.evaluate(i) <= 1


def test_test_labels_and_validation_labels_change_nothing(name):
    other = [replace(c, test=Split(c.test.x, 3 - c.test.y), validation=Split(c.test.x, c.test.y)) for c in concepts(N)]
    assert same(finished(name).state, Loop(make(name), other).run(ROUNDS))


def test_state_survives_the_checkpoint(name):
    loop = Loop(make(name), concepts(N))
    loop.run(4)
    loop.states.append(load(save({key: t.contiguous() for key, t in loop.state.items()})))
    while loop.round < ROUNDS:
        loop.step()
    assert same(finished(name).state, loop.state, besides=("round",))


def test_newcomers_are_assigned_or_undetermined(name):
    loop = finished(name)
    state = {**loop.state, "round": torch.tensor(ROUNDS)}
    for client in concepts(N + 2)[N:]:
        w = loop.newcomer(client)
        assert w.shape == (n_groups(state),)
        assert w.isnan().all() or ((w >= 0).all() and w.sum().item() == pytest.approx(1, abs=1e-5))
    without = loop.algorithm.assign(state, None)
    assert without.shape == (n_groups(state),)
    assert without.isnan().all() or n_groups(state) == 1, "without labelled samples the group cannot be known"
