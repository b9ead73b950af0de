"""The cohort: what one client computes does not depend on its neighbours, nor on how the computation is carried out."""

from dataclasses import replace

import pytest
import torch

from fedclust.data.client import ClientData, Split
from fedclust.descent import side_by_side
from fedclust.models import Model, ModelConfig
from fedclust.task import Cohort, Training, stream
from tests.fedclust.loop import EMPTY, MODEL, blobs

SIZES = (23, 40, 7, 11)
TRAINING = Training(epochs=2, lr=0.3, batch_size=8, weight_decay=0.01)


def samples() -> list[ClientData]:
    return [ClientData(f"c{i}", blobs(f"c{i}", n), blobs(f"t{i}", 9), EMPTY) for i, n in enumerate(SIZES)]


def graphs() -> list[ClientData]:
    """Clients whose samples are nodes of their own graphs, of different sizes."""
    out = []
    for i, n in enumerate(SIZES):
        g = stream(0, "graph", i)
        edges = (torch.rand(n, n, generator=g) < 0.2).float()
        adjacency = (edges + edges.T + torch.eye(n)).clamp_max(1)
        adjacency = (adjacency / adjacency.sum(1, keepdim=True)).to_sparse()
        y = torch.randint(4, (n,), generator=g)
        order = torch.randperm(n, generator=g)
        train, test = order[: n - 3], order[n - 3 :]
        nodes = torch.randn(n, 6, generator=g)
        out.append(ClientData(f"g{i}", Split(train, y[train]), Split(test, y[test]), EMPTY, nodes, adjacency))
    return out


CASES = {
    "samples": (MODEL, samples),
    "images": (Model(ModelConfig(name="convnet", hidden=(5,)), (1, 4, 4), 4), lambda: [
        ClientData(c.id, Split(c.train.x.repeat(1, 3)[:, :16].view(-1, 1, 4, 4), c.train.y), EMPTY, EMPTY)
        for c in samples()]),
    "nodes": (Model(ModelConfig(name="gcn", hidden=(5,)), (6,), 4), graphs),
    "clustering": (Model(ModelConfig(name="autoencoder", hidden=(5,), latent_dim=3), (6,), 4),
                   lambda: [replace(c, adjacency=c.adjacency.to_dense()) for c in graphs()]),
}


def stacked(model: Model, b: int, k: int):
    """Models (b, k, ...), all different."""
    each = [[model.init(stream(0, i, j)) for j in range(k)] for i in range(b)]
    return {name: torch.stack([torch.stack([m[name] for m in row]) for row in each]) for name in model.names}


def cohort(clients, model, round=3):
    return Cohort(clients, model, seed=0, round=round)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("extra", [{}, {"weighted": True}, {"prox": 0.5}, {"inner_lr": 0.1, "weighted": True}])
def test_many_at_once_equals_one_by_one(case, extra):
    model, make = CASES[case]
    clients, k = make(), 2
    params = stacked(model, len(clients), k)
    settings = {key: v for key, v in extra.items() if key != "weighted"}
    longest = max(len(c.train) for c in clients)
    weight = torch.rand(len(clients), k, longest, generator=stream(0, "w")) if extra.get("weighted") else None
    before = {name: p.clone() for name, p in params.items()}
    many = cohort(clients, model).train(params, TRAINING, sample_weight=weight, **settings)
    for i, c in enumerate(clients):
        w = None if weight is None else weight[i : i + 1, :, : len(c.train)]
        one = cohort([c], model).train({name: p[i : i + 1] for name, p in params.items()}, TRAINING,
                                       sample_weight=w, **settings)
        for name in params:
            torch.testing.assert_close(many[name][i], one[name][0], atol=1e-5, rtol=1e-5)
            assert not torch.allclose(one[name], before[name][i : i + 1])
    assert all(torch.equal(p, before[name]) for name, p in params.items()), "train changed what it was given"


def by_hand(client, model, params, *, weight=None, prox=0.0, inner_lr=0.0):
    """SGD on the cohort's batches with torch.optim and an ordinary backward pass."""
    start = {name: p.clone() for name, p in params.items()}
    p = {name: t.clone().requires_grad_() for name, t in params.items()}
    optimizer = torch.optim.SGD(p.values(), lr=TRAINING.lr, weight_decay=TRAINING.weight_decay)

    def loss(params, index):
        losses = torch.nn.functional.cross_entropy(model.logits(params, client.train.x[index]), client.train.y[index],
                                                   reduction="none")
        return (losses if weight is None else losses * weight[index]).sum() / len(index)

    generator = stream(0, "batches", "train", client.id, 3)
    for _ in range(TRAINING.epochs):
        order = torch.randperm(len(client.train), generator=generator)
        for at in range(0, len(order), TRAINING.batch_size):
            index, point = order[at : at + TRAINING.batch_size], p
            if inner_lr:
                half = (len(index) + 1) // 2
                inner, index = index[half:], index[:half]
                found = torch.autograd.grad(loss(p, inner), list(p.values())) if len(inner) else [0.0] * len(p)
                point = {name: (t - inner_lr * g).detach().requires_grad_() for (name, t), g in
                         zip(p.items(), found, strict=True)}
            found = torch.autograd.grad(loss(point, index), list(point.values()))
            for (name, t), g in zip(p.items(), found, strict=True):
                t.grad = g + prox * (t.detach() - start[name])
            optimizer.step()
    return {name: t.detach() for name, t in p.items()}


@pytest.mark.parametrize("extra", [{}, {"prox": 0.5}, {"inner_lr": 0.1}, {"weighted": True}])
def test_training_is_plain_sgd(extra):
    client = samples()[0]  # 23 samples in batches of 8: the last has 7, of which 4 and 3 are the halves
    params = MODEL.init(stream(0, "start"))
    weight = torch.rand(len(client.train), generator=stream(0, "w")) if extra.pop("weighted", False) else None
    found = cohort([client], MODEL).train({name: p[None, None] for name, p in params.items()}, TRAINING,
                                          sample_weight=None if weight is None else weight[None, None], **extra)
    expected = by_hand(client, MODEL, params, weight=weight, **extra)
    for name, t in expected.items():
        torch.testing.assert_close(found[name][0, 0], t, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("prox", [0.0, 0.5])
def test_adam_is_torchs(prox):
    client, params = samples()[0], MODEL.init(stream(0, "start"))
    training = TRAINING.model_copy(update={"optimiser": "adam", "lr": 0.01})
    found = cohort([client], MODEL).train({name: p[None, None] for name, p in params.items()}, training, prox=prox)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=0.01, weight_decay=TRAINING.weight_decay)
    for index in batches(cohort([client], MODEL), 0, training):
        optimizer.zero_grad()
        pull = sum((t - params[name]).square().sum() for name, t in leaves.items())
        logits = MODEL.logits(leaves, client.train.x[index])
        (torch.nn.functional.cross_entropy(logits, client.train.y[index]) + prox / 2 * pull).backward()
        optimizer.step()
    for name, t in leaves.items():
        torch.testing.assert_close(found[name][0, 0], t.detach(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("case", ["samples", "clustering"])
def test_adam_of_many_at_once_equals_one_by_one(case):
    """A client with few batches stays where it is while the others go on."""
    model, make = CASES[case]
    clients, training = make(), TRAINING.model_copy(update={"optimiser": "adam", "lr": 0.01})
    params = stacked(model, len(clients), 2)
    many = cohort(clients, model).train(params, training)
    for i, c in enumerate(clients):
        one = cohort([c], model).train({name: p[i : i + 1] for name, p in params.items()}, training)
        for name in params:
            torch.testing.assert_close(many[name][i], one[name][0], atol=1e-5, rtol=1e-4)


def test_inner_step_of_a_batch_of_one_is_none():
    client = ClientData("one", blobs("one", 1), EMPTY, EMPTY)
    start = stacked(MODEL, 1, 1)
    plain = cohort([client], MODEL).train(start, TRAINING)
    meta = cohort([client], MODEL).train(start, TRAINING, inner_lr=0.1)
    assert all(torch.equal(plain[name], meta[name]) for name in plain)


def batches(cohort, i, training, key="train"):
    return [batch for order in cohort._orders(i, training, key) for batch in order.split(training.batch_size)]


def test_batches_depend_on_id_round_key_and_seed_only():
    clients = samples()
    reference = batches(cohort(clients, MODEL), 1, TRAINING)
    assert [len(b) for b in reference] == [8] * 10
    for epoch in (reference[:5], reference[5:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(40)), "every sample once an epoch"
    alone = batches(cohort([clients[1]], MODEL), 0, TRAINING)
    assert all(torch.equal(a, b) for a, b in zip(reference, alone, strict=True))
    for other in (batches(cohort([clients[1]], MODEL, round=4), 0, TRAINING),
                  batches(cohort([clients[1]], MODEL), 0, TRAINING, "finetune"),
                  batches(Cohort([clients[1]], MODEL, seed=1, round=3), 0, TRAINING)):
        assert any(not torch.equal(a, b) for a, b in zip(reference, other, strict=True))


@pytest.mark.parametrize("case", ["samples", "nodes"])
def test_losses_are_cross_entropies_and_zero_where_padded(case):
    model, make = CASES[case]
    clients = make()
    params = stacked(model, len(clients), 2)
    c = cohort(clients, model)
    losses = c.losses(params)
    assert losses.shape == (4, 2, c.mask.shape[1]) and (losses[~c.mask[:, None].expand_as(losses)] == 0).all()
    for i, client in enumerate(clients):
        for j in range(2):
            one = {name: p[i, j] for name, p in params.items()}
            if case == "samples":
                logits = model.logits(one, client.train.x)
            else:
                logits = model.logits(one, client.nodes, client.adjacency)[client.train.x]
            p = torch.softmax(logits, 1)[torch.arange(len(client.train)), client.train.y]
            torch.testing.assert_close(losses[i, j, : len(client.train)], -p.log())
            assert c.y[i, : len(client.train)].tolist() == client.train.y.tolist()


def test_evaluation_mixes_probabilities_or_takes_the_heaviest_model():
    client = samples()[0]
    params, c = stacked(MODEL, 1, 3), cohort([client], MODEL)
    weights = torch.tensor([[0.45, 0.2, 0.35]])
    p = torch.stack([torch.softmax(MODEL.logits({name: t[0, k] for name, t in params.items()}, client.test.x), 1)
                     for k in range(3)])
    mixed = 0.45 * p[0] + 0.2 * p[1] + 0.35 * p[2]
    for hard, expected in ((False, mixed), (True, p[0])):
        found = c.evaluate(params, weights, hard=hard)
        assert found["accuracy"].item() == pytest.approx((expected.argmax(1) == client.test.y).float().mean().item())
        nll = -expected[torch.arange(9), client.test.y].log().mean().item()
        assert found["loss"].item() == pytest.approx(nll, rel=1e-5)
        assert torch.isnan(found["accuracy_validation"]).all(), "this client has no validation samples"


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_many_are_evaluated_as_one_by_one(case, hard):
    """Clients with unlike numbers of samples, one of them without any to be tested on."""
    model, make = CASES[case]
    clients = [replace(c, validation=c.train, test=c.train if i else none_of(c)) for i, c in enumerate(make())]
    params = stacked(model, len(clients), 3)
    weights = torch.softmax(torch.randn(len(clients), 3, generator=stream(0, "weights")), 1)
    many = cohort(clients, model)
    values, losses = many.evaluate(params, weights, hard=hard), many.losses(params)
    for i, c in enumerate(clients):
        own, one = {name: p[i : i + 1] for name, p in params.items()}, cohort([c], model)
        n = len(c.train)
        torch.testing.assert_close(losses[i : i + 1, :, :n], one.losses(own)[..., :n], atol=1e-6, rtol=1e-5)
        for name, value in one.evaluate(own, weights[i : i + 1], hard=hard).items():
            torch.testing.assert_close(values[name][i : i + 1], value, atol=1e-6, rtol=1e-5, equal_nan=True)
    assert model.clusters or values["accuracy"][0].isnan()


def none_of(client):
    return Split(client.train.x[:0], client.train.y[:0])


def test_streams_are_reproducible_and_named():
    def draw(*keys):
        return torch.rand(3, generator=stream(*keys)).tolist()

    assert draw(0, "a", 1) == draw(0, "a", 1)
    assert len({tuple(draw(*keys)) for keys in ((0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2))}) == 4


@pytest.mark.parametrize(("n", "size", "epochs", "copies"), [(7, 3, 2, 1), (6, 3, 1, 2), (2, 5, 3, 2)])
def test_a_clients_batches_are_laid_out_alike_alone_and_among_others(n, size, epochs, copies):
    def orders(n):
        return [torch.randperm(n, generator=stream(0, n, epoch)) for epoch in range(epochs)]

    width, device = min(size, 9), torch.device("cpu")
    alone = list(side_by_side([orders(n)], size, width, copies, device))
    among = list(side_by_side([orders(9), orders(n)], size, width, copies, device))
    steps = epochs * -(-n // size)
    assert len(alone) == steps
    # the larger client comes first and has the steps that are over
    theirs = [(index[copies:], real[copies:]) for index, real in among if len(index) > copies]
    assert len(theirs) == steps
    for (index, real), (index_among, real_among) in zip(alone, theirs, strict=True):
        assert torch.equal(real, real_among) and torch.equal(index.where(real, 0), index_among.where(real, 0))
        assert index.shape == real.shape == (copies, width)
