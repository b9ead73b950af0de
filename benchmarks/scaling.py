"""Updates a second of the engines, against clients, model size and K, in one run beside the bare vmap ceiling and Ray.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py [--out docs/benchmarks/scaling] [--without-ray] [--most 10000]

The work, unless a row says else: that of benchmarks/federation.py (digits, 15 samples a client, MLP 64-64-10, batches
of 5, so 3 steps an update, step size .1, every client in every round, no evaluation in the rounds), 100 clients. Steady
rates, without the first round. "vmap" is the ceiling: ``torch.func.vmap(grad(loss))`` over stacked parameters and
stacked batches, nothing else, in chunks of at most 500 clients. Run it on a machine that does nothing else: Ray uses
all processors, everything else one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from federation import flowers_own, plain, steady, workload
from torch.func import functional_call, grad, vmap

from fedclust.algorithms.base import initial_models
from fedclust.config import FederationConfig
from fedclust.models import Model, ModelConfig
from fedclust.participant import simulated_federation
from graphclust.atomic import write_atomic
from simulations.engines import get_engine
from simulations.plan import Plan

CLIENTS = (10, 30, 100, 300, 1000, 3000, 10000)
WIDTHS: dict[str, tuple[int, ...]] = {"1e3": (13,), "5e3": (64,), "1e4": (133,), "1e5": (256, 256), "1e6": (960, 960)}
GROUPS = (1, 2, 3, 5, 9)
CHUNK = 500
GOALS = {"vmap": 0.5, "Flower + Ray": 40.0, "first round": 2.0, "FedRC": 0.2}


def ceiling(config: FederationConfig) -> float:
    """Updates a second of vmap(grad(loss)) over stacked parameters: the arithmetic of a round, and no federation."""
    federation = simulated_federation(config)
    model = Model(config.model, federation.input_shape, federation.n_classes)
    some = [federation.clients[i].train for i in range(min(CHUNK, len(federation.clients)))]
    x, y = torch.stack([s.x for s in some]), torch.stack([s.y for s in some])
    size, rows = config.training.batch_size, torch.arange(len(some))[:, None]

    def loss(params: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(functional_call(model._module, params, (x,)), y)

    gradient, generator = vmap(grad(loss)), torch.Generator().manual_seed(0)

    def one_round() -> None:
        params = {n: t.expand(len(some), *t.shape[1:]) for n, t in initial_models(model, 0, 1).items()}
        for index in torch.rand(y.shape, generator=generator).argsort(1).split(size, dim=1):
            found = gradient(params, x[rows, index], y[rows, index])
            params = {n: t - config.training.lr * found[n] for n, t in params.items()}

    return len(some) / repeated(one_round)


def repeated(work: Callable[[], None], seconds: float = 2.0) -> float:
    """Median seconds of ``work``, repeated for about so long, at least three times after a warm-up."""
    work()
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < seconds:
        clock = time.perf_counter()
        work()
        taken.append(time.perf_counter() - clock)
    return statistics.median(taken)


def rate(config: FederationConfig, engine: str, rounds: int) -> float:
    """Steady updates a second of an engine."""
    return steady(get_engine(engine)(config.model_copy(update={"engine": engine, "rounds": rounds})))


def rounds_for(config: FederationConfig, clients: int) -> int:
    """As many rounds as make about 5,000 updates of a small model, or 200 of a large one."""
    size = sum(a * b for a, b in zip((64, *config.model.hidden), (*config.model.hidden, 10), strict=True))
    return max(3, min(40, int(5000 * min(1, 2e4 / size)) // clients)) + 1


def compared(config: FederationConfig, clients: int, alone: bool = True) -> dict[str, float]:
    """The engines and the ceiling on one workload."""
    rounds = rounds_for(config, clients)
    row = {"vmap": ceiling(config), "batched": rate(config, "batched", rounds)}
    if alone:
        row["in process"] = rate(config, "inprocess", min(rounds, 5))
    row["share of vmap"] = row["batched"] / row["vmap"]
    return row


def headline(repeats: int, ray: bool) -> dict[str, Any]:
    """The workload of the issue: 100 clients, every engine, the median of several turns."""
    config = workload(100, 10)
    turns: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        turns["vmap"].append(ceiling(config))
        turns["batched"].append(rate(config, "batched", 40))
        turns["in process"].append(rate(config, "inprocess", 10))
        turns["plain loop"].append(plain(config))
        if ray:
            turns["Flower + Ray"].append(flowers_own(config))
    found: dict[str, Any] = {name: statistics.median(each) for name, each in turns.items()}
    found["turns"] = turns
    found["share of vmap"] = statistics.median(b / v for b, v in zip(turns["batched"], turns["vmap"], strict=True))
    if ray:
        found["ours on Ray"] = steady(get_engine("ray")(config.model_copy(update={"engine": "ray"})))
        found["times Flower + Ray"] = statistics.median(
            b / r for b, r in zip(turns["batched"], turns["Flower + Ray"], strict=True))
    return found


def first_round() -> dict[str, float]:
    """Seconds of a process's imports, and from their end to the start and to the end of its first round."""
    code = (
        "import sys; sys.path[:0] = ['benchmarks', '.']\n"
        "import time; clock = time.perf_counter()\n"
        "import torch, sklearn.datasets; torch.set_num_threads(1)\n"
        "from federation import workload; from simulations.engines import get_engine\n"
        "run = get_engine('batched'); from graphclust.monitor import Silent\n"
        "class Watch(Silent):\n"
        "    def start(self, total, what): print(time.perf_counter() - clock)\n"
        "    def step(self, step, values, labels=None):\n"
        "        if not step: print(time.perf_counter() - clock)\n"
        "print(time.perf_counter() - clock)\n"
        "clock = time.perf_counter(); run(workload(100, 2), monitor=Watch())\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return dict(zip(("imports", "starts", "ends"), map(float, out.split()), strict=True))


def fedrc(k: int, engine: str) -> float:
    """CPU seconds of a round of FedRC on digits-3shift, 30 clients, evaluation in every round, one start."""
    plan = Plan(scenarios=["digits-3shift"], algorithms=["fedrc"], seeds=1, settings={"n_groups": k, "restarts": 1})
    [config] = plan.runs()
    seconds = []
    for rounds in (2, 8):
        clock = time.process_time()
        get_engine(engine)(config.model_copy(update={"engine": engine, "rounds": rounds}))
        seconds.append(time.process_time() - clock)
    return (seconds[1] - seconds[0]) / 6


def markdown(found: dict[str, Any]) -> str:
    """The tables of the page."""
    head = found["headline"]
    rows = [f"| {name} | {head[name]:,.0f} | {head['batched'] / head[name]:.2f} |"
            for name in ("vmap", "batched", "in process", "plain loop", "Flower + Ray", "ours on Ray") if name in head]
    parts = ["| 100 clients | updates/s | batched is x times |\n|---|---|---|\n" + "\n".join(rows)]
    for title, column in (("clients", "clients"), ("parameters", "sizes")):
        table = [f"| {key} | {row['vmap']:,.0f} | {row['batched']:,.0f} | {row['share of vmap']:.2f} | "
                 + (f"{row['in process']:,.0f} |" if "in process" in row else "|")
                 for key, row in found[column].items()]
        header = f"| {title} | vmap | batched | share of vmap | in process |\n|---|---|---|---|---|\n"
        parts.append(header + "\n".join(table))
    table = [f"| {k} | {row['batched']:.3f} | {row['in process']:.3f} |" for k, row in found["groups"].items()]
    parts.append("| K of FedRC | CPU s a round, batched | in process |\n|---|---|---|\n" + "\n".join(table))
    return "\n\n".join(parts) + "\n"


def draw(found: dict[str, Any], path: Path) -> None:
    """Updates a second against clients and against parameters."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    titles = {"clients": "clients a round", "sizes": "parameters of the model"}
    for ax, (column, label) in zip(axes, titles.items(), strict=True):
        for name, style in (("vmap", "k--"), ("batched", "C0o-"), ("in process", "C1s-")):
            points = [(float(key), row[name]) for key, row in found[column].items() if name in row]
            ax.loglog(*zip(*points, strict=True), style, label={"vmap": "bare vmap"}.get(name, name))
        if "Flower + Ray" in found["headline"]:
            ax.axhline(found["headline"]["Flower + Ray"], color="C3", lw=1, label="Flower + Ray (100 clients, 5e3)")
        ax.set_xlabel(label)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("updates a second")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write <out>.json and <out>.png")
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--most", type=int, default=max(CLIENTS), help="clients of the largest row")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"load before": os.getloadavg()[0]}
    for engine in ("batched", "inprocess"):  # the lazy imports of torch and Flower are not what is measured
        get_engine(engine)(workload(2, 1))

    def say(what: str, row: Any) -> Any:
        print(what, json.dumps(row, default=float), flush=True)
        return row

    found["headline"] = say("headline", headline(args.repeats, not args.without_ray))
    found["first round"] = say("first round", first_round())
    found["clients"] = {n: say(f"{n} clients", compared(workload(n, 2), n, alone=n <= 300))
                        for n in CLIENTS if n <= args.most}
    found["sizes"] = {}
    for name, hidden in WIDTHS.items():
        config = workload(100, 2).model_copy(update={"model": ModelConfig(hidden=hidden)})
        found["sizes"][name] = say(f"{name} parameters", compared(config, 100))
    found["groups"] = {k: say(f"K = {k}", {"batched": fedrc(k, "batched"), "in process": fedrc(k, "inprocess")})
                       for k in GROUPS}
    head, met = found["headline"], {}
    met["share of vmap"] = head["share of vmap"] >= GOALS["vmap"]
    if "Flower + Ray" in head:
        met["times Flower + Ray"] = head["times Flower + Ray"] >= GOALS["Flower + Ray"]
    met["first round"] = found["first round"]["starts"] <= GOALS["first round"]
    met["FedRC, K = 3"] = found["groups"][3]["batched"] <= GOALS["FedRC"]
    found["met"] = met
    print(markdown(found))
    print("met:", ", ".join(f"{name}: {'yes' if ok else 'NO'}" for name, ok in met.items()))
    if args.out:
        write_atomic(args.out.with_suffix(".json"), json.dumps(found, indent=1, default=float))
        draw(found, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
