"""A stream as samples: entries of both ends, their history, co-contacts, negatives."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from graphclust.methods._events import LEAST, Events
from graphclust.stream import Stream, build_stream


@st.composite
def streams(draw) -> Stream:
    """Few nodes and few times: repeated events, ties, all at one time, nodes without any event."""
    n = draw(st.integers(2, 6))
    pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.integers(0, 3))
    events = [*draw(st.lists(pair, max_size=25)), (0, 1, draw(st.integers(0, 3)))]
    src, dst, time = np.array(events).T
    return build_stream(src, dst, time.astype(float), n)


def meetings(stream: Stream, node: int) -> list[tuple[int, int, float]]:
    """(event, other node, time) of one node, in the order of the events."""
    rows = enumerate(zip(stream.src.tolist(), stream.dst.tolist(), stream.time.tolist(), strict=True))
    return [(e, t if s == node else s, time) for e, (s, t, time) in rows if node in (s, t)]


@given(streams(), st.sampled_from(["span", "gap"]))
@settings(max_examples=60)
def test_every_event_is_an_entry_of_both_ends(stream, unit):
    events = Events.of(stream, unit)
    expected = [(v, t, e, time) for v in range(stream.n) for e, t, time in meetings(stream, v)]
    assert len(events) == len(expected) == 2 * stream.m
    assert list(zip(events.node.tolist(), events.other.tolist(), events.event.tolist(), strict=True)) == [
        row[:3] for row in expected
    ]
    gaps = [b[3] - a[3] for a, b in pairwise(expected) if a[0] == b[0] and b[3] > a[3]]
    span = stream.time[-1] - stream.time[0]
    scale = span if unit == "span" or not gaps else float(np.median(gaps))
    want = [(row[3] - stream.time[0]) / scale if scale else 0 for row in expected]
    np.testing.assert_allclose(events.time.numpy(), want, rtol=1e-6)


@pytest.mark.parametrize("begin", [0.0, 1_700_000_000.0])
def test_times_of_a_long_stream_are_told_apart(begin):
    """Ten years of seconds: node 0 meets another each second, at the beginning and at the end."""
    time = begin + np.concatenate((np.arange(50.0), 3.2e8 + np.arange(50.0)))
    events = Events.of(build_stream(np.zeros(100, int), np.tile([1, 2], 50), time), "gap")
    gaps = np.delete(np.diff(events.time[events.node == 0].numpy()), 49)
    assert 0.5 <= gaps[0] <= 1  # the unit lies between the gaps of node 0 and the others', two seconds
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-6)
    assert events.cocontacts()[1, 2] == pytest.approx(98 * np.exp(-gaps[0]), rel=1e-5)


@given(streams(), st.integers(1, 4))
@settings(max_examples=60)
def test_the_history_is_what_the_node_met_before_latest_first(stream, length):
    events = Events.of(stream, "gap")
    found, exists = events.history(torch.arange(len(events)), length)
    for entry in range(len(events)):
        node, event = int(events.node[entry]), int(events.event[entry])
        before = [(e, t) for e, t, _ in meetings(stream, node) if e < event][::-1][:length]
        assert exists[entry].tolist() == [h < len(before) for h in range(length)]
        for h, (e, t) in enumerate(before):
            at = found[entry, h]
            assert (int(events.event[at]), int(events.other[at]), int(events.node[at])) == (e, t, node)


@given(streams(), st.data())
@settings(max_examples=40)
def test_entries_of_chosen_events_come_in_the_order_of_time(stream, data):
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=stream.m, max_size=stream.m)))
    events = Events.of(stream, "span")
    found = events.entries(torch.from_numpy(chosen))
    assert events.event[found].tolist() == np.repeat(np.flatnonzero(chosen), 2).tolist()
    for e, pair in zip(np.flatnonzero(chosen), found.reshape(-1, 2), strict=True):
        assert set(events.node[pair].tolist()) == {stream.src[e], stream.dst[e]}


@given(streams())
@settings(max_examples=60)
def test_cocontacts_join_those_who_are_met_in_turn(stream):
    events = Events.of(stream, "gap")
    expected = np.zeros((stream.n, stream.n))
    for v in range(stream.n):
        times = events.time[events.node == v].tolist()
        met = [t for _, t, _ in meetings(stream, v)]
        for i in range(len(met) - 1):
            weight = np.exp(times[i] - times[i + 1])
            if met[i] != met[i + 1] and weight > LEAST:
                expected[met[i], met[i + 1]] += weight
                expected[met[i + 1], met[i]] += weight
    np.testing.assert_allclose(events.cocontacts().toarray(), expected, rtol=1e-5)


def test_cocontacts_far_apart_are_no_edges():
    # node 0 meets 1, 2, then 3 much later: the median gap is 1
    stream = build_stream(np.zeros(6, int), np.array([1, 2, 1, 2, 1, 3]), np.array([0, 1, 2, 3, 4, 40.0]))
    assert events_pairs(stream) == {(1, 2)}


def events_pairs(stream: Stream) -> set[tuple[int, int]]:
    i, j = Events.of(stream, "gap").cocontacts().nonzero()
    return {(int(a), int(b)) for a, b in zip(i, j, strict=True) if a < b}


def test_negatives_are_drawn_by_degree_to_the_three_quarters():
    degrees = np.array([1, 2, 8, 0, 32, 5])  # node 3 has no event; node 6 meets all others
    src = np.repeat(np.arange(6), degrees)
    stream = build_stream(src, np.full(len(src), 6), np.arange(len(src)) * 1.0, 8)
    drawn = Events.of(stream, "span").negatives(20_000, 3, torch.Generator().manual_seed(0))
    assert drawn.shape == (20_000, 3)
    counts = np.bincount(drawn.ravel(), minlength=8)
    assert counts[3] == counts[7] == 0
    weight = np.append(degrees, [degrees.sum(), 0]) ** 0.75
    busy = weight > 0
    assert chisquare(counts[busy], 60_000 * weight[busy] / weight.sum()).pvalue > 1e-3
    assert chisquare(counts[busy], 60_000 * weight[busy] ** (4 / 3) / (weight ** (4 / 3)).sum()).pvalue < 1e-9
