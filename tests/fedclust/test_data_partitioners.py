"""Partitioners: every sample exactly once, and the skew that was asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedclust.data.deal import Deal, apportion, deal
from fedclust.data.partition import Dirichlet, Iid, Quantity, Shards, cut
from fedclust.data.settings import stream
from graphclust.graph import InputError

RULES = st.one_of(
    st.just(Iid()),
    st.builds(Dirichlet, concentration=st.floats(0.01, 1000), per=st.sampled_from(["total", "per_class"]),
              over=st.sampled_from(["classes", "clients"])),
    st.builds(Shards, per_client=st.integers(1, 3)),
    st.builds(Quantity, concentration=st.floats(0.05, 50), minimum=st.integers(1, 3)),
)


@settings(max_examples=150)
@given(rule=RULES, labels=st.lists(st.integers(0, 5), min_size=40, max_size=200), n_clients=st.integers(1, 12),
       seed=st.integers(0, 5))
def test_every_sample_goes_to_exactly_one_client(rule, labels, n_clients, seed):
    parts = cut(rule, np.array(labels), n_clients, stream(seed, "test"))
    assert len(parts) == n_clients
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))


@settings(max_examples=100)
@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=9), total=st.integers(0, 500))
def test_apportioned_counts_sum_to_the_total_and_miss_no_share_by_a_whole(weights, total):
    shares = np.array(weights) / np.sum(weights)
    counts = apportion(shares, total)
    assert counts.sum() == total
    assert np.all(np.abs(counts - shares * total) < 1 + 1e-6)


def test_apportion_by_hand():
    assert apportion(np.array([0.5, 0.3, 0.2]), 10).tolist() == [5, 3, 2]
    assert apportion(np.array([1 / 3, 1 / 3, 1 / 3]), 10).tolist() == [4, 3, 3]


Y = np.repeat(np.arange(10), 200)


def share_of_largest_class(parts):
    return np.mean([np.bincount(Y[p], minlength=10).max() / len(p) for p in parts])


def test_iid_and_dirichlet_over_classes_give_equal_sizes():
    for rule in (Iid(), Dirichlet(concentration=0.5)):
        sizes = [len(p) for p in cut(rule, Y, 7, stream(0, "a"))]
        assert max(sizes) - min(sizes) <= 1


def test_a_smaller_concentration_skews_more():
    skew = [share_of_largest_class(cut(Dirichlet(concentration=a), Y, 20, stream(0, "b"))) for a in (0.5, 5, 5000)]
    assert skew[0] > skew[1] > skew[2]
    assert skew[2] < 0.2


def test_total_concentration_is_classes_times_the_one_per_class():
    a = cut(Dirichlet(concentration=3.0, per="total"), Y, 8, stream(1, "c"))
    b = cut(Dirichlet(concentration=0.3, per="per_class"), Y, 8, stream(1, "c"))
    other = cut(Dirichlet(concentration=3.0, per="per_class"), Y, 8, stream(1, "c"))
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    assert not all(np.array_equal(p, q) for p, q in zip(a, other, strict=True))


def test_dirichlet_over_clients_skews_the_sizes_too():
    sizes = [len(p) for p in cut(Dirichlet(concentration=0.5, per="per_class", over="clients"), Y, 10, stream(0, "d"))]
    assert max(sizes) > 2 * min(sizes)


def test_shards_hold_few_classes():
    parts = cut(Shards(per_client=2), Y, 10, stream(0, "e"))  # 20 shards of 100: each of one class
    assert all(len(np.unique(Y[p])) <= 2 and len(p) == 200 for p in parts)


def test_quantity_by_ratio_keeps_the_labels_iid():
    parts = cut(Quantity(ratios=(1, 4)), Y, 4, stream(0, "f"), sizes=[0, 1, 0, 1])
    assert [len(p) for p in parts] == [200, 800, 200, 800]
    assert np.bincount(Y[parts[1]], minlength=10).min() > 50


def test_quantity_by_draw_leaves_every_client_its_minimum():
    sizes = [len(p) for p in cut(Quantity(concentration=0.05, minimum=7), Y, 30, stream(0, "g"))]
    assert min(sizes) >= 7
    assert max(sizes) > 200


@pytest.mark.parametrize("rule, clients, words", [
    (Iid(), 11, ["n_clients = 11", "10"]),
    (Shards(per_client=3), 4, ["n_clients = 4", "per_client = 3", "12"]),
    (Quantity(minimum=6), 2, ["minimum = 6", "12", "10"]),
])
def test_more_clients_than_samples_are_refused(rule, clients, words):
    with pytest.raises(InputError) as e:
        cut(rule, np.zeros(10, np.int64), clients, stream(0, "h"))
    assert all(w in str(e.value) for w in words)


def test_deals_by_hand():
    assert deal(Deal(), 3, 7, 0, "x") == [0, 1, 2, 0, 1, 2, 0]
    assert deal(Deal(how="blocks"), 2, 5, 0, "x") == [0, 0, 0, 1, 1]
    assert deal(Deal(how="blocks", shares=(25, 9, 4, 2)), 4, 40, 0, "x") == [0] * 25 + [1] * 9 + [2] * 4 + [3] * 2


def test_dealt_shares_are_exact_over_a_deck_and_a_client_keeps_its_card():
    rule = Deal(how="dealt", shares=(0.6, 0.1, 0.1, 0.1, 0.1))
    some, more = deal(rule, 5, 30, 3, "x"), deal(rule, 5, 47, 3, "x")
    assert more[:30] == some
    for deck in (some[:10], some[10:20], some[20:]):
        assert sorted(deck) == [0] * 6 + [1, 2, 3, 4]
    assert deal(rule, 5, 30, 3, "y") != some
    assert deal(rule, 5, 30, 4, "x") != some


def test_shares_that_fit_no_small_deck_are_nearly_kept():
    dealt = deal(Deal(how="dealt", shares=(np.pi, 1)), 2, 100, 0, "x")
    assert dealt.count(0) == round(100 * np.pi / (np.pi + 1))


@pytest.mark.parametrize("rule, variants, clients, word", [
    (Deal(how="dealt", shares=(1, 2)), 3, 9, "2 shares for 3"),
    (Deal(shares=(1, 2)), 2, 9, "cycle"),
    (Deal(how="blocks"), 4, 3, "3 clients for 4 blocks"),
])
def test_deals_that_do_not_fit_are_refused(rule, variants, clients, word):
    with pytest.raises(InputError, match=word):
        deal(rule, variants, clients, 0, "concept")


def test_a_stream_depends_on_its_name_and_nothing_else():
    first = stream(0, "client-0001", "train").random(4)
    stream(0, "client-0000", "train").random(100)
    assert np.array_equal(first, stream(0, "client-0001", "train").random(4))
    assert not np.array_equal(first, stream(0, "client-0001", "test").random(4))
    assert not np.array_equal(first, stream(1, "client-0001", "train").random(4))
