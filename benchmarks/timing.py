"""Does the timing of a stream tell anything about its classes? Three checks with the labels, after the fact.

    python benchmarks/timing.py patent dblp_temporal primary_school sessions

1. Supervised: gradient boosting that predicts a node's class from when it is active (20 bins and its number of events),
   three-fold accuracy, against the share of the largest class.
2. Co-contacts: how often two nodes that one node meets in turn have the same class, by the time between the two
   meetings, against two nodes that it meets at any times.
3. TGC on the stream and on the same stream with its times permuted: what is lost is what timing gave.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score

from graphclust.coerce import as_stream
from graphclust.data import load
from graphclust.methods._events import Events
from graphclust.methods.tgc import TGC
from graphclust.metrics import evaluate
from graphclust.stream import Stream, build_stream

BINS = 20


def supervised(stream: Stream, y: np.ndarray) -> tuple[float, float]:
    """Accuracy from activity over time, and the share of the largest class."""
    place = np.minimum((stream.unit_time() * BINS).astype(int), BINS - 1)
    activity = np.zeros((stream.n, BINS))
    for ends in (stream.src, stream.dst):
        np.add.at(activity, (ends, place), 1)
    total = activity.sum(1, keepdims=True)
    x = np.column_stack((activity / np.maximum(total, 1), total))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    model = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    return cross_val_score(model, x, y, cv=folds).mean(), np.bincount(y).max() / len(y)


def same_class(stream: Stream, y: np.ndarray) -> dict[str, float]:
    """Share of same-class pairs among successive contacts, by the time between them, and among any contacts."""
    events = Events.of(stream, "gap")
    node, other, time = events.node.numpy(), events.other.numpy(), events.time.numpy()
    follows = node[1:] == node[:-1]
    gap, same = np.diff(time)[follows], (y[other[1:]] == y[other[:-1]])[follows]
    first, degree = events.first.numpy(), np.bincount(node, minlength=stream.n)
    rng = np.random.default_rng(0)
    one = rng.integers(len(node), size=200_000)
    two = first[node[one]] + (rng.random(len(one)) * degree[node[one]]).astype(int)
    cuts = {"at once": gap == 0, "within a median gap": (gap > 0) & (gap <= 1), "later": gap > 1}
    found = {name: float(same[rows].mean()) if rows.any() else float("nan") for name, rows in cuts.items()}
    return {**found, "any two": float((y[other[one]] == y[other[two]])[one != two].mean())}


def tgc(stream: Stream, y: np.ndarray, seeds: int) -> str:
    """Mean and deviation of NMI over seeds."""
    found = [
        evaluate(TGC(int(y.max() + 1), random_state=seed).fit(stream).labels_, y, names=["nmi"])["nmi"]
        for seed in range(seeds)
    ]
    return f"{np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}"


def main() -> None:
    """Print one row a data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("data", "activity", "largest class", "at once", "within a median gap", "later", "any two",
                  "TGC NMI", "times permuted")
    for name in args.data:
        data = load(name)
        stream, y = as_stream(data), data.y.numpy()
        if (y < 0).any():
            raise SystemExit(f"{name} has nodes without a class")
        order = np.random.default_rng(0).permutation(stream.m)
        permuted = build_stream(stream.src, stream.dst, stream.time[order], stream.n)
        accuracy, majority = supervised(stream, y)
        shares = same_class(stream, y)
        table.add_row(name, f"{accuracy:.3f}", f"{majority:.3f}", *(f"{v:.3f}" for v in shares.values()),
                      tgc(stream, y, args.seeds), tgc(permuted, y, args.seeds))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
