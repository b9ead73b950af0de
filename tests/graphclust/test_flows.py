"""Rivers: streams that neither overlap nor leave their blocks; clusters that keep their colour; lives that add up."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle

from graphclust.runs import flows
from graphclust.runs.drawing import GREY, PALETTE
from graphclust.runs.flows import (
    CLUSTERS_SHOWN,
    WINDOWS_SHOWN,
    extents,
    heights,
    river,
    tone_colour,
    window_lives,
    window_rivers,
)


@pytest.mark.parametrize("gone", [0.0, 0.4])
def test_streams_neither_overlap_nor_leave_their_blocks(gone):
    rng = np.random.default_rng(0)
    n = 60
    before, after, tones = rng.integers(-1, 3, n), rng.integers(4, size=n), rng.integers(3, size=n)
    here, there = rng.random((2, n)) >= gone
    both = here & there
    for own, other, present in ((before, after, here), (after, before, there)):
        column = extents(own[present], n)
        height = heights(column, own, present, tones, other, both)
        assert np.isnan(height[~present]).all() and len(np.unique(height[present])) == present.sum()
        for g, (low, high) in column.items():
            inside = height[present & (own == g)]
            assert high - low == pytest.approx(len(inside))
            assert inside.min() == pytest.approx(low) and inside.max() == pytest.approx(high - 1)
        for stream in {*zip(before[both], after[both], tones[both], strict=True)}:
            members = height[both & (before == stream[0]) & (after == stream[1]) & (tones == stream[2])]
            assert np.ptp(members) == pytest.approx(len(members) - 1), "a stream is in one piece"


def patches(axes, kind):
    return [p for p in axes.patches if isinstance(p, kind)]


def test_a_river_by_hand():
    axes = Figure().subplots()
    groups = np.array([[0, 0, 0, 1], [0, 0, 1, 1]])
    present = np.array([[True] * 4, [True, True, True, False]])
    river(axes, groups, groups[:1], ticks=["a", "b"], names={0: "zero", 1: "one"}, present=present)
    blocks = [(r.get_x(), r.get_y(), r.get_height()) for r in patches(axes, Rectangle)]
    gap = flows.GAP * 4
    assert blocks == [pytest.approx(b) for b in (
        (-0.08, 0, 3), (-0.08, 3 + gap, 1), (0.92, 0, 2), (0.92, 2 + gap, 1))]
    bands = [p.get_path().vertices for p in patches(axes, PathPatch)]
    ends = [(v[0, 1], v[3, 1], v[4, 1] - v[3, 1]) for v in bands]
    assert ends == [pytest.approx(e) for e in ((0, 0, 2), (2, 2 + gap, 1))], "two stay, one leaves, one is gone"
    assert [t.get_text() for t in axes.texts] == ["zero", "one", "zero", "one"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b"]


def drawn(monkeypatch, labels):
    """What the river of these labels is drawn from."""
    given = []
    monkeypatch.setattr(flows, "river", lambda axes, *args, **named: given.append((*args, named)))
    window_rivers({"m": labels})
    return given[0]


def test_a_cluster_has_one_colour_in_all_windows_and_absent_nodes_are_left_out(monkeypatch):
    labels = np.array([[0, 0, 3, 3, -1], [0, -1, 3, 3, 0], [3, 3, 3, -1, 0]])
    groups, tones, named = drawn(monkeypatch, labels)
    assert groups.tolist() == [[0, 0, 1, 1, 2], [0, 2, 1, 1, 0], [1, 1, 1, 2, 0]]
    assert named["present"].tolist() == (labels >= 0).tolist() and (tones == groups[:2]).all()
    assert named["names"] == {0: "0", 1: "3", 2: "…"} and named["ticks"] == ["1", "2", "3"]
    assert named["blocks"][0] == tone_colour(0) == PALETTE[0] and named["blocks"][1] == tone_colour(1) == PALETTE[1]


def test_many_small_clusters_are_one_grey_block_and_many_windows_are_thinned_out(monkeypatch):
    labels = np.tile(np.concatenate((np.repeat(np.arange(20), 2), np.repeat(np.arange(20, 30), 5))), (50, 1))
    groups, _, named = drawn(monkeypatch, labels)
    assert groups.shape == (WINDOWS_SHOWN, 90) and named["ticks"][0] == "1" and named["ticks"][-1] == "50"
    assert set(groups[0, 40:]) == set(range(4, CLUSTERS_SHOWN)), "all the large ones, after four of the small"
    assert (groups[0, 8:40] == CLUSTERS_SHOWN).all() and named["blocks"][CLUSTERS_SHOWN] == GREY
    quiet = np.where(np.arange(50)[:, None] % 2, labels, -1)
    assert [int(t) % 2 for t in drawn(monkeypatch, quiet)[2]["ticks"]] == [0] * WINDOWS_SHOWN, "no empty windows"
    assert len({tone_colour(i) for i in range(CLUSTERS_SHOWN)}) == CLUSTERS_SHOWN
    assert tone_colour(CLUSTERS_SHOWN) == tone_colour(-1) == GREY


@pytest.mark.parametrize("labels", [
    np.zeros((1, 3), int), np.array([[0, 1], [-1, -1], [0, 1]]), np.array([[0, -1], [-1, 0]]),
])
@pytest.mark.parametrize("figure", [window_rivers, window_lives])
def test_pictures_of_next_to_nothing_are_whole(figure, labels):
    picture = figure({"a": labels, "b": labels})
    assert picture.svg.startswith("<svg") and picture.svg.rstrip().endswith("</svg>") and picture.caption
    assert not re.search(r"\bnan\b", picture.svg)


def test_the_bars_of_the_lives_add_up_to_their_events(monkeypatch):
    labels = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, -1, -1, -1]])
    bars = {}
    monkeypatch.setattr("matplotlib.axes.Axes.bar", lambda self, x, size, **named: bars.update({named["label"]: size}))
    text = window_lives({"m": labels}).svg
    assert {event: size.tolist() for event, size in bars.items()} == {
        "continuations": [0, 0, 1], "births": [0, 0, 0], "deaths": [0, 0, 1], "merges": [1, 0, 0], "splits": [0, 1, 0]}
    assert all(word in text for word in ("window", "clusters"))
