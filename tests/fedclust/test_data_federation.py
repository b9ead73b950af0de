"""Federations from their declaration: determinism, independence of clients, pools, newcomers, truth, refusals."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fedclust.data.build import build_federation
from fedclust.data.concept import ConceptShift
from fedclust.data.deal import Deal
from fedclust.data.draw import Draw, LabelShift, cut_pools, draw_indices
from fedclust.data.feature import Corruption, FeatureShift
from fedclust.data.partition import Dirichlet, Iid, Quantity
from fedclust.data.settings import stream
from fedclust.data.sources import load_samples
from fedclust.data.spec import FederationSpec, HeldBack, Unseen
from graphclust.graph import InputError

SMALL = Draw(train=(30,), test=(10,), validation=(8,), labels=LabelShift(concentration=3.0))
PLAIN = Draw(train=(30,), test=(10,), validation=(8,), bootstrap=None)
NOISY = FeatureShift(variants=(Corruption(), Corruption(kind="noise", amount=0.25)),
                     deal=Deal(how="dealt", shares=(0.6, 0.4)))
SPEC = FederationSpec(n_clients=6, partition=SMALL, concept=ConceptShift(maps=("identity", "reverse")), feature=NOISY,
                      unseen=Unseen(support=20, test=20, features=(0, 1)), seed=5)


def equal(one, other):
    return all(torch.equal(getattr(getattr(one, s), a), getattr(getattr(other, s), a))
               for s in ("train", "test", "validation") for a in "xy")


CUT = SPEC.model_copy(update={"partition": Dirichlet(concentration=2.0), "unseen": HeldBack(clients=2)})


@pytest.mark.parametrize("spec", [SPEC, CUT], ids=["drawn", "cut"])
def test_the_same_spec_gives_the_same_tensors_and_json_loses_nothing(spec):
    again = FederationSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - global streams must not matter
    one = build_federation(spec)
    other = build_federation(again)
    assert one.truth == other.truth
    assert all(equal(a, b) for a, b in zip(one.everyone, other.everyone, strict=True))
    different = build_federation(spec.model_copy(update={"seed": 6}))
    assert not any(equal(a, b) for a, b in zip(one.clients, different.clients, strict=True))


def test_clients_that_draw_do_not_notice_one_more():
    six, nine = build_federation(SPEC), build_federation(SPEC.model_copy(update={"n_clients": 9}))
    assert [c.id for c in nine.clients[:6]] == [c.id for c in six.clients]
    assert all(equal(a, b) for a, b in zip(six.clients, nine.clients, strict=False))
    assert all(equal(a, b) for a, b in zip(six.unseen, nine.unseen, strict=True))
    assert all(nine.truth["feature"][i] == v for i, v in six.truth["feature"].items())


def test_more_validation_samples_change_neither_training_nor_test():
    wide = SMALL.model_copy(update={"validation": (25,)})
    for a, b in zip(build_federation(SPEC).clients,
                    build_federation(SPEC.model_copy(update={"partition": wide})).clients, strict=True):
        assert torch.equal(a.train.x, b.train.x) and torch.equal(a.test.y, b.test.y)
        assert (len(a.validation), len(b.validation)) == (8, 25)


def test_the_shifts_are_independent_of_each_other():
    """The same pictures, whatever the concept: only the labels go through the map."""
    plain = build_federation(SPEC.model_copy(update={"concept": ConceptShift(), "group_by": "feature"}))
    shifted = build_federation(SPEC)
    for a, b in zip(plain.clients, shifted.clients, strict=True):
        assert torch.equal(a.train.x, b.train.x)
        reverse = shifted.truth["concept"][b.id] == 1
        assert torch.equal(9 - a.train.y if reverse else a.train.y, b.train.y)


def test_pools_share_no_sample_and_the_splits_come_from_them():
    samples = load_samples("digits")
    pools = cut_pools(samples, 0, PLAIN.pools, seed=5)
    parts = [np.concatenate(p) for p in (pools.train, pools.validation, pools.test)]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(samples.y)))
    assert [len(p) / len(samples.y) for p in parts] == pytest.approx([0.5, 0.25, 0.25], abs=0.01)
    federation = build_federation(SPEC.model_copy(update={"partition": PLAIN, "feature": FeatureShift(),
                                                          "unseen": Unseen(support=20, test=20)}))

    def pictures(splits):
        return {x.numpy().tobytes() for s in splits for x in s.x}

    train = pictures(c.train for c in federation.clients)
    test = pictures(c.test for c in federation.everyone)
    assert not train & test
    assert not train & pictures(c.train for c in federation.unseen)
    assert not test & pictures([*(c.validation for c in federation.clients), *(c.train for c in federation.unseen)])
    pool = {samples.x[i].tobytes() for i in parts[2]}
    assert test <= pool


def test_without_bootstrap_a_client_draws_no_sample_twice_and_says_when_it_cannot():
    pool = [np.arange(5), np.arange(5, 20)]
    q = np.array([0.25, 0.75])
    chosen = draw_indices(pool, q, 20, random_counts=False, replace=False, client="c", rng=stream(0, "x"))
    assert sorted(chosen) == list(range(20))
    with pytest.raises(InputError, match="'c' needs 6 samples of class 0 and the pool has 5"):
        draw_indices(pool, q, 24, random_counts=False, replace=False, client="c", rng=stream(0, "x"))


def test_newcomers_are_concepts_by_features_with_equal_classes():
    federation = build_federation(SPEC)
    ids = {"unseen-concept0-clean", "unseen-concept0-noise0.25", "unseen-concept1-clean", "unseen-concept1-noise0.25"}
    assert {c.id for c in federation.unseen} == ids
    for c in federation.unseen:
        assert c.train.y.bincount().tolist() == [2] * 10 and c.test.y.bincount().tolist() == [2] * 10
        assert f"concept{federation.truth['concept'][c.id]}" in c.id
        assert ("noise" in c.id) == (federation.truth["feature"][c.id] == 1)


def test_sizes_and_label_groups_in_blocks():
    groups = tuple(tuple(float(c // 5 == g) for c in range(10)) for g in (0, 1))
    draw = Draw(train=(40, 12), test=(10,), validation=(0,), bootstrap=None,
                labels=LabelShift(groups=groups, deal=Deal(how="blocks")))
    federation = build_federation(FederationSpec(n_clients=4, partition=draw))
    assert [len(c.train) for c in federation.clients] == [40, 40, 12, 12]
    assert [int(c.train.y.max()) < 5 for c in federation.clients] == [True, True, False, False]
    assert federation.clients[0].train.y.bincount().tolist() == [8] * 5
    assert federation.truth["group"] == federation.truth["label"]
    assert set(federation.truth) == {"label", "size", "group"}


def test_a_cut_federation_holds_every_sample_once_and_newcomers_hold_back_theirs():
    spec = FederationSpec(n_clients=7, partition=Dirichlet(concentration=2.0), unseen=HeldBack(clients=2))
    federation = build_federation(spec)
    splits = [getattr(c, s) for c in federation.everyone for s in ("train", "test", "validation")]
    held = sorted(x.numpy().tobytes() for s in splits for x in s.x)
    assert held == sorted(x.tobytes() for x in load_samples("digits").x)
    assert [c.id for c in federation.unseen] == ["unseen-0000", "unseen-0001"]
    assert all(len(c.validation) == 0 and len(c.train) > len(c.test) for c in federation.unseen)
    assert "group" not in federation.truth


def test_a_smaller_source_keeps_the_shares_of_its_classes():
    samples = load_samples("digits").subset(100, seed=0)
    assert len(samples.y) == 100 and np.bincount(samples.y).tolist() == [10] * 10
    federation = build_federation(FederationSpec(n_clients=5, partition=Iid(), max_samples=100))
    assert sum(len(getattr(c, s)) for c in federation.clients for s in ("train", "test", "validation")) == 100


def test_what_the_true_groups_are():
    def groups(**changes):
        truth = build_federation(SPEC.model_copy(update={"unseen": None, **changes})).truth
        return next((name for name in truth if name != "group" and truth[name] == truth.get("group")), None)

    assert groups() == "concept"
    assert groups(concept=ConceptShift()) == "feature"
    assert groups(group_by="feature") == "feature"
    assert groups(concept=ConceptShift(), group_by="concept") == "concept"  # planted, and one for all
    assert groups(concept=ConceptShift(), feature=FeatureShift()) is None


@pytest.mark.parametrize("changes, word", [
    ({"unseen": Unseen(features=(7,))}, r"features holds 7.*0\.\.1"),
    ({"partition": Iid(), "unseen": None, "group_by": "label"}, "group_by = 'label'"),
    ({"source": "digit"}, "did you mean 'digits'"),
    ({"partition": Dirichlet(concentration=0.01, over="clients"), "unseen": None}, "client 'client-.*' has"),
    ({"partition": Iid(), "n_clients": 1797, "unseen": None}, "client 'client-0000' has 1 labelled"),
    ({"partition": Quantity(), "n_clients": 2000, "unseen": None}, "n_clients = 2000"),
    ({"concept": ConceptShift(maps=("reverse_first:40",))}, "40 labels of 10"),
    ({"partition": Draw(train=(2000,), bootstrap=None), "feature": FeatureShift(), "unseen": None}, "pool has"),
])
def test_what_cannot_be_built_is_refused_by_name(changes, word):
    with pytest.raises(InputError, match=word):
        build_federation(SPEC.model_copy(update=changes))


@pytest.mark.parametrize("bad, word", [
    ({"n_clients": 0}, "n_clients"), ({"clients": 3}, "clients"), ({"seed": -1}, "seed"),
    ({"partition": {"kind": "iid", "test": 0.0}}, "test"), ({"partition": {"kind": "idd"}}, "idd"),
    ({"partition": {"kind": "dirichlet", "concentration": 0}}, "concentration"),
    ({"partition": {"kind": "draw", "train": [0]}}, "train"),
    ({"partition": {"kind": "draw", "pools": [0.5, 0.5, 0.5]}}, "pools"),
    ({"partition": {"kind": "draw", "train": [1, 2], "test": [1, 2, 3]}}, "size class"),
    ({"partition": {"kind": "iid"}, "unseen": {"kind": "drawn"}}, "held_back"),
    ({"unseen": {"kind": "held_back"}}, "drawn"),
])
def test_bad_declarations_are_refused_by_name(bad, word):
    with pytest.raises(ValidationError, match=word):
        FederationSpec.model_validate(bad)
