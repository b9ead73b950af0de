"""Leiden over a grid of resolutions: where the partition does not move, with the resolution or the seed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, repeat
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from sklearn.metrics import adjusted_rand_score

from graphclust.atomic import write_atomic
from graphclust.communities import with_igraph
from graphclust.communities.partition import Quality, n_components, split_disconnected
from graphclust.graph import Graph, InputError
from graphclust.monitor import Monitor, Silent

# Mean pairwise ARI between seeds from which a resolution counts as stable.
STABLE = 0.99


@dataclass(frozen=True)
class ScanRow:
    """One resolution: what its runs found.

    Attributes
    ----------
    resolution : float
    n_clusters : communities of the best run
    n_clusters_min, n_clusters_max : over the seeds
    quality : of the best run, at this resolution
    modularity : of the best run, at resolution 1
    stability : mean ARI over pairs of seeds, at most 1
    connected : every community of every run is connected
    on_plateau : belongs to the plateau that is recommended
    """

    resolution: float
    n_clusters: int
    n_clusters_min: int
    n_clusters_max: int
    quality: float
    modularity: float
    stability: float
    connected: bool
    on_plateau: bool = False


@dataclass(frozen=True)
class Scan:
    """Rows by increasing resolution, the resolution recommended (None: no plateau), and the reason in words."""

    objective: str
    seeds: int
    rows: tuple[ScanRow, ...]
    recommended: float | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def default_resolutions(graph: Graph, objective: str, count: int = 16) -> np.ndarray:
    """A logarithmic grid: .25 to 8 for modularity; for cpm the density of the graph times .25 to 256."""
    if objective == "modularity":
        return np.geomspace(0.25, 8, count)
    return Quality.make(graph, "cpm").resolution * np.geomspace(0.25, 256, count)


def scan(
    graph: Graph,
    *,
    objective: str = "modularity",
    resolutions: Sequence[float] | np.ndarray | None = None,
    seeds: int = 3,
    n_iterations: int = 2,
    random_state: Any = None,
    monitor: Monitor | None = None,
) -> Scan:
    """Run Leiden at each resolution with each seed and look for a plateau.

    Each seed walks the grid from the highest resolution down and starts from its previous partition: the seeds never
    see each other, so their agreement means something. The plateau is the longest stretch of the grid (in the logarithm
    of the resolution, two rows at least) with the same number of communities in every run and a stability of at least
    .99, other than the connected components and the single nodes; its middle is recommended.

    Parameters
    ----------
    graph : Graph
    objective : "modularity" or "cpm"
    resolutions : positive floats; None: :func:`default_resolutions`
    seeds : int >= 2
    n_iterations : Leiden iterations of a run
    random_state : int, Generator or None
    monitor : watcher, optional

    Raises
    ------
    InputError
        A parameter outside its range.
    """
    if objective not in ("modularity", "cpm"):
        raise InputError(f"objective = {objective!r}; it must be 'modularity' or 'cpm'")
    if seeds < 2:
        raise InputError(f"seeds = {seeds}; at least 2 are needed to see how stable a resolution is")
    grid = np.sort(default_resolutions(graph, objective) if resolutions is None else np.asarray(resolutions, float))
    if not len(grid) or not np.all(np.isfinite(grid)) or grid[0] <= 0:
        raise InputError(f"resolutions = {grid.tolist()}; give at least one, all positive")
    monitor = monitor or Silent()
    monitor.start(len(grid), "resolutions")
    g, weights = with_igraph.to_igraph(graph)
    streams = np.random.default_rng(random_state).spawn(seeds)
    latest: list[np.ndarray] = []
    rows: list[ScanRow] = []
    for i, resolution in enumerate(grid[::-1]):
        latest = [
            with_igraph.leiden(g, weights, objective, resolution, n_iterations, rng, start)
            for rng, start in zip(streams, latest or repeat(None, seeds), strict=True)
        ]
        rows.insert(0, _row(graph, objective, float(resolution), latest))
        monitor.step(i, {"n_clusters": rows[0].n_clusters, "stability": rows[0].stability})
    first, last = _plateau(rows, n_components(graph), graph.n)
    if last <= first:
        return Scan(objective, seeds, tuple(rows), None, "no two neighbouring resolutions agree on a stable partition")
    rows[first : last + 1] = [ScanRow(**{**asdict(r), "on_plateau": True}) for r in rows[first : last + 1]]
    middle = float(np.sqrt(rows[first].resolution * rows[last].resolution))
    reason = (f"{rows[first].n_clusters} communities at every resolution from {rows[first].resolution:.4g} to "
              f"{rows[last].resolution:.4g}, the same for all {seeds} seeds")
    return Scan(objective, seeds, tuple(rows), middle, reason)


def _row(graph: Graph, objective: str, resolution: float, found: list[np.ndarray]) -> ScanRow:
    quality = Quality.make(graph, objective, resolution)
    scores = [quality.of(labels) for labels in found]
    best = found[int(np.argmax(scores))]
    counts = [int(labels.max()) + 1 for labels in found]
    return ScanRow(
        resolution=resolution, n_clusters=int(best.max()) + 1, n_clusters_min=min(counts), n_clusters_max=max(counts),
        quality=max(scores), modularity=Quality.make(graph, "modularity").of(best),
        stability=float(np.mean([adjusted_rand_score(a, b) for a, b in combinations(found, 2)])),
        connected=all(int(split_disconnected(graph, x).max()) + 1 == c for x, c in zip(found, counts, strict=True)),
    )


def _plateau(rows: list[ScanRow], components: int, n: int) -> tuple[int, int]:
    """First and last index of the longest plateau; first = last when there is none."""
    best, start = (0, 0), 0
    for i, row in enumerate(rows):
        good = (row.stability >= STABLE and row.n_clusters_min == row.n_clusters_max
                and components < row.n_clusters < n)
        if not good:
            start = i + 1
            continue
        if row.n_clusters != rows[start].n_clusters:
            start = i
        length = np.log(row.resolution / rows[start].resolution)
        if length > np.log(rows[best[1]].resolution / rows[best[0]].resolution):
            best = (start, i)
    return best


def draw(found: Scan, path: Path) -> None:
    """Draw communities and stability against the resolution, the plateau shaded, to a .png, .svg or .pdf.

    Raises
    ------
    InputError
        Another kind of file.
    """
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"figure = {path}; the name must end in .png, .svg or .pdf")
    x = [row.resolution for row in found.rows]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    left = figure.subplots()
    left.loglog(x, [row.n_clusters for row in found.rows], "o-", color="#0072B2", label="communities")
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    left.set(xlabel=f"resolution ({found.objective})", ylabel="communities")
    right = left.twinx()
    right.plot(x, [row.stability for row in found.rows], "s--", color="#D55E00", label="stability")
    right.set(ylabel="stability (mean ARI between seeds)", ylim=(-0.02, 1.05))
    plateau = [row.resolution for row in found.rows if row.on_plateau]
    if plateau:
        left.axvspan(min(plateau), max(plateau), color="#009E73", alpha=0.15, label="plateau")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=150)
    write_atomic(path, buffer.getvalue())
