"""What a deployed federation costs: 1 SuperLink and N SuperNodes on this machine, over TLS and with keys.

    python benchmarks/deployment.py --nodes 3 --rounds 5

FedRC on digits-3shift cut to N clients. First table: from launch to the result, and the seconds of a round. Second
table: CPU seconds of the process that every message to a client starts, by what they are spent on. The rest of a round
is waiting: a SuperNode looks for messages every 3 s and for its client's reply every 0.5 s, its SuperExec for something
to start every 0.5 s (FLWR_SUPEREXEC_TASK_POLL_INTERVAL, as our commands set it; 1 s by default), our ServerApp for
replies every 0.5 s (Flower's own Grid: every 3 s).
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedclust.config import FederationConfig
from fedclust.processes import variables
from simulations.engines.inprocess import simulate
from simulations.setups import load_setup
from tests.e2e.loopback import loopback, rounds_done, wait_for

PARTS = {
    "Flower": "import flwr.supernode.cli.flwr_clientapp",
    "torch": "import torch",
    "fedclust": "import fedclust.client_app, fedclust.server_app, fedclust.deploy.clients",
}
"""What a client's process imports, one after the other."""


def settings(nodes: int, rounds: int) -> FederationConfig:
    """FedRC with the scenario's setup."""
    setup = load_setup(f"digits-3shift:n_clients={nodes}", 0)
    return FederationConfig(algorithm="fedrc", settings={"n_groups": min(3, nodes), "restarts": 1},
                            scenario="digits-3shift", federation=setup.federation, **{**setup.config, "rounds": rounds})


def run(nodes: int, rounds: int, root: Path) -> dict[str, float]:
    """Seconds after the launch at which each thing was there, and the seconds of each round."""
    config, out, clock = settings(nodes, rounds), root / "out", time.monotonic()
    clients = [f"client-{i:04d}" for i in range(nodes)]
    found = {}
    with loopback(root, clients) as here:
        found["SuperLink up, keys registered"] = time.monotonic() - clock
        for client in clients:
            here.supernode(client, f"scenario:digits-3shift:{client}")
        here.run(config, nodes, out)
        here.registered(*clients)
        found["SuperNodes let in, run submitted"] = time.monotonic() - clock
        wait_for(lambda: (out / "checkpoint-0.safetensors").exists(), 300, "the handshake")
        found["clients greeted"] = time.monotonic() - clock
        wait_for(lambda: not (out / "checkpoint-0.safetensors").exists() or rounds_done(out, config) == rounds,
                 200 * rounds, "the rounds")
        found[f"end of round {rounds}"] = time.monotonic() - clock
        result = here.result(out, 300)
        found["everyone evaluated, result written"] = time.monotonic() - clock
    each = [row["seconds"] for row in result.history.rounds]
    found |= {"a round, median": statistics.median(each), "a round, slowest": max(each)}
    whole = simulate(config)
    mine, theirs = ([r["accuracy"] for r in one.clients] for one in (result, whole))
    found["largest difference of an accuracy to the in-process engine"] = max(
        abs(a - b) for a, b in zip(mine, theirs, strict=True))
    return found


def cpu_of_imports(home: Path) -> dict[str, float]:
    """CPU seconds that each part adds to a process, the least of three."""
    found, code, before = {}, "", 0.0
    for name, line in PARTS.items():
        code += line + "\n"
        times = []
        for _ in range(3):
            start = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **variables(home)})
            end = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
        found[name], before = min(times) - before, min(times)
    return found


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory(prefix="fedclust-") as scratch:
        load = os.getloadavg()[0]
        table = Table(f"{args.nodes} SuperNodes, {args.rounds} rounds; load {load:.1f} before", "seconds")
        for name, value in run(args.nodes, args.rounds, Path(scratch)).items():
            table.add_row(name, f"{value:.4g}")
        console.print(table)
        parts = Table("a client's process imports", "CPU seconds")
        for name, value in cpu_of_imports(Path(scratch)).items():
            parts.add_row(name, f"{value:.2f}")
        console.print(parts)


if __name__ == "__main__":
    main()
