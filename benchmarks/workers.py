"""What engine workers makes of several processors: a 28x28 convnet on 1, 2, ... workers, a plain loop, in one run.

    OMP_NUM_THREADS=1 python benchmarks/workers.py [--rounds 6] [--clients 8] [--samples 200]

The work: scikit-learn's digits, scaled up to 28x28, FedAvg, batches of 20, step size .1, every client in every round,
no evaluation in the rounds. Steady rate: without the first round. The plain loop is that of benchmarks/federation.py,
on one processor. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from federation import plain, steady
from joblib import cpu_count
from sklearn.datasets import load_digits

from fedclust.config import FederationConfig
from fedclust.data.draw import Draw
from fedclust.data.spec import FederationSpec
from fedclust.models import ModelConfig
from fedclust.participant import simulated_federation
from fedclust.task import Training
from graphclust.monitor import Silent
from simulations.engines import get_engine

ACCEPTED = 0.9
"""Times processors times the plain loop that the engine must reach."""


def workload(folder: Path, clients: int, samples: int, rounds: int) -> FederationConfig:
    """FedAvg of a convnet on digits of 28x28."""
    digits = load_digits()
    x = torch.nn.functional.interpolate(torch.from_numpy(digits.images[:, None] / 16).float(), (28, 28))
    np.savez(folder / "digits28.npz", x=x.numpy(), y=digits.target)
    return FederationConfig(
        algorithm="fedavg", rounds=rounds, evaluate_every=0, timeout=3600, model=ModelConfig(name="convnet"),
        federation=FederationSpec(source=str(folder / "digits28.npz"), n_clients=clients,
                                  partition=Draw(train=(samples,), test=(20,), validation=(0,))),
        training=Training(epochs=1, lr=0.1, batch_size=20),
    )


class _First(Silent):
    """Notes when the clients have all answered the handshake."""

    def __init__(self) -> None:
        self.clock, self.seconds = time.perf_counter(), 0.0

    def start(self, total: int, what: str) -> None:
        """The first round starts."""
        self.seconds = time.perf_counter() - self.clock


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load, cores = os.getloadavg()[0], cpu_count()
    counts = sorted({1, cores} | {2 ** i for i in range(cores.bit_length()) if 2 ** i < cores})
    loops: list[float] = []
    rates: dict[int, list[float]] = {count: [] for count in counts}
    starts: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        config = workload(Path(folder), args.clients, args.samples, args.rounds)
        simulated_federation(config)
        for _ in range(args.repeats):
            loops.append(plain(config))
            for count in counts:
                first = _First()
                result = get_engine("workers")(config.model_copy(update={"workers": count}), monitor=first)
                rates[count].append(steady(result))
                starts[count].append(first.seconds)
    loop = statistics.median(loops)
    print(f"{args.clients} clients of {args.samples} samples, {args.rounds} rounds; {cores} processors; "
          f"load of the machine {load:.1f}")
    print(f"plain loop: {loop:6.2f} updates/s ({', '.join(f'{r:.2f}' for r in loops)})")
    for count in counts:
        ratio = statistics.median(r / (count * each) for r, each in zip(rates[count], loops, strict=True))
        print(f"{count} workers : {statistics.median(rates[count]):6.2f} updates/s "
              f"({', '.join(f'{r:.2f}' for r in rates[count])}); {ratio:.2f} x {count} x the plain loop; "
              f"first round after {statistics.median(starts[count]):.1f} s")
    print(f"accepted from {ACCEPTED:g}: {'yes' if ratio >= ACCEPTED else 'NO'}")


if __name__ == "__main__":
    main()
