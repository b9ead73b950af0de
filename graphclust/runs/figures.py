"""The figures of a report on graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from sklearn.decomposition import PCA, TruncatedSVD

from graphclust.metrics.partition import contingency
from graphclust.runs.drawing import (
    GREY,
    MARKERS,
    PALETTE,
    STYLE,
    Picture,
    confusion,
    grid,
    hide_rest,
    line,
    logarithmic,
    marker,
    matched_order,
    svg,
)

POINTS = 4_000

# how to read each figure
READ_LOSS = (
    "One thin line per seed and loss; pre-training and training follow each other on the axis. A loss that still "
    "falls at the right edge wants more epochs; a jump, or a spread between seeds, is instability."
)
READ_CURVES = (
    "Mean over the seeds, the band is one standard deviation; a run that stopped early keeps its last value. No "
    "method saw these curves: they are computed with the labels after the run. A line that falls after a peak is "
    "what the oracle columns hide."
)
READ_EMBEDDING = (
    "Each point is a node of the first seed's run on the first two principal components of the embedding, "
    "coloured and marked by cluster and, where there are labels, in a second panel by label (grey: unknown); a "
    "class and the cluster matched to it have the same colour. Groups that overlap here may still be apart in the "
    "other dimensions. The largest groups have colours of their own, the rest are grey; of many nodes a random "
    "sample is drawn."
)
READ_CONFUSION = (
    "Rows are the classes, columns the clusters of the first seed's run. A class and the cluster matched to it "
    "meet on the diagonal; classes without a cluster stand below, clusters without a class to the right, by size. "
    "The shade is the share of the class (a row adds up to 1), the number counts nodes. Weight off the diagonal "
    "in a row: the class is split; in a column: classes are merged."
)
READ_SIZES = (
    "Sizes of the first seed's clusters from the largest to the smallest, on logarithmic axes; the thick grey "
    "line, where there are labels, is the classes. A steep line is one giant cluster and crumbs; a long tail at 1 "
    "is isolated nodes."
)
READ_SPEED = (
    "Mean over the finished seeds, the bar is one standard deviation. Up is better, left is faster: a method with "
    "another one above it and to its left has nothing to offer on this data set."
)


def loss_curves(histories: dict[str, list[list[dict[str, float]]]]) -> Picture:
    """One panel a method, one line a loss, all seeds; ``histories[method]`` holds one history a run."""
    with rc_context(STYLE):
        figure, panels = grid(len(histories), 3.4, 2.5, 3)
        for axes, (method, runs) in zip(panels, histories.items(), strict=True):
            frames = [pd.DataFrame(h).drop(columns="epoch", errors="ignore") for h in runs]
            names = list(dict.fromkeys(c for f in frames for c in f.columns))
            for run in frames:
                for name in run.columns:
                    style = line(names.index(name))
                    axes.plot(np.arange(len(run)), run[name], **style, alpha=0.6, linewidth=1,
                              label=name if run is frames[0] else None)
            positive = all((f > 0).to_numpy()[f.notna().to_numpy()].all() for f in frames)
            axes.set(title=method, xlabel="epoch (all phases)", ylabel="loss")
            if positive:
                logarithmic(axes.yaxis)
            axes.legend(fontsize=7)
        hide_rest(figure, panels)
        return Picture(svg(figure, "Loss curves"), "Loss per epoch", READ_LOSS)


def metric_curves(curves: dict[str, list[np.ndarray]], colour: dict[str, int]) -> Picture:
    """ACC, NMI, ARI and F1 per epoch; ``curves[method]`` holds (epochs, 5) arrays: epoch and the four metrics.

    Here and below ``colour[method]`` is the method's place in the palette, the same in every figure of a report.
    """
    with rc_context(STYLE):
        figure, panels = grid(4, 3.2, 2.5, 2)
        for column, (axes, name) in enumerate(zip(panels, ("ACC", "NMI", "ARI", "F1"), strict=True), start=1):
            for method, runs in curves.items():
                i = colour[method]
                values = pd.concat([pd.Series(r[:, column], index=r[:, 0]) for r in runs], axis=1).sort_index().ffill()
                mean, std = values.mean(axis=1), values.std(axis=1).fillna(0.0)
                axes.plot(mean.index, mean, **line(i), label=method)
                axes.fill_between(mean.index, mean - std, mean + std, color=line(i)["color"], alpha=0.15, lw=0)
            axes.set(xlabel="epoch", ylabel=f"{name} (fraction)")
        panels[0].legend(fontsize=7)
        return Picture(svg(figure, "Metrics per epoch"), "Metrics per epoch, computed afterwards", READ_CURVES)


def embeddings(runs: dict[str, tuple[np.ndarray, np.ndarray]], y: np.ndarray | None) -> Picture:
    """First two principal components; ``runs[method]`` is (embedding (n, d), labels (n,)); coloured also by ``y``."""
    sides = 1 if y is None else 2
    with rc_context(STYLE):
        figure, panels = grid(len(runs) * sides, 2.9, 2.7, 4 if sides == 2 else 3)
        for i, (method, (embedding, labels)) in enumerate(runs.items()):
            n = len(labels)
            shown = np.random.default_rng(0).permutation(n)[:POINTS]
            points = _plane(embedding)[shown]
            clusters, classes = _paint(labels, y)
            _points(panels[i * sides], points, labels[shown], clusters, f"{method}: clusters")
            if y is not None:
                _points(panels[i * sides + 1], points, y[shown], classes, f"{method}: labels")
        hide_rest(figure, panels)
        return Picture(svg(figure, "Embeddings"), "Embedding in two dimensions", READ_EMBEDDING)


def _plane(embedding: np.ndarray) -> np.ndarray:
    embedding = np.nan_to_num(embedding.reshape(len(embedding), -1))
    if min(embedding.shape) < 2:
        return np.column_stack((embedding[:, 0], np.zeros(len(embedding))))
    if embedding.shape[1] > 500:
        return TruncatedSVD(2, random_state=0).fit_transform(embedding - embedding.mean(axis=0))
    return PCA(2, random_state=0).fit_transform(embedding)


def _paint(labels: np.ndarray, y: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Cluster and class ids in the order of their colours: by size, and matched ones at the same place."""
    clusters, sizes = np.unique(labels, return_counts=True)
    if y is None:
        return clusters[np.argsort(-sizes, kind="stable")], np.empty(0)
    c = contingency(y[y >= 0], labels[y >= 0])
    clusters, classes = np.unique(labels[y >= 0]), np.unique(y[y >= 0])
    row, col = c.matching
    first = np.argsort(-c.classes[row], kind="stable")
    return clusters[matched_order(col[first], c.clusters)], classes[matched_order(row[first], c.classes)]


def _points(axes: Axes, points: np.ndarray, groups: np.ndarray, order: np.ndarray, title: str) -> None:
    named = order[:len(PALETTE) * 3]
    size = float(np.clip(4000 / len(points), 3, 24))
    common: dict[str, Any] = {"s": size, "linewidths": 0, "alpha": 0.75, "rasterized": len(points) > 300}
    rest = ~np.isin(groups, named)
    axes.scatter(*points[rest].T, color=GREY, **common)
    for i, group in enumerate(named):
        own = groups == group
        axes.scatter(*points[own].T, color=PALETTE[i % len(PALETTE)], marker=MARKERS[i // len(PALETTE)], **common)
    axes.set(title=title, xlabel="component 1", ylabel="component 2", xticks=[], yticks=[])


def confusions(runs: dict[str, np.ndarray], y: np.ndarray, class_names: Sequence[str] | None) -> Picture:
    """Classes against clusters in matched order; ``runs[method]`` are labels (n,); nodes with y = -1 are left out."""
    known = y >= 0
    with rc_context(STYLE):
        figure, panels = grid(len(runs), 3.6, 3.2, 3)
        for axes, (method, labels) in zip(panels, runs.items(), strict=True):
            confusion(axes, labels[known], y[known], method, names=class_names)
        hide_rest(figure, panels)
        return Picture(svg(figure, "Confusion matrices"), "Confusion of classes and clusters", READ_CONFUSION)


def cluster_sizes(runs: dict[str, np.ndarray], y: np.ndarray | None, colour: dict[str, int]) -> Picture:
    """Sorted cluster sizes of each method's first run, and of the classes."""
    with rc_context(STYLE):
        figure, (axes,) = grid(1, 6.4, 3.0, 1)
        if y is not None:
            sizes = np.sort(np.unique(y[y >= 0], return_counts=True)[1])[::-1]
            axes.plot(np.arange(1, len(sizes) + 1), sizes, color=GREY, linewidth=4, alpha=0.6, label="classes")
        for method, labels in runs.items():
            sizes = np.sort(np.unique(labels, return_counts=True)[1])[::-1]
            axes.plot(np.arange(1, len(sizes) + 1), sizes, **line(colour[method]), marker=marker(colour[method]),
                      markersize=3.5, label=method)
        axes.set(xlabel="cluster, largest first (logarithmic)", ylabel="nodes (logarithmic)")
        logarithmic(axes.xaxis, axes.yaxis)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return Picture(svg(figure, "Cluster sizes"), "Cluster sizes", READ_SIZES)


def speed_and_quality(table: pd.DataFrame, metric: str, name: str, colour: dict[str, int]) -> Picture:
    """Seconds against ``metric``; ``table`` as :func:`graphclust.runs.stats.aggregate` gives it for one data set."""
    table = table.dropna(subset=[(metric, "mean"), ("seconds", "mean")])
    with rc_context(STYLE):
        figure, (axes,) = grid(1, 6.4, 3.2, 1)
        for method, row in table.iterrows():
            axes.errorbar(row[("seconds", "mean")], row[(metric, "mean")], yerr=np.nan_to_num(row[(metric, "std")]),
                          color=line(colour[method])["color"], marker=marker(colour[method]), markersize=7,
                          linestyle="none", elinewidth=1, label=method)
        axes.set(xlabel="seconds of the fit (logarithmic)", ylabel=name)
        logarithmic(axes.xaxis)
        axes.margins(0.12)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return Picture(svg(figure, "Speed and quality"), "Speed against quality", READ_SPEED)
