"""Figures of who is in which group: over the rounds, against the truth, and beside whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from graphclust.runs.drawing import INK, PALETTE, STYLE, Picture, confusion, grid, hide_rest, shade, svg
from graphclust.runs.flows import river

MOMENTS = 8
PAIRED = 1000
"""Clients in a picture of all pairs: more would be thinner than its pixels."""
READ_RIVER = (
    "First seed. Each column is a moment, each block of it a group (its number inside), as high as it has clients; a "
    "stream is the clients that go from one group to the next, coloured by their {colour}. Few crossings: the groups "
    "settled; blocks of one colour: the groups are those that were planted. Above a column: the rounds done."
)
READ_CONFUSION = (
    "First seed. Rows are the true groups, columns the found ones; matched ones meet on the diagonal. The shade is the "
    "share of the true group, the number counts clients. Weight off the diagonal in a row: the group is split; in a "
    "column: groups are merged, whose clients then pull one model two ways."
)
READ_SIMILARITY = (
    "First seed, clients ordered by found group and within it by true group; the strip on the left is the true group. "
    "Shade: similarity of two clients, as the algorithm computed it, or else the cosine of their group weights. Lines "
    "part the groups. Dark squares outside the diagonal blocks are clients that the partition holds apart. Of more "
    f"than {PAIRED:,} clients so many are shown, drawn at random."
)


def rivers(runs: Mapping[str, np.ndarray], truth: np.ndarray | None, truth_name: str) -> Picture:
    """One panel an algorithm; each run is the groups (R + 1, N) after so many rounds, -1 for none yet."""
    with rc_context(STYLE):
        figure, panels = grid(len(runs), 5.2, 2.9, 2)
        for axes, (method, groups) in zip(panels, runs.items(), strict=True):
            _river(axes, groups, groups[-1] if truth is None else truth)
            axes.set_title(method)
        hide_rest(figure, panels)
        name = "last group" if truth is None else f"true {truth_name}"
        return Picture(svg(figure, "Assignment over rounds"), "Assignment over rounds", READ_RIVER.format(colour=name))


def _river(axes: Axes, groups: np.ndarray, kinds: np.ndarray) -> None:
    known = np.flatnonzero((groups >= 0).any(axis=1))
    first = int(known[0]) if len(known) else 0
    moments = np.unique(np.linspace(first, len(groups) - 1, MOMENTS).round().astype(int))
    tones = np.unique(kinds, return_inverse=True)[1] % len(PALETTE)
    names = {int(g): "–" if g < 0 else str(g) for g in np.unique(groups)}
    river(axes, groups[moments], np.tile(tones, (len(moments) - 1, 1)), ticks=[str(t) for t in moments], names=names)


def confusions(runs: Mapping[str, Sequence[tuple[str, np.ndarray, np.ndarray]]]) -> Picture:
    """Found against true groups; each run has one panel for each (name of the truth, found (N,), truth (N,))."""
    panels = [(method, *panel) for method, held in runs.items() for panel in held]
    with rc_context(STYLE):
        figure, axes = grid(len(panels), 2.9, 2.5, 4)
        for ax, (method, name, found, truth) in zip(axes, panels, strict=True):
            known = found >= 0
            confusion(ax, found[known], truth[known], f"{method}: {name}", words=("found group", f"true {name}"))
        hide_rest(figure, axes)
        return Picture(svg(figure, "Confusion"), "Found against true groups", READ_CONFUSION)


def similarities(runs: Mapping[str, tuple[np.ndarray, np.ndarray]], truth: np.ndarray | None) -> Picture:
    """One panel an algorithm; each run is (similarity (N, N), found groups (N,))."""
    with rc_context(STYLE):
        figure, panels = grid(len(runs), 3.0, 2.9, 3)
        for axes, (method, (similarity, found)) in zip(panels, runs.items(), strict=True):
            kinds = np.zeros(len(found), dtype=int) if truth is None else np.unique(truth, return_inverse=True)[1]
            order = np.lexsort((kinds, found))
            strip = max(1, round(len(found) / 25))
            shade(axes, np.clip(similarity[np.ix_(order, order)], 0, 1))
            if truth is not None:
                tones = np.array([to_rgb(PALETTE[k % len(PALETTE)]) for k in kinds[order]])
                axes.imshow(np.repeat(tones[:, None], strip, axis=1), aspect="auto", interpolation="nearest",
                            extent=(-1.5 - strip, -1.5, len(found) - 0.5, -0.5))
            for edge in np.flatnonzero(np.diff(found[order])) + 0.5:
                axes.axhline(edge, color=INK, linewidth=0.5)
                axes.axvline(edge, color=INK, linewidth=0.5)
            axes.set(title=method, xlabel="client, by group", xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set(xlim=(-2 - strip, len(found) - 0.5), ylim=(len(found) - 0.5, -0.5))
        hide_rest(figure, panels)
        return Picture(svg(figure, "Client similarity"), "Similarity of the clients, ordered by group", READ_SIMILARITY)
