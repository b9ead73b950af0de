"""Client updates per second: the in-process engine, a plain loop, and `flwr run` with Ray, measured in one run.

    python benchmarks/federation.py [--rounds 10] [--clients 100] [--repeats 3]

The work: digits, 100 clients with 15 samples each, MLP 64-64-10, batches of 5 (3 steps an update), step size .1, every
client in every round, no evaluation in the rounds. Steady rate: without the first round. Ray runs twice: Flower's
FedAvg with a ClientApp as its tutorials write it (benchmarks/flower_fedavg), which is what the engine is compared with,
and our own apps. Ray uses all processors, the engine one: run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch

from fedclust.algorithms.base import Reports, models
from fedclust.config import FederationConfig
from fedclust.data.draw import Draw
from fedclust.data.spec import FederationSpec
from fedclust.participant import Participant, simulated_federation
from fedclust.state import FederationResult
from fedclust.task import Training
from simulations.engines import get_engine
from simulations.engines.ray import flwr_run, private_home

ACCEPTED = 3.0
"""Times the rate of Flower and Ray that the in-process engine must reach."""


def workload(clients: int, rounds: int) -> FederationConfig:
    """FedAvg on digits without evaluation in the rounds."""
    return FederationConfig(
        algorithm="fedavg", rounds=rounds, evaluate_every=0, timeout=3600,
        federation=FederationSpec(n_clients=clients, partition=Draw(train=(15,), test=(5,), validation=(0,))),
        training=Training(epochs=1, lr=0.1, batch_size=5),
    )


def steady(result: FederationResult) -> float:
    """Updates per second after the first round."""
    rounds = result.history.rounds[1:]
    return sum(len(r["participants"]) for r in rounds) / sum(r["seconds"] for r in rounds)


def plain(config: FederationConfig) -> float:
    """Updates per second of the same computation in a for loop, without Flower."""
    federation = simulated_federation(config)
    clients = [Participant(config, c, federation.n_classes) for c in federation.clients]
    algorithm, n = config.make(), torch.tensor([float(len(c.data.train)) for c in clients])
    state = algorithm.start(n, clients[0].model, config.seed)
    for r in range(config.rounds):
        if r == 1:
            clock = time.perf_counter()
        sent = {name: t[None] for name, t in models(state).items()}
        trained = [c.cohort(r, {}).train(sent, config.training) for c in clients]
        together = {name: torch.cat([t[name] for t in trained]) for name in sent}
        state = algorithm.update(state, Reports(torch.arange(len(clients)), n, together, {}))
    return len(clients) * (config.rounds - 1) / (time.perf_counter() - clock)


def flowers_own(config: FederationConfig) -> float:
    """Updates per second of Flower's FedAvg and a plain ClientApp on Ray."""
    nodes = len(simulated_federation(config).everyone)
    with private_home() as home:
        (home / "config.json").write_text(config.model_dump_json())
        file = home / "times.json"
        settings: dict[str, str | int] = {
            "config": str(home / "config.json"), "rounds": config.rounds, "times": str(file),
        }
        log = flwr_run(Path(__file__).parent / "flower_fedavg", home, settings, nodes=nodes)
        if not file.exists():
            raise SystemExit(log)
        times = json.loads(file.read_text())
    return nodes * (len(times) - 1) / (times[-1] - times[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3, help="of the in-process engine and the loop; Ray runs once")
    parser.add_argument("--without-ray", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load, config = os.getloadavg()[0], workload(args.clients, args.rounds)
    here = get_engine("inprocess")
    here(workload(2, 1))  # the lazy imports of torch and Flower are not what is measured
    clock = time.perf_counter()
    simulated_federation(config)
    data = time.perf_counter() - clock
    rates, loops, first = [], [], []

    def measure() -> FederationResult:
        clock = time.perf_counter()
        result = here(config)
        first.append(time.perf_counter() - clock - sum(r["seconds"] for r in result.history.rounds[1:]))
        rates.append(steady(result))
        loops.append(plain(config))
        return result

    result = measure()
    if not args.without_ray:
        baseline, ray = flowers_own(config), get_engine("ray")(config)
    for _ in range(args.repeats - 1):
        measure()
    rate = statistics.median(rates)
    print(f"{args.clients} clients, {args.rounds} rounds; data {data:.2f} s; load of the machine {load:.1f}")
    print(f"in process : {rate:7.0f} updates/s ({', '.join(f'{r:.0f}' for r in rates)}); "
          f"start to first round, with the final evaluation: {max(first):.2f} s")
    print(f"plain loop : {statistics.median(loops):7.0f} updates/s ({', '.join(f'{r:.0f}' for r in loops)})")
    if not args.without_ray:
        gap = max(float((t.float() - ray.state[name].float()).abs().max()) for name, t in result.state.items())
        print(f"Flower+Ray : {baseline:7.0f} updates/s; Flower's FedAvg and a plain ClientApp")
        print(f"ours on Ray: {steady(ray):7.0f} updates/s; largest difference of a parameter {gap:.1g}")
        met = "yes" if rate >= ACCEPTED * baseline else "NO"
        print(f"ratio      : {rate / baseline:7.1f} to Flower's own on Ray (accepted from {ACCEPTED:g}: {met}), "
              f"{rate / steady(ray):.1f} to ours on Ray")


if __name__ == "__main__":
    main()
