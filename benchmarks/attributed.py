"""Cost of SCGC* and PamC: against a plain dense implementation of the published losses, and as the graph grows.

    python benchmarks/attributed.py cost                 # acm (SCGC*, PamC, 200 epochs) and usps (PamC, 10 epochs)
    python benchmarks/attributed.py scaling              # PamC on planted graphs of 1e4 to 1e7 edges
    python benchmarks/attributed.py scaling --edges 1e4,1e5

Each measurement runs in a fresh process on one thread and reports the CPU time of the fit, of its median epoch, and
the peak resident memory of the process. The yardstick does what the public code does, written plainly: dense features,
dense n x n matrices, and a second forward pass that carries a gradient for the target. Pre-training is left out of
``cost`` for both sides. Data: ``graphclust.data.load``.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import yaml
from fresh import measure, tell

CONFIGS = Path(__file__).parents[1] / "configs" / "graph"
COST = [("acm", "scgc_star", 200), ("acm", "pamc", 200), ("usps", "pamc", 10)]
NODES_PER_EDGE = 0.1
FEATURES = 64
CLUSTERS = 10


class Clock:
    """A monitor that notes the CPU time at each step of the training."""

    checkpoint = None

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def start(self, total: int, what: str) -> None:
        """Count the phase called "training" only."""
        self.ticks = [time.process_time()]

    def step(self, step: int, values: dict[str, float], labels: Any = None) -> None:
        """Note the time."""
        self.ticks.append(time.process_time())

    def result(self, begin: float) -> dict[str, float]:
        """CPU seconds since ``begin``, and the median of an epoch."""
        return {"epoch": float(np.median(np.diff(self.ticks))), "cpu": time.process_time() - begin}


def settings(method: str, data: str) -> dict[str, Any]:
    """The paper's settings of ``method`` on ``data``."""
    config = yaml.safe_load((CONFIGS / method / "paper.yaml").read_text())
    return {**config["params"], **config["data"][data]["params"], "pretrain_epochs": 0}


def run_ours(data: str, method: str, epochs: int) -> dict[str, float]:
    """Fit the package's method."""
    from graphclust.coerce import as_graph
    from graphclust.data import load
    from graphclust.methods import get_method

    loaded, clock = load(data), Clock()
    graph, params = as_graph(loaded), {**settings(method, data), "epochs": epochs}
    begin = time.process_time()
    get_method(method)(int(loaded.k), random_state=0, device="cpu", **params).fit(graph, monitor=clock)
    return clock.result(begin)


def run_yardstick(data: str, method: str, epochs: int) -> dict[str, float]:
    """The published loss, plainly."""
    import torch
    from sklearn.cluster import KMeans
    from torch import nn

    from graphclust.coerce import as_graph
    from graphclust.data import load

    loaded, c = load(data), settings(method, data)
    graph = as_graph(loaded)
    begin = time.process_time()
    x = torch.from_numpy(graph.x.toarray() if sp.issparse(graph.x) else graph.x)
    step = torch.from_numpy(graph.adjacency.toarray()) + torch.eye(graph.n)
    step /= step.sum(1, keepdim=True)
    power = gamma = step
    for _ in range(c["order"] - 1):
        power = power @ step
        gamma = gamma + power
    sizes = (x.shape[1], *c["hidden"], c["latent_dim"])
    torch.manual_seed(0)
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    encoder = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        centres = nn.Parameter(torch.from_numpy(
            KMeans(int(loaded.k), n_init=20, random_state=0).fit(encoder(x).numpy()).cluster_centers_
        ))
    optimiser = torch.optim.Adam([*encoder.parameters(), centres], lr=c["lr"])

    def cosines(z: torch.Tensor) -> torch.Tensor:
        lengths = (z**2).sum(1, keepdim=True).sqrt()
        return (1 - torch.eye(len(z))) * (z @ z.T * (lengths @ lengths.T + 1e-12) ** -1)

    def assign(z: torch.Tensor) -> torch.Tensor:
        q = 1 / (1 + ((z[:, None] - centres) ** 2).sum(2))
        return q / q.sum(1, keepdim=True)

    clock = Clock()
    clock.start(epochs, "training")
    for epoch in range(epochs):
        q = assign(encoder(x))
        weight = q**2 / q.sum(0)
        p = (weight / weight.sum(1, keepdim=True)).data
        z = encoder(x)
        q = assign(z)
        similarity = torch.exp(c["tau"] * cosines(z))
        positive = (gamma * similarity).sum(1)
        if method == "pamc":
            member = nn.functional.one_hot(q.argmax(1), len(centres)).float()
            negative = torch.exp(c["tau"] * cosines(member.T @ z)).sum(1)
            contrast = torch.log(negative + 1e-10).mean() - torch.log(positive + 1e-10).mean()
        else:
            contrast = -torch.log(positive * similarity.sum(1) ** -1 + 1e-8).mean()
        kl = nn.functional.kl_div(q.log(), p, reduction="batchmean")
        optimiser.zero_grad()
        (c["beta"] * kl + c["alpha"] * contrast).backward()
        optimiser.step()
        clock.step(epoch, {})
    return clock.result(begin)


def run_scaling(edges: int) -> dict[str, float]:
    """PamC with its defaults but a small network and 3 epochs on a planted graph."""
    from graphclust.graph import build_graph
    from graphclust.methods import get_method

    rng = np.random.default_rng(0)
    n = int(edges * NODES_PER_EDGE)
    y = rng.integers(CLUSTERS, size=n)
    order, counts = np.argsort(y, kind="stable"), np.bincount(y, minlength=CLUSTERS)
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    source = rng.integers(n, size=edges)
    own = order[first[y[source]] + (rng.random(edges) * counts[y[source]]).astype(np.int64)]
    target = np.where(rng.random(edges) < 0.7, own, rng.integers(n, size=edges))
    x = rng.standard_normal((CLUSTERS, FEATURES), dtype=np.float32)[y]
    x += 2 * rng.standard_normal((n, FEATURES), dtype=np.float32)
    graph, clock = build_graph(np.stack((source, target)), n, x=x), Clock()
    model = get_method("pamc")(
        CLUSTERS, hidden=(64,), pretrain_epochs=1, epochs=3, stop="last", random_state=0, device="cpu",
    )
    begin = time.process_time()
    model.fit(graph, monitor=clock)
    return clock.result(begin)


def one(args: list[str]) -> None:
    """Inside the fresh process."""
    import torch

    torch.set_num_threads(1)
    kind, *rest = args
    if kind == "scaling":
        result = run_scaling(int(rest[0]))
    else:
        data, method, epochs = rest
        result = (run_ours if kind == "ours" else run_yardstick)(data, method, int(epochs))
    tell(result)


def cost(cases: list[tuple[str, str, int]]) -> None:
    """Print yardstick, ours and the ratio for each case."""
    print(f"{'data':6} {'method':10} {'epochs':>6}  {'':9} {'CPU s':>8} {'s/epoch':>8} {'peak MB':>8}")
    for data, method, epochs in cases:
        found = {kind: measure(kind, data, method, epochs) for kind in ("yardstick", "ours")}
        found["ratio"] = {key: found["ours"][key] / found["yardstick"][key] for key in found["ours"]}
        for kind, row in found.items():
            numbers = f"{row['cpu']:8.2f} {row['epoch']:8.3f} {row['memory']:8.2f}"
            print(f"{data:6} {method:10} {epochs:6}  {kind:9} {numbers}", flush=True)


def scaling(edges: list[int]) -> None:
    """Print time and memory for each number of edges, and how each grew beside the edges."""
    print(f"{'edges':>9} {'nodes':>8} {'CPU s':>8} {'s/epoch':>8} {'us/edge':>8} {'peak MB':>8}")
    for m in edges:
        row = measure("scaling", m)
        print(f"{m:9} {int(m * NODES_PER_EDGE):8} {row['cpu']:8.1f} {row['epoch']:8.3f} {row['epoch'] / m * 1e6:8.2f} "
              f"{row['memory']:8.0f}", flush=True)


def main() -> None:
    """Command line."""
    if sys.argv[1:2] == ["one"]:
        return one(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["cost", "scaling"])
    parser.add_argument("--epochs", type=int, help="instead of 200 and 10 (cost)")
    parser.add_argument("--data", help="only this data set (cost)")
    parser.add_argument("--edges", default="1e4,1e5,1e6,1e7", help="numbers of edges (scaling)")
    options = parser.parse_args()
    if options.mode == "cost":
        cost([(d, m, options.epochs or e) for d, m, e in COST if options.data in (None, d)])
    else:
        scaling([int(float(e)) for e in options.edges.split(",")])


if __name__ == "__main__":
    main()
