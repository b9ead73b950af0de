"""One simulation from its config to its record."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

from fedclust.config import FederationConfig
from fedclust.models import Model
from fedclust.node_clusters import cluster_nodes, node_metrics, save_encoders
from fedclust.participant import simulated_federation
from fedclust.record import PACKAGES, FederationRecord, conclude
from fedclust.trained import TrainedFederation
from graphclust.atomic import write_atomic
from graphclust.monitor import Monitor
from graphclust.runs.lifecycle import carry_out, set_threads
from graphclust.runs.store import RunDir
from simulations.attacks import planted_attackers
from simulations.engines import get_engine
from simulations.events import Schedule

# what every run in a process of its own needs, and what those on graphs need besides
PRELOAD = ("simulations.run", "torch", "sklearn.cluster", "flwr.serverapp", "flwr.clientapp")
PRELOAD_GRAPHS = (*PRELOAD, "graphclust.data.loading")
PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def execute(
    config: FederationConfig, run_dir: RunDir[FederationRecord], monitor: Monitor, *, raises: bool = False
) -> FederationRecord:
    """Run ``config`` in ``run_dir`` unless it is finished there; an interrupted run goes on from its last round.

    Parameters
    ----------
    config : what to run
    run_dir : where; it must be free, or hold a run of the same config
    monitor : watcher for a progress display
    raises : raise the error after recording it
    """

    def work(record: FederationRecord) -> None:
        _simulate(record.config, run_dir, record, monitor)

    return carry_out(config, run_dir, work, packages=PACKAGES, raises=raises)


def _simulate(
    config: FederationConfig, run_dir: RunDir[FederationRecord], record: FederationRecord, monitor: Monitor
) -> None:
    set_threads(config.threads)
    clock = time.perf_counter()
    federation = simulated_federation(config)
    config.check(len(federation.clients))
    Schedule(config).check({*federation.training_ids})
    truth = {**federation.truth, **planted_attackers(config)}
    record.timings["load"] = time.perf_counter() - clock
    clock, cpu = time.perf_counter(), _cpu_seconds()
    checkpoint = run_dir.path / "checkpoint.safetensors"
    result = get_engine(config.engine)(config, checkpoint=checkpoint, monitor=monitor)
    record.timings["fit"] = time.perf_counter() - clock
    record.timings["fit_cpu"] = _cpu_seconds() - cpu
    record.peak_memory_mb = max(resource.getrusage(of).ru_maxrss for of in PROCESSES) / 1024
    conclude(record, run_dir, result, truth)
    model = Model(config.model, federation.input_shape, federation.n_classes)
    trained = TrainedFederation(config.algorithm, config.make(), model, result.state, config.seed)
    trained.save(run_dir.path / "model")
    rule = getattr(config.federation.partition, "clustering", None)
    if rule is not None:
        nodes = cluster_nodes(federation.clients, result.embeddings, federation.n_classes, config.seed)
        write_atomic(run_dir.path / "nodes.csv", nodes.to_csv(index=False))
        record.metrics |= node_metrics(nodes)
        save_encoders(run_dir.path / "model", model, result.state, rule)
    checkpoint.unlink(missing_ok=True)


def _cpu_seconds() -> float:
    """Of this process and of those that it started and that have ended, such as an engine's workers."""
    used = [resource.getrusage(of) for of in PROCESSES]
    return sum(u.ru_utime + u.ru_stime for u in used)


def summary(config: FederationConfig, rows: list[dict[str, Any]], folder: Path, page: Path) -> dict[str, Any]:
    """What ``fedclust simulate --json`` prints: means over the finished seeds, and every run.

    Parameters
    ----------
    config : of one of the runs
    rows : the runs of one algorithm, as :func:`fedclust.report.rows` gives them
    folder, page : where everything is
    """
    done = [row for row in rows if row["status"] == "finished"]

    def mean(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None and v == v]
        return sum(known) / len(known) if known else None

    names = sorted({name for row in done for name in row["metrics"]})
    costs = {key: mean([row[key] for row in done]) for key in ("bytes_up", "bytes_down", "seconds_per_round")}
    return {
        "algorithm": config.name, "scenario": config.scenario, "seeds": [row["seed"] for row in rows],
        "rounds": config.rounds, "engine": config.engine,
        "metrics": {name: mean([row["metrics"].get(name) for row in done]) for name in names},
        "runs": rows, **costs, "run_dir": str(folder), "report": str(page),
    }
