"""Metrics over windows of time: by hand, by brute force, and the reading of labels at other windows."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import adjusted_rand_score, cohen_kappa_score, normalized_mutual_info_score

from graphclust.graph import InputError
from graphclust.metrics import Windows, evaluate, temporal
from graphclust.metrics.temporal import Life, at_windows, life
from graphclust.stream import build_stream

LABELS = hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(-1, 4))
# five nodes in three windows
BY_HAND = np.array([[0, 0, 0, 1, -1], [0, 0, 1, 1, 1], [0, 2, 2, -1, 1]])


def test_smoothness_by_hand():
    # pairs active in both windows: nodes 0-3 of the first two (three stay), 0, 1, 2, 4 of the last two (two stay)
    assert temporal.smoothness(BY_HAND) == 5 / 8
    # expected by chance: (3 * 2 + 1 * 2) / 4 = 2, then before 0 0 1 1, after 0 2 2 1: (2 * 1 + 2 * 1) / 4 = 1
    assert temporal.smoothness_kappa(BY_HAND) == pytest.approx((5 - 3) / (8 - 3))
    first = normalized_mutual_info_score([0, 0, 0, 1], [0, 0, 1, 1])
    second = normalized_mutual_info_score([0, 0, 1, 1], [0, 2, 2, 1])
    assert temporal.smoothness_nmi(BY_HAND) == pytest.approx((first + second) / 2)
    assert temporal.clusters_per_window(BY_HAND).tolist() == [2, 2, 3]


def awake(labels):
    return [row for row in labels if max(row) >= 0]


@given(LABELS)
def test_smoothness_is_the_share_counted_one_by_one(labels):
    pairs = [(a, b) for one, two in pairwise(awake(labels)) for a, b in zip(one, two, strict=True) if a >= 0 and b >= 0]
    expected = np.mean([a == b for a, b in pairs]) if pairs else np.nan
    assert temporal.smoothness(labels) == pytest.approx(expected, nan_ok=True)


def test_kappa_of_two_windows_is_scikit_learns_and_random_change_is_worth_nothing():
    rng = np.random.default_rng(0)
    one, two = rng.integers(3, size=(2, 40))
    assert temporal.smoothness_kappa(np.stack((one, two))) == pytest.approx(cohen_kappa_score(one, two))
    sizes = [0.9, 0.1]  # one large cluster: most nodes stay by chance alone
    labels = rng.choice(2, size=(20, 2000), p=sizes)
    assert temporal.smoothness(labels) > 0.8 and abs(temporal.smoothness_kappa(labels)) < 0.03


def test_a_change_of_ids_alone_is_seen_by_smoothness_and_not_by_nmi():
    labels = np.array([[0, 0, 1, 1], [1, 1, 0, 0]])
    assert temporal.smoothness(labels) == 0 and temporal.smoothness_nmi(labels) == pytest.approx(1)
    assert life(*labels) == Life(0, 0, 0, 0, 2)


def test_a_night_is_no_death_and_no_break():
    night = np.insert(BY_HAND, [1, 1, 2], -1, axis=0)
    given = [evaluate(labels[0], windows=Windows(labels)) for labels in (BY_HAND, night)]
    assert given[0] == given[1] and len(temporal.lives(night)) == 2


@pytest.mark.parametrize("labels", [np.zeros((1, 4), int), np.array([[0, -1], [-1, 0]]), np.full((3, 2), -1)])
def test_what_is_not_defined_is_nan(labels):
    assert all(np.isnan(f(labels)) for f in (temporal.smoothness, temporal.smoothness_kappa, temporal.smoothness_nmi))
    assert np.isnan(temporal.smoothness_kappa(np.zeros((3, 4), int))), "with one cluster nobody can change"


def clusters(*sizes):
    """Labels of consecutive nodes in clusters of these sizes; a negative size: nodes that are not active."""
    ids = [-1 if s < 0 else i for i, s in enumerate(sizes)]
    return np.repeat(ids, np.abs(sizes))


@pytest.mark.parametrize(("before", "after", "expected"), [
    (clusters(4, 6), clusters(4, 6), Life(0, 0, 0, 0, 2)),
    (clusters(4, -6), clusters(4, 6), Life(1, 0, 0, 0, 1)),
    (clusters(4, 6), clusters(4, -6), Life(0, 1, 0, 0, 1)),
    (clusters(4, 4, 4), clusters(12), Life(0, 0, 1, 0, 0)),
    (clusters(12), clusters(4, 4, 4), Life(0, 0, 0, 1, 0)),
    (clusters(3, 3, 3, 3), clusters(12), Life(1, 4, 0, 0, 0)),  # each overlaps by 1/4 only
    (clusters(10, 2), clusters(12), Life(0, 1, 0, 0, 1)),  # the small one is swallowed
    (clusters(-12), clusters(5, 7), Life(2, 0, 0, 0, 0)),
    (clusters(-3), clusters(-3), Life(0, 0, 0, 0, 0)),
])
def test_life_events_by_hand(before, after, expected):
    assert life(before, after) == expected


def test_the_overlap_must_exceed_the_threshold():
    before, after = clusters(4, 4), clusters(8)
    assert life(before, after, 0.49).merges == 1
    assert life(before, after, 0.5) == Life(births=1, deaths=2, merges=0, splits=0, continuations=0)


@given(LABELS, st.sampled_from([0.0, 0.1, 0.3, 0.5]))
def test_life_events_counted_with_sets(labels, threshold):
    for (one, two), found in zip(pairwise(awake(labels)), temporal.lives(labels, threshold), strict=True):
        old, new = ([set(np.flatnonzero(row == c)) for c in set(row.tolist()) - {-1}] for row in (one, two))
        match = [(i, j) for i, a in enumerate(old) for j, b in enumerate(new) if len(a & b) / len(a | b) > threshold]
        left, right = Counter(i for i, _ in match), Counter(j for _, j in match)
        assert found == Life(
            births=len(new) - len(right), deaths=len(old) - len(left), merges=sum(v > 1 for v in right.values()),
            splits=sum(v > 1 for v in left.values()),
            continuations=sum(left[i] == right[j] == 1 for i, j in match),
        )


def random_stream(rng, n=8, m=60, times=12):
    src, dst = rng.integers(n, size=(2, m))
    return build_stream(src, np.where(src == dst, (dst + 1) % n, dst), rng.integers(times, size=m).astype(float), n)


def active_labels(stream, edges, rng, k=3):
    """Random clusters of the nodes that have an event in a window."""
    labels = np.full((len(edges) - 1, stream.n), -1)
    for w, part in enumerate(stream.windows(edges)):
        own = np.union1d(part.src, part.dst)
        labels[w, own] = rng.integers(k, size=len(own))
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_labels_at_other_windows_are_the_majority_of_the_events(seed):
    rng = np.random.default_rng(seed)
    stream = random_stream(rng)
    edges, others = np.array([0, 3, 7, 11.0]), np.array([1.0, 5, 5.5, 11])
    labels = active_labels(stream, edges, rng)
    np.testing.assert_array_equal(at_windows(stream, labels, edges, edges), labels)

    def index(t, cuts):
        if t == cuts[-1]:
            return len(cuts) - 2
        return next((w for w, (low, high) in enumerate(pairwise(cuts)) if low <= t < high), None)

    votes = {}
    for s, d, t in zip(stream.src, stream.dst, stream.time, strict=True):
        if (w := index(t, others)) is not None:
            for node in (s, d):
                votes.setdefault((w, node), Counter())[labels[index(t, edges), node]] += 1
    expected = np.full((3, stream.n), -1)
    for key, counter in votes.items():
        expected[key] = min(counter, key=lambda c: (-counter[c], c))
    np.testing.assert_array_equal(at_windows(stream, labels, edges, others), expected)


def test_windows_of_single_times_and_a_last_one_without_duration():
    stream = build_stream(np.array([0, 1, 0]), np.array([1, 2, 2]), np.array([1.0, 2, 5]))
    edges = np.array([1.0, 2, 5, 5])
    labels = np.array([[0, 0, -1], [-1, 1, 1], [0, -1, 1]])
    np.testing.assert_array_equal(at_windows(stream, labels, edges, edges), labels)
    assert at_windows(stream, labels, edges, edges[[0, -1]]).tolist() == [[0, 0, 1]]


def test_scores_against_the_truth_are_means_over_its_windows():
    truth = np.array([[0, 0, 1, 1, -1], [0, 1, 0, 1, 1], [-1] * 5])
    found = np.array([[3, 3, 5, 3, 5], [1, 0, 1, 0, 0], [2] * 5])
    scores = evaluate(np.zeros(5), windows=Windows(found=found, truth=truth))
    assert scores["window_acc"] == pytest.approx((3 / 4 + 1) / 2)
    assert scores["window_ari"] == pytest.approx((adjusted_rand_score([0, 0, 1, 1], [3, 3, 5, 3]) + 1) / 2)
    assert set(scores) == {"window_acc", "window_nmi", "window_ari"}, "no windows of its own: no smoothness"


def test_evaluate_sums_the_life_events_over_the_windows():
    labels = np.stack([clusters(4, 4), clusters(8), clusters(4, 4), clusters(4, -4)])
    scores = evaluate(labels[0], windows=Windows(labels))
    events = {e: scores[f"window_{e}"] for e in ("births", "deaths", "merges", "splits", "continuations")}
    assert events == {"births": 0, "deaths": 1, "merges": 1, "splits": 1, "continuations": 1}
    assert scores["window_clusters"] == 1.5 and "window_ari" not in scores


def test_shapes_that_do_not_agree_are_refused():
    with pytest.raises(InputError, match=r"labels has shape \(4,\); it must be \(windows, nodes\)"):
        Windows(np.zeros(4))
    with pytest.raises(InputError, match=r"found has shape \(1, 4\) and truth \(2, 4\)"):
        Windows(found=np.zeros((1, 4)), truth=np.zeros((2, 4)))
    with pytest.raises(InputError, match="belong together"):
        Windows(truth=np.zeros((2, 4)))
