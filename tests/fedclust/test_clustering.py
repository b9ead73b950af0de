"""Clients that cluster their nodes: no label in training, graphclust's loss, and an encoder that graphclust loads."""

import math

import numpy as np
import pytest
import torch

from fedclust.algorithms import algorithm_names, make_algorithm
from fedclust.algorithms.base import Delivery, models, with_models
from fedclust.config import FederationConfig
from fedclust.data.artefact import load, save, table
from fedclust.data.build import build_federation
from fedclust.data.client import ClientData, Split
from fedclust.data.concept import ConceptShift
from fedclust.data.graphs import Clustering, LabelledGraph, Nodes
from fedclust.data.spec import FederationSpec, HeldBack
from fedclust.models import Model, ModelConfig
from fedclust.node_clusters import cluster_nodes, node_metrics, save_encoders
from fedclust.objectives import scgc
from fedclust.task import Cohort, Training, stream
from graphclust.coerce import as_graph
from graphclust.data import load as load_graph
from graphclust.data.npz import write_npz
from graphclust.encoders import Autoencoder
from graphclust.graph import InputError
from graphclust.losses import Pairs, neighbour_contrast
from graphclust.methods import get_method
from graphclust.propagation import influence
from tests.fedclust.loop import EMPTY, Loop

SBM = "asbm:n=120,k=3,degree_in=10,degree_out=1,d=6,seed=1"
RULE = Clustering(smoothing=2)
MODEL = ModelConfig(name="autoencoder", hidden=(8,), latent_dim=3, alpha=0.5, tau=1.3)
TRAINING = Training(epochs=2, lr=0.5, batch_size=1000)


def spec(**changes):
    rule = Nodes(method="random", clustering=RULE)
    return FederationSpec(**{"source": SBM, "n_clients": 4, "partition": rule, **changes})


def federated(algorithm, federation, training=TRAINING, **settings):
    model = Model(MODEL, federation.input_shape, federation.n_classes)
    return Loop(make_algorithm(algorithm, settings, training), federation.clients, model)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(t, b[name]) for name, t in a.items())


def test_the_loss_is_scgcs_by_a_double_loop():
    """Each node by itself, in a batch of some of the nodes; alpha .5 and tau 1.3."""
    client = build_federation(spec()).clients[0]
    model = Model(MODEL, (6,), 3)
    params = model.init(stream(0, "start"))
    at = torch.tensor([5, 0, 17])
    x, gamma = client.nodes.numpy(), client.adjacency.numpy()
    z, decoded = (t.numpy() for t in model.autoencode(params, client.nodes))

    def e(i, j):
        return math.exp(1.3 * (0.0 if i == j else z[i] @ z[j] / np.linalg.norm(z[i]) / np.linalg.norm(z[j])))

    found = scgc(model, params, client.nodes, at, client.adjacency)
    for i, value in zip(at.tolist(), found.tolist(), strict=True):
        above = sum(gamma[i, j] * e(i, j) for j in range(len(x)))
        below = sum(e(i, j) for j in range(len(x)))
        mse = sum((decoded[i, j] - x[i, j]) ** 2 for j in range(6)) / 6
        assert value == pytest.approx(mse - 0.5 * math.log(above / below + 1e-8), rel=1e-5)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_one_client_is_central_training(optimiser):
    """graphclust's auto-encoder and sparse loss on the whole graph; Adam begins anew in every round."""
    federation = build_federation(spec(n_clients=1))
    training = TRAINING.model_copy(update={"optimiser": optimiser, "lr": 0.5 if optimiser == "sgd" else 0.01})
    loop = federated("fedavg", federation, training)
    network = Autoencoder(6, (8,), 3, stream(0, "init", 0))
    graph = LabelledGraph(SBM).graph
    pairs, x = Pairs.from_scipy(influence(graph.adjacency, 1, "power")), federation.clients[0].nodes
    for _ in range(3):
        make = torch.optim.SGD if optimiser == "sgd" else torch.optim.Adam
        central = make(network.parameters(), lr=training.lr)
        for _ in range(training.epochs):
            z, decoded = network(x)
            loss = torch.nn.functional.mse_loss(decoded, x) + 0.5 * neighbour_contrast(z, pairs, 1.3)
            central.zero_grad()
            loss.backward()
            central.step()
    for name, t in models(loop.run(3)).items():
        torch.testing.assert_close(t[0], network.state_dict()[name], atol=2e-5, rtol=1e-4)


def test_clients_prepare_features_by_themselves_and_hold_no_label():
    whole, federation = LabelledGraph(SBM), build_federation(spec())
    assert federation.input_shape == (6,) and federation.n_classes == 3
    parts = [c.nodes for c in federation.clients]
    assert sum(len(p) for p in parts) == 120
    for c in federation.clients:
        assert (c.train.y == -1).all() and c.train.x.tolist() == list(range(len(c.nodes))) == c.test.x.tolist()
        assert not len(c.validation)
        torch.testing.assert_close(c.adjacency.sum(1), torch.ones(len(c.nodes)))
    (alone,) = build_federation(spec(n_clients=1)).clients
    a = whole.graph.adjacency.toarray() + np.eye(120)
    a = a / np.sqrt(np.outer(a.sum(1), a.sum(1)))
    unit = whole.graph.x / np.linalg.norm(whole.graph.x, axis=1, keepdims=True)
    np.testing.assert_allclose(alone.nodes.numpy(), a @ a @ unit * math.sqrt(6), atol=1e-5)
    assert torch.equal(alone.test.y, torch.from_numpy(whole.y))


def test_labels_change_nothing_but_the_evaluation(tmp_path):
    data = load_graph(SBM)
    data.y = data.y[torch.randperm(120, generator=stream(0, "labels"))]
    write_npz(data, tmp_path / "shuffled.npz")
    plain, shuffled = build_federation(spec()), build_federation(spec(source=str(tmp_path / "shuffled.npz")))
    assert any(not torch.equal(a.test.y, b.test.y) for a, b in zip(plain.clients, shuffled.clients, strict=True))
    first, second = (federated("fedavg", f).run(3) for f in (plain, shuffled))
    assert same(first, second)
    tables = [cluster_nodes(f.clients, embeddings(f, first), 3, 0) for f in (plain, shuffled)]
    assert tables[0].drop(columns="label").equals(tables[1].drop(columns="label"))
    assert node_metrics(tables[0])["nodes_nmi"] > 5 * node_metrics(tables[1])["nodes_nmi"]


def embeddings(federation, state):
    model = Model(MODEL, federation.input_shape, federation.n_classes)
    return {c.id: Cohort([c], model, seed=0, round=9).embedding(0, models(state), torch.ones(1))
            for c in federation.clients}


def test_metrics_are_those_of_known_clusters():
    """Two clients whose spaces are turned against each other: each by itself is right, together they are not."""
    def client(name, y):
        at = torch.arange(len(y))
        return ClientData(name, Split(at, torch.full((len(y),), -1)), Split(at, torch.tensor(y)), EMPTY,
                          nodes=torch.eye(2)[torch.tensor(y)], adjacency=torch.eye(len(y)))

    clients = [client("a", [0, 0, 1, 1]), client("b", [0, 1, 1, 1])]
    z = {"a": torch.eye(2)[clients[0].test.y] * 3, "b": torch.eye(2)[1 - clients[1].test.y]}
    nodes = cluster_nodes(clients, z, 2, seed=0)
    assert nodes["client"].tolist() == ["a"] * 4 + ["b"] * 4 and nodes["node"].tolist() == [0, 1, 2, 3] * 2
    found = node_metrics(nodes)
    assert found["own_acc"] == found["own_f1"] == found["features_ari"] == 1
    assert found["nodes_acc"] == 0.5
    unknown = nodes.assign(label=[-1] * 4 + [0, 1, 1, 1])
    assert node_metrics(unknown)["own_nmi"] == 1 and node_metrics(unknown)["nodes_acc"] == 1
    assert set(cluster_nodes(clients, {"b": z["b"]}, 2, 0)["client"]) == {"b"}, "one did not answer"


def test_graphclust_loads_the_federations_encoder_and_clusters_with_its_own_head(tmp_path):
    federation = build_federation(spec(n_clients=1))
    state = federated("fedavg", federation).run(5)
    model = Model(MODEL, federation.input_shape, 3)
    (folder,) = save_encoders(tmp_path, model, state, RULE)
    scgc_of = get_method("scgc")
    method = scgc_of(3, encoder=str(folder), epochs=0, start="kmeans", random_state=0)
    labels = method.fit(load_graph(SBM)).labels_
    z = model.autoencode({name: t[0] for name, t in models(state).items()}, federation.clients[0].nodes)[0]
    unit = torch.nn.functional.normalize(z, dim=1)
    np.testing.assert_allclose(method.embedding_, unit.detach().numpy(), atol=1e-5)
    ours = cluster_nodes(federation.clients, embeddings(federation, state), 3, 0)["cluster"]
    assert (labels == ours.to_numpy()).mean() > 0.95, "the same head, but for ties of nodes between centres"
    assert len(scgc_of(3, encoder=str(folder), epochs=2, random_state=0).fit(load_graph(SBM)).history_) == 2
    method.save(tmp_path / "whole")
    again = scgc_of.load(tmp_path / "whole")
    assert np.array_equal(again.predict(load_graph(SBM)), labels)


def test_every_group_leaves_its_encoder_and_local_none(tmp_path):
    federation = build_federation(spec())
    two = federated("ifca", federation, n_groups=2)
    assert [p.name for p in save_encoders(tmp_path, two.model, two.run(1), RULE)] == ["encoder-0", "encoder-1"]
    assert save_encoders(tmp_path, two.model, federated("local", federation).run(1), RULE) == []


@pytest.mark.parametrize("settings, word", [
    ({"encoder": "nowhere"}, "no saved model"), ({"encoder": "x", "networks": 2}, "networks = 2"),
])
def test_graphclust_refuses_what_is_no_encoder(settings, word):
    with pytest.raises(InputError, match=word):
        get_method("scgc")(3, **settings).fit(load_graph(SBM))


def test_a_graph_with_other_features_is_refused(tmp_path):
    federation = build_federation(spec())
    loop = federated("fedavg", federation)
    (folder,) = save_encoders(tmp_path, loop.model, loop.state, RULE)
    graph = as_graph(load_graph(SBM))
    with pytest.raises(InputError, match="d = 6"):
        get_method("scgc")(3, encoder=str(folder)).fit((graph.x[:, :5], graph.edges()[0].T))


@pytest.mark.parametrize("name", algorithm_names())
def test_every_algorithm_runs_without_labels_or_says_that_it_cannot(name):
    settings = {"oracle": {"true_groups": (0, 0, 1, 1)}, "hierarchical": {"warmup": 1}, "flhc": {"warmup": 1},
                "community": {"warmup": 1}, "cfl": {"first_split": 1}}.get(name, {})
    config = FederationConfig(algorithm=name, settings=settings, federation=spec(), model=MODEL, training=TRAINING)
    assert config.make().needs_labels or name not in ("fedrc", "fedem", "fedcollab")
    if config.make().needs_labels:
        with pytest.raises(InputError, match=f"{name} needs labelled samples"):
            config.check(4)
        return
    config.check(4)
    loop = federated(name, build_federation(spec()), **settings)
    state = loop.run(3)
    assert all(torch.isfinite(t).all() for t in models(state).values())
    for i in range(4):
        payload = loop.algorithm.evaluation({**state, "round": torch.tensor(3)}, i)
        sent = {n: t[payload.groups][None] for n, t in models(state, payload.family).items()}
        delivered = Delivery(sent, {}, payload.phase)
        found = loop.cohort(i).evaluate(*loop.algorithm.local_predictor(loop.cohort(i), delivered), hard=True)
        assert found.keys() == {"loss"} and torch.isfinite(found["loss"]).all()


@pytest.mark.parametrize("changes, words", [
    ({"settings": {"similarity": "labels"}, "algorithm": "community"}, ["community needs labelled"]),
    ({"settings": {"layers": "last"}, "algorithm": "hierarchical"}, ["hierarchical needs labelled", "layers = all"]),
    ({"model": ModelConfig()}, ["model.name = 'mlp'", "autoencoder"]),
    ({"federation": FederationSpec(source=SBM, n_clients=4, partition=Nodes())}, ["partition.clustering", "is not"]),
])
def test_what_does_not_fit_is_refused_before_the_first_round(changes, words):
    body = {"algorithm": "fedavg", "federation": spec(), "model": MODEL, **changes}
    with pytest.raises(InputError) as e:
        FederationConfig(**body).check(4)
    assert all(w in str(e.value) for w in words), str(e.value)


@pytest.mark.parametrize("changes, word", [
    ({"unseen": HeldBack(clients=1)}, "unseen"), ({"concept": ConceptShift(maps=("identity", "reverse"))}, "concept"),
])
def test_what_needs_labels_is_no_part_of_such_a_federation(changes, word):
    with pytest.raises(ValueError, match=word):
        spec(**changes)


def test_it_survives_its_artefact(tmp_path):
    federation = build_federation(spec())
    save(federation, spec(), tmp_path / "kept")
    kept, held = load(tmp_path / "kept")
    assert held == spec()
    for a, b in zip(federation.clients, kept.clients, strict=True):
        assert torch.equal(a.nodes, b.nodes) and torch.equal(a.adjacency, b.adjacency)
        assert torch.equal(a.train.y, b.train.y) and torch.equal(a.test.y, b.test.y)
    rows = table(federation)
    assert sum(sum(map(int, row.split())) for row in rows["classes"]) == 120, "each node's class once"


def test_a_better_loss_chooses_the_group():
    """IFCA's choice without labels: the model that was trained on the client's own graph."""
    federation = build_federation(spec())
    loop = federated("ifca", federation, n_groups=2)
    trained = models(federated("fedavg", federation).run(8))
    start = models(loop.state)
    both = {name: torch.stack([start[name][0], trained[name][0]]) for name in start}
    loop.states.append(with_models(loop.state, both))
    assert (loop.step()["weights"].argmax(1) == 1).all()
