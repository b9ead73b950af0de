"""Cost and quality of the structural methods, as ratios to the bare library call measured in the same run.

    OMP_NUM_THREADS=1 python benchmarks/structural.py [--repeats 3] [--small]

CPU seconds of one thread, the smallest of the repeats. ``--small`` runs every case at a tenth of its size, to see that
the script works. Prints a markdown table.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import igraph
import numpy as np
import pandas as pd
from scipy.sparse.linalg import eigsh
from sklearn.metrics import adjusted_rand_score

from graphclust.coerce import as_graph
from graphclust.communities.partition import Quality, split_disconnected
from graphclust.communities.with_igraph import to_igraph
from graphclust.data import load
from graphclust.graph import Graph
from graphclust.methods import get_method
from graphclust.methods._eigen import regularised_adjacency


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The smallest CPU time of ``repeats`` calls, and what the last one returned."""
    best, result = np.inf, None
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return best, result


def bare_igraph(graph: Graph) -> tuple[Callable[[], Any], igraph.Graph]:
    """igraph's own Leiden (modularity, 2 iterations) on a graph that is already igraph's."""
    g, weights = to_igraph(graph)

    def call() -> Any:
        random.seed(0)
        return g.community_leiden("modularity", weights=weights, n_iterations=2)

    return call, g


def leiden_from_files(data: Any, repeats: int) -> list[dict[str, Any]]:
    """File to labels against igraph's clustering alone, for the two file formats; edges in one direction."""
    graph, y = as_graph(data), data.y.numpy()
    base, found = timed(bare_igraph(graph)[0], repeats)
    pairs, _ = graph.edges()
    rows = [row("igraph community_leiden alone, graph in memory", base, base, y, np.asarray(found.membership), graph)]
    with tempfile.TemporaryDirectory() as folder:
        npz, csv = Path(folder) / "edges.npz", Path(folder) / "edges.csv"
        np.savez(npz, edge_index=pairs.T)
        pd.DataFrame(pairs, columns=["source", "target"]).to_csv(csv, index=False)
        for file in (npz, csv):
            def read(file: Path = file) -> Graph:
                return as_graph(load(str(file)))

            def run(file: Path = file) -> Any:
                graph = as_graph(load(str(file)))
                return graph, get_method("leiden")(random_state=0).fit(graph)

            reading, _ = timed(read, repeats)
            seconds, (loaded, model) = timed(run, repeats)
            truth = y if loaded.node_ids is None else y[loaded.node_ids.astype(int)]
            what = f"graphclust leiden, {file.suffix} file to labels (reading {reading:.2f} s)"
            rows.append(row(what, seconds, base, truth, model.labels_, loaded))
    return rows


def portfolio(data: Any, repeats: int) -> list[dict[str, Any]]:
    """leiden_auto against one igraph run."""
    graph, y = as_graph(data), data.y.numpy()
    base, found = timed(bare_igraph(graph)[0], repeats)
    rows = [row("planted partition", 0.0, base, y, y, graph),
            row("igraph community_leiden, 2 iterations", base, base, y, np.asarray(found.membership), graph)]
    for name in ("louvain", "leiden", "leiden_auto"):
        seconds, model = timed(lambda name=name: get_method(name)(random_state=0).fit(graph), repeats)
        rows.append(row(f"graphclust {name}", seconds, base, y, model.labels_, graph))
    return rows


def spectral(data: Any, repeats: int) -> list[dict[str, Any]]:
    """Spectral clustering against a bare eigsh of the same matrix, with the same start and tolerance."""
    graph, y = as_graph(data), data.y.numpy()
    matrix, k = regularised_adjacency(graph), int(y.max()) + 1
    start = np.random.default_rng(0).standard_normal(graph.n).astype(np.float32)
    base, _ = timed(lambda: eigsh(matrix, k, which="LA", v0=start, tol=1e-3), repeats)
    default, _ = timed(lambda: eigsh(matrix, k, which="LA"), repeats)
    seconds, model = timed(lambda: get_method("spectral")(k, random_state=0).fit(graph), repeats)
    return [row("scipy eigsh, tol 1e-3, eigenvectors only", base, base),
            row("scipy eigsh, its default tolerance", default, base),
            row("graphclust spectral, graph to labels", seconds, base, y, model.labels_, graph)]


def row(
    what: str, seconds: float, base: float, y: np.ndarray | None = None, labels: np.ndarray | None = None,
    graph: Graph | None = None,
) -> dict[str, Any]:
    """One line of the table."""
    line: dict[str, Any] = {"row": what, "CPU s": f"{seconds:.2f}", "ratio": f"{seconds / base:.2f}"}
    if labels is not None:
        k = int(labels.max()) + 1
        line |= {"k": k, "Q": f"{Quality.make(graph, 'modularity').of(labels):.5f}",
                 "ARI": f"{adjusted_rand_score(y, labels):.4f}",
                 "disconnected": int(split_disconnected(graph, labels).max()) + 1 - k}
    return line


def main() -> None:
    """Run every case and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    tenth = 10 if args.small else 1
    blocks = load("sbm", n=50_000 // tenth, k=50 // tenth, degree_in=16.38, degree_out=24.02)
    lfr = load("lfr", n=10_000 // tenth, mu=0.5, average_degree=20, max_degree=50, seed=1)
    wide = load("sbm", n=100_000 // tenth, k=20, degree_in=14, degree_out=10)
    for title, case, data in (
        ("Leiden from a file", leiden_from_files, blocks), ("Portfolio, SBM of 50 blocks", portfolio, blocks),
        ("Portfolio, LFR mu .5", portfolio, lfr), ("Spectral, SBM of 20 blocks", spectral, wide),
    ):
        graph = as_graph(data)
        print(f"\n### {title}: {graph.n:,} nodes, {graph.m:,} edges\n", flush=True)
        table = pd.DataFrame(case(data, args.repeats), dtype=object).fillna("")
        print(table.to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
