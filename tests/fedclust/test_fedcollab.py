"""FedCollab: discriminators through the contract, coalitions, and any algorithm inside them."""

import pytest
import torch

from fedclust.algorithms import _discriminators, make_algorithm
from fedclust.algorithms._discriminators import PairwiseDivergence, _divergence, all_pairs, pairs_of
from fedclust.algorithms.base import Delivery, Reports, models, together
from fedclust.data.client import ClientData
from fedclust.task import stream
from graphclust.graph import InputError
from tests.fedclust.flower import Flower, settings
from tests.fedclust.loop import EMPTY, MODEL, TRAINING, Loop, blobs, concepts, deliver

QUICK = {"rounds": 12, "width": 16, "server_lr": 0.05, "patience": 12}
PAPER = PairwiseDivergence(server="average", batch_size=32, local_lr=0.05, width=200, projection=None, rounds=300)


def fedcollab(**settings):
    return make_algorithm("fedcollab", {"divergence": QUICK, **settings}, TRAINING)


def clients(n: int = 6, n_concepts: int = 2, size: int = 60) -> list[ClientData]:
    return [
        ClientData(f"c{i:02d}", blobs(f"c{i}", size + 20 * (i % 2), i % n_concepts), blobs(f"t{i}", 40, i % n_concepts),
                   EMPTY)
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def trained() -> Loop:
    loop = Loop(fedcollab(), clients())
    loop.run(15)
    return loop


def test_concepts_become_coalitions_before_any_training(trained):
    d = trained.states[12]["divergence"]
    same = torch.arange(6)[:, None] % 2 == torch.arange(6) % 2
    assert torch.equal(d, d.T) and (d.diagonal() == 0).all()
    assert d[same].max() < 0.3 < 0.7 < d[~same].min()
    assert trained.states[12]["group"].tolist() == [0, 1] * 3
    assert torch.equal(trained.states[12]["weights"], torch.eye(2).repeat(3, 1))
    assert trained.states[11]["weights"].isnan().all()
    for t in models(trained.states[12]).values():
        assert torch.equal(t[0], t[1])  # the coalitions start alike
    assert min(trained.evaluate(i) for i in range(6)) > 0.9


def test_a_newcomer_joins_by_the_loss_of_the_coalitions_models(trained):
    for concept in (0, 1):
        new = ClientData("new", blobs("new", 5, concept), EMPTY, EMPTY)
        assert trained.newcomer(new).argmax() == concept
    assert trained.algorithm.assign(trained.state, None).isnan().all()


def test_one_coalition_is_fedavg():
    one = Loop(fedcollab(c=1e9), concepts(4))
    plain = Loop(make_algorithm("fedavg", {}, TRAINING), concepts(4))
    one.run(3), plain.run(3)
    for name, t in models(plain.state).items():
        torch.testing.assert_close(models(one.state)[name], t)


@pytest.mark.parametrize("inner", ["fedavg", "ifca", "fedrc", "cfl"])
def test_inside_a_coalition_inner_runs_as_if_it_were_alone(inner):
    everyone = clients(6)
    settings = {"n_groups": 2} if inner in ("ifca", "fedrc") else {}
    loop = Loop(fedcollab(inner=inner, inner_settings=settings, c=4.0), everyone)
    loop.run(3)
    assert loop.state["group"].tolist() == [0, 1] * 3
    for g in range(2):
        alone = Loop(make_algorithm(inner, settings, TRAINING), everyone[g::2])
        alone.run(3)
        k = len(next(iter(models(alone.state).values())))
        columns = slice(g * k, (g + 1) * k)
        for name, t in models(alone.state).items():
            torch.testing.assert_close(models(loop.state)[name][columns], t)
        torch.testing.assert_close(loop.state["weights"][g::2, columns], alone.state["weights"])
        assert loop.evaluate(g) == pytest.approx(alone.evaluate(0))
    assert loop.algorithm.hard == alone.algorithm.hard


def test_impossible_inner_algorithms_are_refused():
    for inner in ("fedcollab", "nothing"):
        with pytest.raises(InputError, match=r"inner|unknown algorithm"):
            fedcollab(inner=inner)
    with pytest.raises(InputError, match="inner = 'local'"):
        Loop(fedcollab(inner="local"), clients(3)).run(0)


def test_a_lone_client_has_nobody_to_be_compared_with():
    loop = Loop(fedcollab(), clients(1))
    assert loop.algorithm.preparation_rounds(1) == 0
    loop.run(2)
    assert loop.state["weights"].tolist() == [[1.0]]


def test_clients_that_do_not_answer_stand_apart_only_if_never_heard():
    loop = Loop(fedcollab(c=2.0), clients(4, n_concepts=1))
    for _ in range(12):
        loop.step([0, 1, 2] if loop.round > -12 else None)
    d = loop.state["divergence"]
    assert d[3, :3].max() < 0.4, "the one round in which client 3 was heard tells something"
    silent = Loop(fedcollab(c=2.0), clients(4, n_concepts=1))
    for _ in range(12):
        silent.step([0, 1, 2])
    assert silent.state["divergence"][3, :3].tolist() == [1.0, 1.0, 1.0]
    assert silent.state["group"].tolist() == [0, 0, 0, 1]


def test_the_phase_ends_early_and_training_begins():
    quick = {"c": 2.0, "divergence": {**QUICK, "rounds": 20, "patience": 1}}
    loop = Loop(fedcollab(**quick), clients(4, n_concepts=1))
    loop.run(0)
    needed = len(loop.state["balanced_accuracy"])
    assert needed < 20 and len(loop.states) == 1 + needed and loop.round == 0
    assert not loop.algorithm.prepared(loop.states[-2])
    assert not any(key.startswith("discriminator") for key in loop.state)
    loop.run(2)
    result = Flower(settings("fedcollab", settings=quick, rounds=2), clients(4, n_concepts=1)).run()
    assert [row["round"] for row in result.history.rounds] == [*range(-20, needed - 20), 0, 1]
    for name, t in models(loop.state).items():
        torch.testing.assert_close(models(result.state)[name], t)


# --- the discriminators -------------------------------------------------------------------------------------------


def first_round(settings: PairwiseDivergence, everyone: list[ClientData]):
    """State, and what every client is sent and answers in the first round."""
    n = torch.tensor([float(len(c.train)) for c in everyone])
    state = settings.start(n, MODEL, 0)
    loop = Loop(fedcollab(), everyone)
    payloads = [settings.payload(state, i, n) for i in range(len(everyone))]
    reports = [settings.local_step(loop.cohort(i), deliver(state, p)) for i, p in enumerate(payloads)]
    heard = together(reports)
    answers = Reports(torch.arange(len(everyone)), n, heard.models, heard.arrays, payloads[0].phase)
    return state, payloads, answers


def test_pairs_are_numbered_and_shared_by_two():
    assert all_pairs(4).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert [pairs_of(i, 4).tolist() for i in range(4)] == [[0, 1, 2], [0, 3, 4], [1, 3, 5], [2, 4, 5]]


def test_sizes_are_the_pairs_own_and_sides_are_opposite():
    sizes = (300, 100, 20, 3)
    everyone = [ClientData(f"c{i}", blobs(f"c{i}", n), EMPTY, EMPTY) for i, n in enumerate(sizes)]
    _, payloads, _ = first_round(PairwiseDivergence(min_samples=16), everyone)
    used = [p.arrays["used"].tolist() for p in payloads]
    assert used == [[50, 16, 16], [50, 16, 16], [10, 10, 10], [1, 1, 1]]
    assert [p.arrays["side"].tolist() for p in payloads] == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert len({len(p.groups) for p in payloads}) == 1


def test_plain_averaging_with_one_step_is_gradient_descent_on_both_sides_loss():
    everyone = clients(2)
    settings = PairwiseDivergence(server="average", local_lr=0.3, projection=None, width=5)
    state, payloads, answers = first_round(settings, everyone)
    after = models(settings.update(state, answers, 2), "discriminator")
    before = {name: t[0].clone().requires_grad_() for name, t in models(state, "discriminator").items()}
    loss = torch.tensor(0.0)
    loop = Loop(fedcollab(), everyone)
    for i in range(2):
        m = int(payloads[i].arrays["used"][0])
        x, y, one = settings._samples(loop.cohort(i))[0, :m].split((6, 4, 1), dim=1)
        assert (one == 1).all()
        assert y.max().item() == pytest.approx(4 / 3**0.5)  # nu = C / sqrt(C - 1)
        h = torch.relu(x @ before["W_x"].T + before["b"] + 2 * (y @ before["W_y"].T + before["b_y"]))
        f = h @ before["w"] + before["c"]
        loss = loss + torch.nn.functional.softplus(-f if i else f).mean() / 2
    gradients = torch.autograd.grad(loss, list(before.values()))
    for (name, t), g in zip(before.items(), gradients, strict=True):
        torch.testing.assert_close(after[name][0], (t - 0.3 * g).detach(), atol=1e-6, rtol=1e-5)


def test_adam_moves_every_parameter_by_its_step_size_at_first():
    settings = PairwiseDivergence(server_lr=0.02, width=5)
    state, _, answers = first_round(settings, clients(3))
    after = settings.update(state, answers, 3)
    for name, t in models(state, "discriminator").items():
        moved = (models(after, "discriminator")[name] - t).abs()
        still = models(after, "discriminator_m")[name] == 0
        torch.testing.assert_close(moved[~still], torch.full_like(moved[~still], 0.02), atol=1e-4, rtol=1e-3)
        assert (moved[still] == 0).all()


def test_held_out_samples_never_train_and_are_stratified():
    loop, settings = Loop(fedcollab(), clients(2, size=80)), PairwiseDivergence()
    z = settings._samples(loop.cohort(0))
    y = z[0, :80, 6:10].argmax(1)
    half = y[:40].bincount(minlength=4), y.bincount(minlength=4)
    assert ((half[0] - half[1] / 2).abs() <= 1).all()
    assert sorted(y.tolist()) == sorted(loop.clients[0].train.y.tolist())
    params = {name: t[:1][None] for name, t in models(settings.start(loop.n, MODEL, 0), "discriminator").items()}
    spoiled = z.clone()
    spoiled[:, 40:] = 1e6
    trained, again = (settings._descend(params, given, torch.zeros(1, 1), torch.tensor([[40]]), None)
                      for given in (z, spoiled))
    assert all(torch.equal(trained[name], again[name]) for name in trained)
    assert not torch.equal(trained["W_x"], params["W_x"])


def test_divergence_is_taken_in_one_round_for_all_pairs():
    ba = torch.tensor([[0.5, 0.9, 0.5], [0.8, 0.7, torch.nan], [0.6, 0.6, 0.7]])
    d = _divergence(ba, 3)  # the round of the largest mean is the second
    torch.testing.assert_close(d[0, 1], torch.tensor(0.6))
    torch.testing.assert_close(d[0, 2], torch.tensor(0.4))
    assert d[1, 2] == 0  # heard before: .5


def test_traffic_is_a_tenth_of_the_papers_scheme():
    everyone = clients(4)

    def bytes_of(settings: PairwiseDivergence) -> int:
        state, payloads, answers = first_round(settings, everyone)
        sent = [deliver(state, p) for p in payloads]
        down = sum(t.numel() * t.element_size() for d in sent for t in [*d.models.values(), *d.arrays.values()])
        up = sum(t.numel() * t.element_size() for t in [*answers.models.values(), *answers.arrays.values()])
        return (down + up) * settings.rounds

    parameters = 6 * 200 + 200 + 4 * 200 + 200 + 200 + 1
    assert bytes_of(PAPER) == pytest.approx(300 * 6 * 4 * 4 * parameters, rel=0.01)  # 4 messages a round and pair
    assert bytes_of(PairwiseDivergence()) < bytes_of(PAPER) / 10


@pytest.mark.parametrize("more", [{}, {"batch_size": 4, "local_steps": 2}])
def test_few_clients_at_a_time_are_all_at_once(more, monkeypatch):
    """What does not fit near the processor is computed in turn; clients have 3 to 80 samples."""
    loop = Loop(fedcollab(), [*clients(3), ClientData("d", blobs("d", 3), EMPTY, EMPTY)])
    settings = PairwiseDivergence(width=5, **more)
    state = settings.start(loop.n, MODEL, 0)
    given = [deliver(state, settings.payload(state, i, loop.n)) for i in range(4)]
    sent = Delivery({name: torch.cat([d.models[name] for d in given]) for name in given[0].models},
                    {name: torch.cat([d.arrays[name] for d in given]) for name in given[0].arrays}, given[0].phase)
    whole = settings.local_step(loop.cohort(0, 1, 2, 3), sent)
    monkeypatch.setattr(_discriminators, "AT_ONCE", 1)
    in_turn = settings.local_step(loop.cohort(0, 1, 2, 3), sent)
    assert torch.equal(whole.arrays["accuracy"], in_turn.arrays["accuracy"])
    for name, t in whole.models.items():
        assert t.shape == sent.models[name].shape and not torch.equal(t, sent.models[name])
        torch.testing.assert_close(in_turn.models[name], t, atol=1e-6, rtol=1e-5)


def test_the_stratified_order_is_that_of_a_loop_over_the_classes():
    loop = Loop(fedcollab(), [*clients(3), ClientData("d", blobs("d", 3), EMPTY, EMPTY)])
    found = _discriminators._stratified(loop.cohort(0, 1, 2, 3))
    for i, client in enumerate(loop.clients):
        n, g = len(client.train), stream(0, "discriminator", "order", client.id)
        order, place = torch.randperm(n, generator=g), torch.empty(n)
        for c in client.train.y.unique():
            at = (client.train.y[order] == c).nonzero()[:, 0]
            place[at] = (torch.arange(len(at)) + torch.rand(len(at), generator=g)) / len(at)
        assert found[i].tolist() == [*order[place.argsort()].tolist(), *range(n, found.shape[1])]
