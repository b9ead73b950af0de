"""Partition metrics against scikit-learn, igraph, brute force and hand-computed values."""

from itertools import combinations, permutations

import igraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from graphclust.graph import InputError
from graphclust.metrics import evaluate, partition
from graphclust.metrics.partition import contingency

NAMES = ["acc", "nmi", "ami", "ari", "f1", "micro_f1", "purity", "homogeneity", "completeness", "v_measure", "vi",
         "pairwise_precision", "pairwise_recall", "pairwise_f1"]
SHAPES = [(200, 5, 5), (200, 3, 9), (200, 9, 3), (50, 1, 4), (50, 4, 1), (30, 1, 1), (40, 40, 6)]
small = st.integers(1, 9).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 2))


def draw(n, k_true, k_pred, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(k_true, size=n)
    labels = np.where(rng.random(n) < 0.5, y % k_pred, rng.integers(k_pred, size=n))
    return y, labels


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_to_scikit_learn(shape):
    y, labels = draw(*shape)
    got = evaluate(labels, y)
    assert list(got) == NAMES
    expected = {
        "nmi": sk.normalized_mutual_info_score(y, labels),
        "ami": sk.adjusted_mutual_info_score(y, labels),
        "ari": sk.adjusted_rand_score(y, labels),
        "homogeneity": sk.homogeneity_score(y, labels),
        "completeness": sk.completeness_score(y, labels),
        "v_measure": sk.v_measure_score(y, labels),
        "vi": igraph.compare_communities(y.tolist(), labels.tolist(), method="vi"),
    }
    assert {k: got[k] for k in expected} == pytest.approx(expected, abs=1e-9)


def brute_force(y, labels):
    """The best accuracy over all one-to-one maps of clusters to classes, and the best macro F1 among those."""
    classes, clusters = sorted(set(y)), sorted(set(labels))
    nowhere = [f"none{i}" for i in range(len(clusters))]
    best = (-1.0, -1.0)
    for images in set(permutations(classes + nowhere, len(clusters))):
        mapped = [str(dict(zip(clusters, images, strict=True))[c]) for c in labels]
        truth = [str(c) for c in y]
        macro = sk.f1_score(truth, mapped, labels=[str(c) for c in classes], average="macro", zero_division=0)
        best = max(best, (sk.accuracy_score(truth, mapped), macro))
    return best


@settings(max_examples=8)
@given(st.integers(1, 8).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 2), min_size=n, max_size=n)] * 2)))
def test_matching_against_brute_force(pair):
    y, labels = pair
    got = evaluate(np.array(labels), np.array(y), names=["acc", "f1", "micro_f1"])
    best_acc, best_f1 = brute_force(y, labels)
    assert got["acc"] == pytest.approx(best_acc)
    assert got["micro_f1"] == pytest.approx(best_acc)
    assert got["f1"] == pytest.approx(best_f1)


@settings(max_examples=60)
@given(small)
def test_pairs_against_brute_force(pair):
    y, labels = pair
    together = [(y[i] == y[j], labels[i] == labels[j]) for i, j in combinations(range(len(y)), 2)]
    both = sum(a and b for a, b in together)
    true, pred = sum(a for a, _ in together), sum(b for _, b in together)
    got = evaluate(np.array(labels), np.array(y))
    assert got["pairwise_precision"] == (both / pred if pred else float(true == 0))
    assert got["pairwise_recall"] == (both / true if true else float(pred == 0))
    p, r = got["pairwise_precision"], got["pairwise_recall"]
    assert got["pairwise_f1"] == pytest.approx(2 * p * r / (p + r) if p + r else 0.0)
    assert got["purity"] == sum(max(np.bincount([y[i] for i in range(len(y)) if labels[i] == c])) for c in set(labels)
                                ) / len(y)


@settings(max_examples=60)
@given(small, st.permutations(range(4)), st.permutations(range(4)))
def test_ids_are_names_only(pair, rename_y, rename_labels):
    y, labels = (np.array(side) for side in pair)
    renamed = evaluate(np.array(rename_labels)[labels] * 10 + 3, np.array(rename_y)[y])
    assert renamed == pytest.approx(evaluate(labels, y), abs=1e-9)
    assert all(np.isfinite(v) for v in renamed.values())


def test_more_clusters_than_classes_by_hand():
    y = np.array([0, 0, 0, 0, 1, 1])
    labels = np.array([0, 0, 1, 1, 2, 2])  # class 0 is split: one half is unmatched and wrong
    got = evaluate(labels, y)
    assert got["acc"] == pytest.approx(4 / 6)
    assert got["f1"] == pytest.approx((2 * 2 / (4 + 2) + 1) / 2)
    assert got["purity"] == got["homogeneity"] == got["pairwise_precision"] == 1
    assert got["pairwise_recall"] == pytest.approx(3 / 7)


def test_fewer_clusters_than_classes_by_hand():
    y, labels = np.array([0, 0, 0, 1, 1, 2]), np.zeros(6, dtype=int)
    got = evaluate(labels, y)
    assert got["acc"] == got["purity"] == 0.5
    assert got["f1"] == pytest.approx((2 * 3 / (3 + 6)) / 3)  # classes 1 and 2 have no cluster: F1 = 0
    assert got["nmi"] == got["ari"] == got["homogeneity"] == 0 and got["completeness"] == 1
    assert got["vi"] == pytest.approx(np.log(6) - (3 * np.log(3) + 2 * np.log(2)) / 6)


@pytest.mark.parametrize("y", [[0], [0, 0, 0], [0, 1, 2], [5, 5, 9, 9]])
def test_perfect_partition(y):
    got = evaluate(np.array(y) + 7, np.array(y))
    assert got.pop("vi") == pytest.approx(0, abs=1e-12)
    assert got == pytest.approx(dict.fromkeys(got, 1.0))


def test_unknown_labels_are_left_out():
    y, labels = draw(100, 4, 6)
    partly = np.where(np.arange(100) % 3 == 0, -1, y)
    assert evaluate(labels, partly) == evaluate(labels[partly >= 0], y[partly >= 0])
    assert evaluate(labels, np.full(100, -1)) == {}


@pytest.mark.parametrize("shape", [(300, 7, 12), (300, 12, 7), (300, 300, 20), (60, 60, 60)])
def test_sparse_matching_equals_dense(shape, monkeypatch):
    y, labels = draw(*shape)
    dense = evaluate(labels, y, names=["acc", "f1"])
    monkeypatch.setattr(partition, "DENSE_CELLS", 0)
    assert evaluate(labels, y, names=["acc", "f1"]) == pytest.approx(dense)


def test_arrays_are_not_changed():
    y, labels = draw(50, 3, 5)
    before = y.copy(), labels.copy()
    y.setflags(write=False)
    labels.setflags(write=False)
    evaluate(labels, y)
    assert (y == before[0]).all() and (labels == before[1]).all()


def test_bad_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(3,\).*\(2,\)"):
        contingency([0, 1, 0], [0, 1])
    with pytest.raises(InputError, match="empty"):
        contingency([], [])
    with pytest.raises(InputError, match="same n"):
        evaluate(np.zeros(3), np.zeros(4))
