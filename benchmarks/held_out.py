"""How well clusters tell who is met, for pairs of nodes that the fit has not seen: a score that needs no labels.

    python benchmarks/held_out.py patent school --options "" epochs=0 node_weight=1,start=static --seeds 2

A fifth of the pairs is held out with all their events, and TGC is fitted to the others. The score is the mean over both
ends of the held-out events of

    log p(c_t | c_s, c_h, g) - log p(c_t)                                            [nats]

c being clusters, s the node that is seen from, t the one it meets, h the one that it met last in the events of the fit,
g whether that was within a median gap, earlier, or never. As p(t | c_t) is the share of t in the events of its cluster,
this is the held-out log-likelihood of a degree-corrected block model (Karrer and Newman, DOI
10.1103/PhysRevE.83.016107) that remembers who was met last, less that of degrees alone.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table

from graphclust.coerce import as_stream
from graphclust.data import load
from graphclust.methods._events import Events
from graphclust.methods.tgc import TGC
from graphclust.stream import Stream

SHARE = 0.2
# Times are quotients: one gap is not exactly 1.
GAP = 1 + 1e-3


def hold_out(stream: Stream, seed: int) -> np.ndarray:
    """Which events are held out, (E,) bool: all those of a fifth of the pairs."""
    pair = np.minimum(stream.src, stream.dst) * stream.n + np.maximum(stream.src, stream.dst)
    pairs, of_event = np.unique(pair, return_inverse=True)
    return (np.random.default_rng(seed).random(len(pairs)) < SHARE)[of_event]


def without(stream: Stream, held: np.ndarray) -> Stream:
    """The other events, of all nodes."""
    return replace(stream, src=stream.src[~held], dst=stream.dst[~held], time=stream.time[~held])


def gain(stream: Stream, held: np.ndarray, labels: np.ndarray) -> float:
    """The score of a partition. Left out: held-out events of a node without any event in the fit, and those that repeat
    the meeting before, which every partition explains.

    Parameters
    ----------
    held : (E,) bool
    labels : (n,) int, found without the events ``held``
    """
    events = Events.of(stream, "gap")
    node, other, at = events.node.numpy(), events.other.numpy(), events.time.numpy()
    fitted = ~held[events.event.numpy()]
    k = int(labels.max()) + 1
    # the last entry before each one that the fit has seen, of the same node
    last = np.maximum.accumulate(np.where(fitted, np.arange(len(node)), -1))
    before = np.append(-1, last[:-1])
    exists = before >= events.first.numpy()[node]
    before = np.maximum(before, 0)
    gap = np.where(~exists, 2, at - at[before] > GAP)
    source, target, past = labels[node], labels[other], np.where(exists, labels[other[before]], 0)
    context = (gap * k + past) * k + source

    alone = np.bincount(target[fitted], minlength=k) / fitted.sum()
    by_source = _shrunk(source[fitted], target[fitted], np.tile(alone, (k, 1)))
    by_context = _shrunk(context[fitted], target[fitted], np.tile(by_source, (3 * k, 1)))
    known = np.bincount(node[fitted], minlength=stream.n) > 0
    judged = ~fitted & known[node] & known[other] & ~(exists & (other[before] == other))
    told = by_context[context[judged], target[judged]] / alone[target[judged]]
    return float(np.log(told).mean())


def _shrunk(row: np.ndarray, column: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Shares of the columns in each row, shrunk to ``prior`` (R, K) by K pseudo-events."""
    counts = np.zeros_like(prior)
    np.add.at(counts, (row, column), 1)
    k = prior.shape[1]
    return (counts + k * prior) / (counts.sum(1, keepdims=True) + k)


def options(text: str) -> dict[str, Any]:
    """"a=b,c=d" as parameters."""
    return {name: yaml.safe_load(value) for name, value in (part.split("=") for part in text.split(",") if part)}


def main() -> None:
    """Print a row for each data set, a column for each choice of options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--options", nargs="+", default=[""], help="of TGC, as a=b,c=d; '' for the default")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.process_time()
    table = Table("data", *(text or "default" for text in args.options))
    for name in args.data:
        data = load(name)
        stream, k = as_stream(data), int(data.y.max()) + 1
        cells = []
        for text in args.options:
            found = []
            for seed in range(args.seeds):
                held = hold_out(stream, seed)
                model = TGC(k, random_state=seed, **options(text)).fit(without(stream, held))
                found.append(gain(stream, held, model.labels_))
            cells.append(" ".join(f"{score:.4f}" for score in found))
        table.add_row(name, *cells)
    Console(width=160).print(table)
    Console().print(f"{time.process_time() - begin:.0f} CPU s")


if __name__ == "__main__":
    main()
