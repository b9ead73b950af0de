"""The engine that suits a federation: clients side by side, or worker processes, by what a model's own steps cost."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

import torch

from fedclust.algorithms.base import initial_models
from fedclust.config import FederationConfig
from fedclust.data.client import ClientData, Split
from fedclust.models import Model
from fedclust.participant import Participant, simulated_federation
from fedclust.state import FederationResult
from fedclust.task import Cohort
from graphclust.atomic import write_atomic
from graphclust.monitor import Monitor
from graphclust.training import resolve_device
from simulations.engines.batched import MEGABYTE, bytes_of
from simulations.engines.workers import n_workers

log = logging.getLogger(__name__)
TIMED, ALONE, STEPS = 32, 3, 2
"""Clients that are timed side by side, and alone, and steps that each makes."""
MOST, BRIEF = 10, 0.1
"""Trainings of which the shortest counts, and seconds after which two are enough: a busy machine interrupts."""


@dataclass(frozen=True)
class Choice:
    """An engine, and why it was chosen."""

    engine: str
    why: str


def choose(config: FederationConfig) -> Choice:
    """Time a few steps of some clients, side by side and alone; nothing of the federation itself changes.

    Stacked models gain where calling torch takes longer than the arithmetic. Where the arithmetic takes the time, a
    stack gains nothing on a processor, and processes share the work.
    """
    federation = simulated_federation(config)
    n, device = len(federation.clients), resolve_device(config.device)
    if n == 1:
        return Choice("inprocess", "there is one client")
    if device.type == "cuda":
        return Choice("batched", f"on {device} clients are stacked")
    torch.set_num_threads(config.threads)
    model = Model(config.model, federation.input_shape, federation.n_classes)
    me = Participant(config, federation.clients[0], federation.n_classes)
    fits = max(1, config.memory_mb * MEGABYTE // bytes_of(me, 1))
    some = [_short(federation.clients[i], config) for i in range(min(n, TIMED, fits))]
    stacked, alone = _seconds(config, model, [some], [[client] for client in some[:ALONE]])
    processes = n_workers(config, n)
    times = f"an update of {STEPS} steps takes {1e3 * stacked:.2g} ms side by side, {1e3 * alone:.2g} ms alone"
    if stacked <= alone / processes:
        return Choice("batched", f"{times}, timed on {len(some)} clients")
    if processes > 1:
        return Choice("workers", f"{times}, shared by {processes} processes")
    return Choice("batched" if stacked <= alone else "inprocess", f"{times}; there is one processor")


def _short(client: ClientData, config: FederationConfig) -> ClientData:
    """The client with as many training samples as the timed steps need."""
    kept = STEPS * config.training.batch_size
    return replace(client, train=Split(client.train.x[:kept], client.train.y[:kept]))


def _seconds(config: FederationConfig, model: Model, *ways: list[list[ClientData]]) -> list[float]:
    """Seconds of one client's update in each of these ways to form cohorts; infinite where torch cannot stack them.

    The least of a few trainings, more where they are short. The ways take turns: what else the machine does meets all.
    """
    training, first = config.training.model_copy(update={"epochs": 1}), initial_models(model, config.seed, 1)
    ready = [[Cohort(clients, model, seed=config.seed, round=0) for clients in cohorts] for cohorts in ways]
    taken: list[list[float]] = [[] for _ in ways]
    while len(taken[0]) < 2 or (len(taken[0]) < MOST and sum(map(sum, taken)) < BRIEF):
        for cohorts, seconds in zip(ready, taken, strict=True):
            clock = time.perf_counter()
            try:
                for cohort in cohorts:
                    cohort.train({name: t.expand(len(cohort), *t.shape) for name, t in first.items()}, training)
            except RuntimeError as e:  # torch says which operation it cannot stack
                if len(cohorts[0]) == 1:
                    raise
                log.info("clients cannot be stacked: %s", e)
                seconds.append(float("inf"))
            else:
                seconds.append(time.perf_counter() - clock)
    return [min(seconds) / sum(map(len, cohorts)) for seconds, cohorts in zip(taken, ways, strict=True)]


def simulate(
    config: FederationConfig, *, checkpoint: Path | None = None, monitor: Monitor | None = None
) -> FederationResult:
    """Run a federation on the engine that :func:`choose` chooses; a run that goes on from a checkpoint keeps its own.
    The choice lies beside the checkpoint. See :class:`~simulations.engines.Simulate`.
    """
    note = checkpoint.with_suffix(".engine.json") if checkpoint else None
    if checkpoint and note and checkpoint.exists() and note.exists():
        choice = Choice(**json.loads(note.read_text()))
    else:
        choice = choose(config)
        if note:
            write_atomic(note, json.dumps(asdict(choice)))
    log.info("engine %s: %s", choice.engine, choice.why)
    engine = import_module(f"simulations.engines.{choice.engine}")
    result: FederationResult = engine.simulate(config, checkpoint=checkpoint, monitor=monitor)
    if note:
        os.unlink(note)
    return replace(result, notes=[f"engine {choice.engine}: {choice.why}", *result.notes])
