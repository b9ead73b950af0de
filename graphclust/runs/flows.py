"""Alluvial plots ("rivers"): who is in which group from one moment to the next; and the lives of clusters over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from graphclust.metrics.temporal import JACCARD, busy, clusters_per_window, lives
from graphclust.runs.drawing import GREY, INK, PALETTE, STYLE, Picture, grid, hide_rest, svg

BAR, GAP = 0.08, 0.04
# a block lower than this share of the highest column has no room for its number
LEGIBLE = 0.04
WINDOWS_SHOWN, CLUSTERS_SHOWN = 20, 2 * len(PALETTE)

READ_WINDOWS = (
    "First seed. Each column is a window of time (its number above), each block of it a cluster (its id inside, the "
    "same in all windows), as high as it has nodes with an event in the window. A stream is the nodes that have an "
    "event in both windows, in the colour of the cluster they come from; what is left of a block without a stream are "
    "nodes without an event in the next window, or in the one before. The largest clusters have colours of their own, "
    "all others together are the grey block below (…). Windows without any event are left out, of many windows others "
    "as well."
)
READ_LIVES = (
    "First seed. The line is the number of clusters that have an event in each window. Between two windows stands what "
    "became of the clusters: those that went on as one, were born or died, and merged into one or split into several, "
    f"by the overlap of their active nodes (Jaccard index above {JACCARD}), whatever their ids. Where most nodes of a "
    "window have no event in the next, clusters die and are born for that reason alone."
)
LIVES = {"continuations": PALETTE[0], "births": PALETTE[2], "deaths": PALETTE[3], "merges": PALETTE[1],
         "splits": PALETTE[5]}


def river(
    axes: Axes, groups: np.ndarray, tones: np.ndarray, *, ticks: Sequence[str], names: Mapping[int, str],
    blocks: Mapping[int, str] | None = None, present: np.ndarray | None = None,
) -> None:
    """Draw the groups (T, N) of N members at T moments as columns of blocks, and streams between neighbouring columns.

    Parameters
    ----------
    axes : where
    groups : int; of each moment, the group of each member; blocks stand in the order of the ids
    tones : (T - 1, N) int, into the palette: the colour of the stream that takes a member to the next moment; -1: grey
    ticks : T texts above the columns
    names : of the groups, written into their blocks where there is room
    blocks : colour of a group's blocks; grey by default
    present : (T, N) bool, False for a member that is in no block at that moment; by default all are
    """
    present = np.ones(groups.shape, dtype=bool) if present is None else present
    highest = int(present.sum(axis=1).max(initial=1))
    columns = [extents(row[here], highest) for row, here in zip(groups, present, strict=True)]
    for x, column in enumerate(columns):
        for group, (low, high) in column.items():
            colour = GREY if blocks is None else blocks[group]
            axes.add_patch(Rectangle((x - BAR, low), 2 * BAR, high - low, facecolor=colour, linewidth=0, alpha=0.85))
            if high - low > LEGIBLE * highest:
                light = np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.6
                axes.text(x, (low + high) / 2, names[group], ha="center", va="center", fontsize=7,
                          color="#000000" if light else "#ffffff")
    for x in range(len(columns) - 1):
        both = present[x] & present[x + 1]
        start = heights(columns[x], groups[x], present[x], tones[x], groups[x + 1], both)
        end = heights(columns[x + 1], groups[x + 1], present[x + 1], tones[x], groups[x], both)
        keys = np.stack((groups[x], groups[x + 1], tones[x]))[:, both]
        flows, of, widths = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
        tops = np.full((2, len(widths)), np.inf)
        for side, height in zip(tops, (start, end), strict=True):
            np.minimum.at(side, of.ravel(), height[both])
        for tone, a, b, width in zip(flows[2], *tops, widths, strict=True):
            axes.add_patch(PathPatch(_band(x + BAR, a, x + 1 - BAR, b, width), facecolor=tone_colour(tone), alpha=0.55,
                                     linewidth=0))
    axes.set(xlim=(-0.3, len(columns) - 0.7), ylim=(highest * (1.02 + GAP), -0.02 * highest), yticks=[])
    axes.set_xticks(range(len(columns)), ticks)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def tone_colour(i: int) -> str:
    """The i-th colour of a river; the palette a second time is lighter, -1 and what comes after is grey."""
    if not 0 <= i < CLUSTERS_SHOWN:
        return GREY
    if i < len(PALETTE):
        return PALETTE[i]
    red, green, blue = to_rgb(PALETTE[i % len(PALETTE)])
    return to_hex((0.5 + red / 2, 0.5 + green / 2, 0.5 + blue / 2))


def extents(groups: np.ndarray, highest: int) -> dict[int, tuple[float, float]]:
    """Upper and lower end of each group's block in a column; ``highest`` is the size of the highest column."""
    names, sizes = np.unique(groups, return_counts=True)
    gap = GAP * highest / max(len(names) - 1, 1)
    ends = np.cumsum(sizes) + gap * np.arange(len(names))
    return {int(g): (float(end - size), float(end)) for g, end, size in zip(names, ends, sizes, strict=True)}


def heights(
    column: Mapping[int, tuple[float, float]], groups: np.ndarray, present: np.ndarray, tones: np.ndarray,
    other: np.ndarray, both: np.ndarray,
) -> np.ndarray:
    """Height (N,) of each member in its column: in its block by colour, then by the group on the other side.

    Members that are not there on the other side (not ``both``) stand last in their block, absent ones at NaN.
    """
    order = np.lexsort((other, tones, ~both, groups))
    order = order[present[order]]
    sizes = np.unique(groups[order], return_counts=True)[1]
    within = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    out = np.full(len(groups), np.nan)
    out[order] = np.repeat([low for low, _ in column.values()], sizes) + within
    return out


def _band(x0: float, y0: float, x1: float, y1: float, width: float) -> Path:
    middle = (x0 + x1) / 2
    points = [(x0, y0), (middle, y0), (middle, y1), (x1, y1), (x1, y1 + width), (middle, y1 + width),
              (middle, y0 + width), (x0, y0 + width), (x0, y0)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    return Path(points, codes)


def window_rivers(runs: Mapping[str, np.ndarray]) -> Picture:
    """One panel a method; each run is the clusters (W, n) over windows of time, -1 for a node that is not active."""
    with rc_context(STYLE):
        figure, panels = grid(len(runs), 9.0, 3.4, 1)
        for axes, (method, labels) in zip(panels, runs.items(), strict=True):
            windows = busy(labels)
            shown = windows[np.unique(np.linspace(0, len(windows) - 1, WINDOWS_SHOWN).round().astype(int))]
            ids, sizes = np.unique(labels[labels >= 0], return_counts=True)
            first = np.sort(ids[np.argsort(-sizes, kind="stable")[:CLUSTERS_SHOWN]])
            groups = np.searchsorted(first, labels[shown])
            groups[~np.isin(labels[shown], first)] = len(first)
            present = labels[shown] >= 0
            river(axes, groups, groups[:-1], ticks=[str(w + 1) for w in shown], present=present,
                  names={**{i: str(c) for i, c in enumerate(first)}, len(first): "…"},
                  blocks={i: tone_colour(i) for i in range(len(first))} | {len(first): GREY})
            axes.set_title(method)
        return Picture(svg(figure, "Clusters over time"), "Clusters over time", READ_WINDOWS)


def window_lives(runs: Mapping[str, np.ndarray]) -> Picture:
    """Number of clusters in each window, and their life events between them; ``runs`` as for the rivers."""
    with rc_context(STYLE):
        figure, panels = grid(len(runs), 5.0, 2.6, 2)
        for axes, (method, labels) in zip(panels, runs.items(), strict=True):
            windows, found = busy(labels), lives(labels)
            between, top = (windows[:-1] + windows[1:]) / 2 + 1, np.zeros(len(found))
            counts = clusters_per_window(labels[windows])
            for event, colour in LIVES.items():
                size = np.array([getattr(life, event) for life in found], dtype=float)
                axes.bar(between, size, bottom=top, width=0.7, color=colour, alpha=0.75, label=event)
                top += size
            axes.plot(windows + 1, counts, color=INK, marker="o", markersize=3, linewidth=1.2,
                      label="clusters")
            axes.set(title=method, xlabel="window", ylabel="clusters", ylim=(0, 1.1 * max([*top, *counts])))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(integer=True))
        hide_rest(figure, panels)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=7)
        return Picture(svg(figure, "Lives of clusters"), "Clusters per window, and what becomes of them", READ_LIVES)
