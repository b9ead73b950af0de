"""The named scenarios say what they plant."""

from collections import Counter

import numpy as np
import pytest
import torch

from fedclust.data.build import build_federation
from fedclust.data.sources import _fashion, _mnist, load_samples
from fedclust.data.spec import FederationSpec
from fedclust.models import Model, ModelConfig
from fedclust.task import Cohort, Training, stream
from graphclust.graph import InputError
from simulations.scenarios import describe_scenarios, scenario, scenario_names
from simulations.setups import SETUPS

OFFLINE = [n for n in scenario_names() if not n.startswith(("graph-cora", "digits-vs-mnist", "fmnist"))]


def test_digits_3shift_is_what_the_published_setting_says():
    spec = scenario("digits-3shift")
    federation = build_federation(spec)
    concept, feature = federation.truth["concept"], federation.truth["feature"]
    assert [len(c.train) for c in federation.clients] == [200] * 30
    assert [len(c.test) for c in federation.clients] == [60] * 30
    assert [concept[c.id] for c in federation.clients] == [i % 3 for i in range(30)]
    assert Counter(feature[c.id] for c in federation.clients) == {0: 18, 1: 3, 2: 3, 3: 3, 4: 3}
    assert [v.name for v in spec.feature.variants] == ["clean", "noise0.25", "contrast0.4", "blur0.6", "rotate20"]
    assert spec.concept.maps == ("identity", "reverse", "next")
    assert (spec.partition.labels.concentration, spec.partition.labels.per) == (3.0, "total")
    assert federation.truth["group"] == concept
    assert len(federation.unseen) == 9
    assert Counter((concept[c.id], feature[c.id]) for c in federation.unseen) == {(k, f): 1 for k in range(3)
                                                                                  for f in range(3)}
    for c in federation.unseen:
        assert c.train.y.bincount().tolist() == [27] * 10
        assert c.test.y.bincount().tolist() == [27] * 10
    assert federation.input_shape == (1, 8, 8)
    assert all(-0.5 <= c.train.x.min() < 0 < c.train.x.max() <= 0.5 for c in federation.everyone)


def test_only_training_pictures_of_digits_3shift_vary_unless_all_shall():
    source = load_samples("digits").x
    for varied in ("train", "all"):
        federation = build_federation(scenario("digits-3shift", varied=varied))
        known = {x.tobytes() for x in (source - np.float32(0.5) if varied == "train" else source)}
        clients, new = ([c for c in of if federation.truth["feature"][c.id] == 0]
                        for of in (federation.clients, federation.unseen))
        assert (len(clients), len(new)) == (18, 3)
        splits = {"train": [c.train for c in clients], "support": [c.train for c in new],
                  "validation": [c.validation for c in clients], "test": [c.test for c in clients + new]}
        shares = {name: np.mean([x.tobytes() in known for s in of for x in s.x.numpy()])
                  for name, of in splits.items()}
        untouched = 1 if varied == "train" else 0
        assert shares == {"train": 0, "support": untouched, "validation": untouched, "test": untouched}


def test_training_alone_on_digits_3shift_does_as_the_reference_says():
    """.919 after 30 rounds of two epochs, which without a server are 60 epochs; this says how hard the pictures are."""
    training, found = Training(**SETUPS["digits-3shift"]["config"]["training"] | {"epochs": 60}), []
    for seed in (2, 3, 4):
        clients = build_federation(scenario("digits-3shift", seed=seed)).clients
        model = Model(ModelConfig(), (1, 8, 8), 10)
        cohort = Cohort(clients, model, seed=seed, round=0)
        first = {name: t.expand(30, 1, *t.shape) for name, t in model.init(stream(seed, "model")).items()}
        alone = cohort.evaluate(cohort.train(first, training), torch.ones(30, 1), hard=True)
        found.append(float(alone["accuracy"].mean()))
    assert np.mean(found) == pytest.approx(0.919, abs=0.01)


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_is_declared_in_full(name):
    spec = scenario(name, seed=3)
    assert FederationSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.seed == 3
    assert scenario(name, n_clients=8).n_clients == 8
    row = next(r for r in describe_scenarios() if r["name"] == name)
    assert row["summary"].endswith(".") and row["source"] and "n_clients=" in row["options"]


@pytest.mark.parametrize("name", OFFLINE)
def test_every_scenario_that_needs_no_download_builds(name):
    federation = build_federation(scenario(name))
    assert all(len(c.test) for c in federation.everyone)
    if name.endswith("-clustering"):
        assert not federation.unseen and all((c.train.y == -1).all() for c in federation.clients)
        return
    assert len(federation.unseen) > 0
    assert all(len(c.validation) for c in federation.clients)
    if name != "graph-debtopics13":
        assert set(federation.truth["group"]) == {c.id for c in federation.everyone}


def groups(name, **options):
    federation = build_federation(scenario(name, **options))
    return [federation.truth["group"][c.id] for c in federation.clients]


def test_planted_groups():
    assert groups("digits-one-concept") == [0] * 30
    assert groups("digits-concept-shift") == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert groups("digits-label-shift") == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert groups("digits-rotated") == [0, 1, 2, 3] * 5
    assert Counter(groups("minority-groups")) == {0: 25, 1: 9, 2: 4, 3: 2}
    assert groups("graph-sbm") == [0, 1] * 6


def test_one_concept_has_the_pictures_of_three_shifts():
    one, three = (build_federation(scenario(f"digits-{n}", n_clients=3)) for n in ("one-concept", "3shift"))
    assert all(torch.equal(a.train.x, b.train.x) for a, b in zip(one.clients, three.clients, strict=True))
    assert torch.equal(one.clients[0].train.y, three.clients[0].train.y)
    assert torch.equal(9 - one.clients[1].train.y, three.clients[1].train.y)


def test_fedcollabs_layouts_on_digits():
    concept, label = (build_federation(scenario(f"digits-{n}-shift")) for n in ("concept", "label"))
    assert [len(c.train) for c in concept.clients] == [len(c.train) for c in label.clients] == [300] * 6 + [100] * 6
    assert all(c.train.y.bincount().tolist() == [30] * 10 for c in concept.clients[:6])
    supports = [[0, 1, 2, 3], [1, 2, 3, 4], [5, 6, 7, 8], [6, 7, 8, 9]]
    assert [c.train.y.unique().tolist() for c in label.clients[::3]] == supports
    counts = label.clients[0].train.y.bincount().tolist()
    assert counts == [50, 100, 100, 50]


def test_quantity_skew_is_a_partition_and_skewed():
    federation = build_federation(scenario("quantity-skew"))
    sizes = [sum(len(getattr(c, s)) for s in ("train", "test", "validation")) for c in federation.everyone]
    assert sum(sizes) == 1797 and min(sizes) >= 20 and max(sizes) > 4 * min(sizes)


@pytest.fixture
def own_images(tmp_path, monkeypatch):
    """Stand-ins for the image sets: 100 random pictures a class."""
    rng = np.random.default_rng(0)
    for name in ("fashion_mnist", "mnist_5k"):
        np.savez(tmp_path / f"{name}.npz", x=rng.integers(0, 256, (1000, 28, 28), np.uint8), y=np.arange(1000) % 10)
    monkeypatch.setenv("GRAPHCLUST_DATA", str(tmp_path))
    for cached in (_fashion, _mnist):
        cached.cache_clear()
    yield
    for cached in (_fashion, _mnist):
        cached.cache_clear()


def test_layouts_on_image_sets(own_images):
    with pytest.raises(InputError, match="samples of class"):
        build_federation(scenario("fmnist-rotated"))
    one = FederationSpec.model_validate(
        scenario("fmnist-label-shift", big=200).model_dump() | {"unseen": None}
    )
    small = one.model_copy(update={"partition": one.partition.model_copy(update={"test": (40,), "validation": (6,)})})
    federation = build_federation(small)
    assert [len(c.train) for c in federation.clients] == [200] * 10 + [2] * 10  # e^-5 of 200 is 1.3; two at least
    assert federation.input_shape == (1, 28, 28)
    two = build_federation(scenario("digits-vs-mnist", n_clients=4))
    assert [two.truth["group"][c.id] for c in two.clients] == [0, 1, 0, 1]
    assert [c.id for c in two.unseen] == ["unseen-domain0-clean", "unseen-domain1-clean"]


def test_big_and_small_as_published():
    assert scenario("fmnist-label-shift").partition.train == (2100, 14)
    assert scenario("fmnist-rotated").partition.train == (2500, 338)


@pytest.mark.parametrize("name, options, words", [
    ("digits-3shif", {}, ["digits-3shif", "did you mean 'digits-3shift'", "graph-cora"]),
    ("digits-3shift", {"n_client": 3}, ["n_client", "did you mean n_clients", "A"]),
    ("digits-3shift", {"A": 0}, ["A = 0", "greater than 0"]),
    ("digits-3shift", {"n_clients": "many"}, ["n_clients = 'many'", "integer"]),
    ("digits-3shift", {"n_clients": 20_000}, ["n_clients = 20000", "10000"]),
    ("quantity-skew", {"concentration": -1}, ["concentration = -1"]),
    ("graph-sbm", {"concepts": 9}, ["concepts = 9", "1..4"]),
])
def test_what_a_scenario_cannot_be_is_refused_by_name(name, options, words):
    with pytest.raises(InputError) as e:
        scenario(name, **options)
    assert all(w in str(e.value) for w in words), str(e.value)
