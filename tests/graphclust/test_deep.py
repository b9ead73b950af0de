"""ae_kmeans, scgc, scgc_star and pamc as estimators: training, resumption, prediction, storage, awkward input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import yaml
from sklearn.metrics import adjusted_rand_score

from graphclust.graph import Graph, InputError, from_adjacency
from graphclust.methods import _contrastive, _network, get_method
from graphclust.methods._smoothing import smoothing_steps
from graphclust.monitor import Silent
from graphclust.training import Checkpoints, DivergenceError

NAMES = ["ae_kmeans", "scgc", "scgc_star", "pamc"]
TRAINED = NAMES[1:]
ROOT = Path(__file__).parents[2]


PAPER = yaml.safe_load((ROOT / "configs/graph/pamc/paper.yaml").read_text())["params"]
"""What SCGC, SCGC* and PamC have in common; ``make`` starts from it."""
COMMON = {
    p: v for p, v in get_method("pamc")().get_params().items()
    if p in PAPER and p not in ("epochs", "pretrain_epochs", "hidden")
}
"""This project's common setting: the defaults."""


def make(name: str, k: int = 3, **params):
    """The method with few epochs and a small network; the paper's otherwise."""
    small = {"epochs": 12, "pretrain_epochs": 4, "hidden": (32,), "latent_dim": 6, "random_state": 0}
    known = get_method(name)().get_params()
    return get_method(name)(k, **{p: v for p, v in {**PAPER, **small, **params}.items() if p in known})


class Killed(Silent):
    """Writes checkpoints and dies in one step of one phase."""

    def __init__(self, checkpoint: Path, phase: str, step: int) -> None:
        self.checkpoint, self.phase, self.at = checkpoint, phase, step
        self.now = ""

    def start(self, total: int, what: str) -> None:
        self.now = what

    def step(self, step, values, labels=None) -> None:
        if (self.now, step) == (self.phase, self.at):
            raise KeyboardInterrupt


class Resuming(Silent):
    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.seen: list[tuple[str, int]] = []
        self.partitions: list[np.ndarray] = []

    def start(self, total: int, what: str) -> None:
        self.now = what

    def step(self, step, values, labels=None) -> None:
        self.seen.append((self.now, step))
        if labels is not None:
            self.partitions.append(labels())


@pytest.fixture(autouse=True)
def every_epoch_is_written(monkeypatch):
    monkeypatch.setattr(Checkpoints.__init__, "__defaults__", (0.0,))


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 32, "networks": 2}, {**COMMON, "n_components": 5, "stop": "last"}],
    ids=["paper", "batch", "common"],
)
def test_killed_and_resumed_equals_uninterrupted(name, options, planted, tmp_path):
    graph, _ = planted
    whole = make(name, **options).fit(graph)
    for phase, step in [("pre-training", 2), ("training", 7)]:
        file = tmp_path / f"{phase}{step}.pt"
        with pytest.raises(KeyboardInterrupt):
            make(name, **options).fit(graph, monitor=Killed(file, phase, step))
        watch = Resuming(file)
        again = make(name, **options).fit(graph, monitor=watch)
        assert watch.seen[0] == (phase, step)
        np.testing.assert_array_equal(again.labels_, whole.labels_)
        np.testing.assert_array_equal(again.embedding_, whole.embedding_)
        assert again.history_ == whole.history_


def test_a_fit_without_a_seed_resumes_from_the_seed_of_its_checkpoint(planted, tmp_path):
    graph, _ = planted
    file = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        make("pamc", n_components=5, random_state=None).fit(graph, monitor=Killed(file, "training", 5))
    kept = file.read_bytes()
    results = []
    for state in (None, np.random.default_rng(3)):
        file.write_bytes(kept)
        results.append(make("pamc", n_components=5, random_state=state).fit(graph, monitor=Resuming(file)).embedding_)
    np.testing.assert_array_equal(*results)


def test_a_checkpoint_of_other_parameters_is_refused(planted, tmp_path):
    file = tmp_path / "state.pt"
    make("pamc").fit(planted[0], monitor=Resuming(file))
    with pytest.raises(InputError, match="other parameters or data"):
        make("pamc", tau=2.0).fit(planted[0], monitor=Resuming(file))


@pytest.mark.parametrize("name", TRAINED)
def test_the_monitor_sees_each_epochs_partition_and_loss(name, planted):
    graph, _ = planted
    watch = Resuming(None)
    model = make(name, alpha=1.0).fit(graph, monitor=watch)
    assert [p for p, _ in watch.seen] == ["pre-training"] * 4 + ["training"] * 12
    assert len(watch.partitions) == 12
    assert all(p.shape == (graph.n,) for p in watch.partitions)
    assert adjusted_rand_score(watch.partitions[-1], model.labels_) > 0.9
    assert len(model.history_) == 12
    parts = {"kl", "contrast", "reconstruction"} if name == "scgc" else {"kl", "contrast"}
    for epoch in model.history_:
        assert set(epoch) == {"epoch", "loss", *parts}
        assert epoch["loss"] == pytest.approx(sum(epoch[p] for p in parts), rel=1e-4)
    assert model.history_[-1]["loss"] < model.history_[0]["loss"]


@pytest.mark.parametrize("name", NAMES)
def test_prediction_repeats_the_labels_and_finds_new_nodes(name, planted):
    graph, _ = planted
    model = make(name).fit(graph)
    np.testing.assert_array_equal(model.predict(graph), model.labels_)
    np.testing.assert_array_equal(model.soft_assignment_.argmax(1), model.labels_)
    np.testing.assert_allclose(model.predict_proba(graph), model.soft_assignment_, atol=1e-6)
    new = Graph(graph.adjacency, graph.x + np.float32(0.05))
    assert (model.predict(new) == model.labels_).mean() > 0.95
    with pytest.raises(InputError, match="d = 12 features"):
        model.predict(Graph(graph.adjacency, graph.x[:, :5]))


@pytest.mark.parametrize("options", [{}, {"batch_size": 50}], ids=["whole", "batch"])
def test_the_first_of_several_networks_is_the_one_alone_and_their_soft_assignments_are_averaged(options, planted):
    graph, _ = planted
    options = {"start": "consensus", "pretrain_epochs": 0, "epochs": 3, **options}
    alone = make("pamc", **options).fit(graph)
    both = make("pamc", **options, networks=2).fit(graph)
    first, second = both._ensemble
    x = both._transform.transform(graph)
    for a, b in zip(first.encoder.parameters(), next(iter(alone._ensemble)).encoder.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    q = [n.assign(_network.encode(n.encoder, x, both.device_)).detach().numpy() for n in (first, second)]
    assert np.abs(q[0] - q[1]).max() > 1e-3
    np.testing.assert_allclose(both.soft_assignment_, (q[0] + q[1]) / 2, atol=1e-6)
    assert both.embedding_.shape == (graph.n, 12)
    # lengths are means over the networks
    lengths = [n.position(_network.encode(n.encoder, x, both.device_)).norm(dim=1).square() for n in (first, second)]
    expected = ((lengths[0] + lengths[1]) / 2).detach().numpy()
    np.testing.assert_allclose(np.square(both.embedding_).sum(1), expected, rtol=1e-5)
    assert both.history_[0]["loss"] != alone.history_[0]["loss"]


@pytest.mark.parametrize("name", NAMES)
def test_save_and_load(name, planted, tmp_path):
    graph, _ = planted
    options = {"networks": 2, "n_components": 5, "smoothing": 1, "weighting": "l2", "center": True, "scale": True}
    model = make(name, **options).fit(graph)
    model.save(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]
    held = json.loads((tmp_path / "model" / "model.json").read_text())
    assert held["method"] == name
    assert "random_state" not in held["params"]
    again = get_method(name).load(tmp_path / "model")
    assert again.device_ == torch.device("cpu")
    np.testing.assert_array_equal(again.predict_proba(graph), model.predict_proba(graph))
    other = next(n for n in NAMES if n != name)
    with pytest.raises(InputError, match=f"holds a model of {name!r}"):
        get_method(other).load(tmp_path / "model")


@pytest.mark.parametrize("name", NAMES)
def test_absent_cuda_is_refused_before_work(name, planted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("graphclust.methods._autoencoder.FeatureTransform", None)  # any work would fail on it
    with pytest.raises(InputError, match="device = 'cuda'"):
        make(name, device="cuda").fit(planted[0])
    model = make(name, device="auto")
    monkeypatch.undo()
    assert model.fit(planted[0]).device_.type in ("cpu", "cuda")


@pytest.mark.parametrize("name", NAMES)
def test_sparse_and_dense_features_agree(name, planted):
    graph, _ = planted
    x = np.where(graph.x > 0.5, graph.x, 0)
    dense = make(name).fit(Graph(graph.adjacency, x))
    sparse = make(name).fit(Graph(graph.adjacency, sp.csr_array(x)))
    np.testing.assert_allclose(sparse.embedding_, dense.embedding_, atol=2e-3)
    assert (sparse.labels_ == dense.labels_).mean() > 0.98


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("kind", ["power", "cumulative", "ppr"])
def test_every_influence_trains(name, kind, planted):
    graph, y = planted
    found = make(name, influence=kind, order=3).fit(graph)
    assert adjusted_rand_score(y, found.labels_) > 0.9


@pytest.mark.parametrize("name", TRAINED)
def test_mini_batches_find_what_full_batches_find(name, planted):
    graph, y = planted
    model = make(name, batch_size=50, epochs=8).fit(graph)
    assert adjusted_rand_score(y, model.labels_) > 0.9
    np.testing.assert_array_equal(model.predict(graph), model.labels_)


def test_large_graphs_get_batches_and_sampled_negatives(planted, monkeypatch):
    graph, y = planted
    monkeypatch.setattr(_contrastive, "EXACT_LIMIT", 100)
    monkeypatch.setattr(_contrastive, "SAMPLED", 40)
    whole = make("scgc_star").fit(graph)
    monkeypatch.setattr(_contrastive, "FULL_BATCH_LIMIT", 100)
    monkeypatch.setattr(_contrastive, "BATCH", 40)
    monkeypatch.setattr(_network, "KMEANS_LIMIT", 90)
    monkeypatch.setattr(_network, "CHUNK", 33)
    batched = make("scgc_star").fit(graph)
    for model in (whole, batched):
        assert adjusted_rand_score(y, model.labels_) > 0.9
    assert not np.array_equal(whole.embedding_, batched.embedding_)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("options", [{}, COMMON], ids=["paper", "common"])
def test_one_cluster_and_as_many_as_nodes(name, k, options):
    ring = sp.csr_array(np.roll(np.eye(5, dtype=np.float32), 1, axis=1))
    model = make(name, k, **options).fit(from_adjacency(ring, np.eye(5, 3, dtype=np.float32)))
    assert model.soft_assignment_.shape == (5, k)
    assert model.n_clusters_ <= k


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 16}, COMMON], ids=["paper", "batch", "common"]
)
def test_featureless_structureless_graphs_stay_finite(name, options):
    """No edges, all nodes alike: k-means finds one place, the other clusters are empty from the start."""
    empty = from_adjacency(sp.csr_array((40, 40), dtype=np.float32), np.zeros((40, 3), dtype=np.float32))
    model = make(name, **options).fit(empty)
    assert np.isfinite(model.embedding_).all()
    assert model.soft_assignment_.shape == (40, 3)
    np.testing.assert_array_equal(model.predict(empty), model.labels_)


@pytest.mark.parametrize("name", NAMES)
def test_nodes_alike_share_a_cluster(name, planted):
    graph, _ = planted
    twin = from_adjacency(sp.block_diag([graph.adjacency] * 2).tocsr(), np.vstack((graph.x, graph.x)))
    labels = make(name).fit(twin).labels_
    np.testing.assert_array_equal(labels[: graph.n], labels[graph.n :])


@pytest.mark.parametrize("name", NAMES)
def test_input_is_left_alone(name, planted):
    graph, _ = planted
    for x in (graph.x.copy(), sp.csr_array(np.where(graph.x > 0, graph.x, 0))):
        given = Graph(graph.adjacency.copy(), x.copy())
        every = {"weighting": "tfidf", "n_components": 4, "center": True, "smoothing": 1, "scale": True}
        for options in ({}, every):
            make(name, **options).fit(given)
            assert (given.adjacency != graph.adjacency).nnz == 0
            assert np.array_equal(given.x.data, x.data) if sp.issparse(x) else np.array_equal(given.x, x)


def test_divergence_is_an_error_that_says_what_to_do(planted):
    graph, _ = planted
    huge = Graph(graph.adjacency, graph.x * np.float32(1e30))
    with pytest.raises(DivergenceError, match=r"pre-training diverged: reconstruction is \w+ in epoch 0; lower lr"):
        make("pamc").fit(huge)


def test_collapse_is_stopped_and_said(planted):
    """Features of pure noise: without the guard one cluster swallows the rest."""
    noise = np.random.default_rng(5).random((120, 12), dtype=np.float32)
    graph = Graph(planted[0].adjacency, noise)
    harsh = {"beta": 1.0, "order": 4, "lr": 0.01, "epochs": 80}
    free = make("pamc", **harsh, collapse_guard=0.0).fit(graph)
    guarded = make("pamc", **harsh, collapse_guard=0.7).fit(graph)
    assert free.chosen_["stopped"] == "last"
    assert free.n_clusters_ == 1
    assert guarded.chosen_["stopped"] == "collapse"
    assert guarded.chosen_["epochs"] < 80
    assert guarded.n_clusters_ == 3


@pytest.mark.parametrize("name", NAMES)
def test_bad_parameters_are_refused(name, planted):
    for bad in ({"hidden": (10, 0)}, {"smoothing": -1}, {"weighting": "bm25"}, {"latent_dim": 0}, {"device": "tpu"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            make(name, **bad).fit(planted[0])


@pytest.mark.parametrize("name", TRAINED)
def test_paper_config_is_valid_and_names_every_setting(name):
    config = yaml.safe_load((ROOT / f"configs/graph/{name}/paper.yaml").read_text())
    assert config["method"] == name
    assert config["params"]["influence"] == ("power" if name == "scgc" else "cumulative")
    assert len(config["data"]) == 6
    settled = set(config["params"]) | {"alpha", "beta", "tau", "order"}
    left = {"n_clusters", "batch_size", "encoder", "device", "random_state"}
    assert settled | left == set(get_method(name)().get_params())
    for entry in config["data"].values():
        get_method(name)(3, **{**config["params"], **entry["params"]})._validate_params()
        assert all(0 < v < 1 for v in entry.get("published", {}).values())


def test_the_ensemble_setting_differs_from_the_defaults_in_the_number_of_networks_alone():
    config = yaml.safe_load((ROOT / "configs/graph/pamc/ensemble.yaml").read_text())
    assert config["method"] == "pamc"
    assert config["params"] == {"networks": 3}
    get_method("pamc")(3, **config["params"])._validate_params()
    assert config["params"]["networks"] > get_method("pamc")().networks


@pytest.mark.parametrize("name", TRAINED)
def test_the_defaults_solve_an_easy_graph_and_stop_by_themselves(name, planted):
    graph, y = planted
    model = get_method(name)(3, random_state=0).fit(graph)
    assert adjusted_rand_score(y, model.labels_) > 0.95
    assert model.chosen_["stopped"] == "settled"
    assert model.chosen_["smoothing"] == smoothing_steps(graph.adjacency)
    np.testing.assert_array_equal(model.predict(graph), model.labels_)


def test_automatic_options_mean_what_each_paper_does(planted):
    graph, _ = planted
    for name, kind, alpha in [("scgc", "power", 0.1), ("scgc_star", "cumulative", 0.1), ("pamc", "cumulative", 1.0)]:
        found = make(name, order=2, influence="auto", alpha="auto").fit(graph)
        spelled = make(name, order=2, influence=kind, alpha=alpha).fit(graph)
        np.testing.assert_array_equal(found.embedding_, spelled.embedding_)
        other = make(name, order=2, influence=kind, alpha=0.5).fit(graph)
        assert not np.array_equal(found.embedding_, other.embedding_)
