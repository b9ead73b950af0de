"""What the figures of all reports are drawn with: each is an SVG that takes the page's text colour.

Only matplotlib's ``Figure`` objects are used: nothing touches pyplot, its backend or its global state.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from graphclust.metrics.partition import contingency

# Okabe & Ito's palette, safe for the colour-blind, without the two that vanish on a white or a black page
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#8C6D46"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
DASHES = ["-", "--", ":", "-."]
GREY = "#8a8f98"
# stands for the page's text colour: the SVG says "currentColor" in its place
INK = "#010203"
COLUMNS_SHOWN, CLASSES_NAMED = 24, 30

STYLE: Any = {
    "font.size": 9, "font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": "graphclust",
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9,
    "legend.frameon": False, "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.parse_math": False, "axes.linewidth": 0.6, "lines.linewidth": 1.4,
}


@dataclass(frozen=True)
class Picture:
    """A figure of the report: its SVG, what it shows, and how to read it."""

    svg: str
    title: str
    caption: str


def svg(figure: Figure, label: str) -> str:
    """The figure as an SVG element that scales with the page; ``label`` names it to a screen reader."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=110, metadata={"Date": None, "Creator": None})
    body = buffer.getvalue()
    body = body[body.index("<svg"):].replace(INK, "currentColor")
    # the page decides the size and the viewBox keeps the shape; on a phone a wide figure scrolls, still legible
    body = re.sub(r'height="[\d.]+pt"', "", body, count=1)
    narrowest = 0.75 * 72 * figure.get_figwidth()
    return body.replace("<svg ", f'<svg role="img" aria-label="{label}" style="min-width: {narrowest:.0f}pt" ', 1)


def grid(count: int, width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels, each of width x height inches, at most ``columns`` side by side."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))[:count]


def logarithmic(*axes: Any) -> None:
    """Logarithmic axes with plain numbers: powers of ten would be set as formulas."""
    for axis in axes:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def line(i: int) -> dict[str, Any]:
    """Colour and dashes of the i-th method: its place in the palette is the same in every figure of a report."""
    return {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i // len(PALETTE) % len(DASHES)]}


def marker(i: int) -> str:
    """Shifted by one each time the palette starts again, so that no two of 49 methods look alike."""
    return MARKERS[(i + i // len(PALETTE)) % len(MARKERS)]


def hide_rest(figure: Figure, used: Sequence[Axes]) -> None:
    """Take away the panels of the grid that nothing was drawn in."""
    for axes in figure.axes:
        if axes not in used:
            axes.set_axis_off()


def confusion(axes: Axes, labels: np.ndarray, y: np.ndarray, title: str, *, names: Sequence[str] | None = None,
              words: tuple[str, str] = ("cluster", "class")) -> None:
    """Classes ``y`` (n,) against clusters ``labels`` (n,), matched ones on the diagonal.

    Classes without a cluster stand below, clusters without a class to the right, by size; of many clusters the last
    column holds the rest. The shade is the share of the class, the number counts members.

    Parameters
    ----------
    names : of the classes, by their ids
    words : what a column and a row is
    """
    c = contingency(y, labels)
    row, col = c.matching
    first = np.argsort(row)
    rows, columns = matched_order(row[first], c.classes), matched_order(col[first], c.clusters)
    counts = c.table.toarray()[np.ix_(rows, columns)]
    ticks = [str(i) for i in np.unique(labels)[columns]]
    if counts.shape[1] > COLUMNS_SHOWN:
        counts = np.column_stack((counts[:, :COLUMNS_SHOWN - 1], counts[:, COLUMNS_SHOWN - 1:].sum(axis=1)))
        ticks = [*ticks[:COLUMNS_SHOWN - 1], "rest"]
    classes = [_class_name(i, names) for i in np.unique(y)[rows]]
    share = counts / counts.sum(axis=1, keepdims=True)
    shade(axes, share)
    if counts.size <= 170:
        for (r, k), value in np.ndenumerate(counts):
            if value:
                axes.text(k, r, str(value), ha="center", va="center", fontsize=6,
                          color="#ffffff" if share[r, k] > 0.6 else INK)
    axes.set(title=title, xlabel=words[0], ylabel=words[1])
    few = len(classes) <= CLASSES_NAMED
    axes.set_yticks(np.arange(len(classes)) if few else [], classes if few else [], fontsize=7)
    axes.set_xticks(np.arange(len(ticks)), ticks, fontsize=6, rotation=90 if len(ticks) > 12 else 0)


def shade(axes: Axes, share: np.ndarray) -> None:
    """A matrix of values in 0..1 as shades of one colour; an empty cell shows the page, light or dark."""
    colour = np.empty((*share.shape, 4))
    colour[..., :3], colour[..., 3] = to_rgb(PALETTE[0]), share
    axes.imshow(colour, aspect="auto", interpolation="nearest")


def matched_order(matched: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The matched ids in their order, then the others by decreasing size."""
    rest = np.setdiff1d(np.arange(len(sizes)), matched)
    return np.concatenate((matched, rest[np.argsort(-sizes[rest], kind="stable")]))


def _class_name(i: int, names: Sequence[str] | None) -> str:
    text = str(names[i]) if names is not None and i < len(names) else str(i)
    return text if len(text) <= 18 else text[:17] + "…"
