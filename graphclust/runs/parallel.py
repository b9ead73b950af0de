"""Run many configs, each in a process of its own: a crash takes one row, a kill of the parent takes the children."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import numpy as np

from graphclust.monitor import Monitor, Silent
from graphclust.runs.base import Config, Record
from graphclust.runs.store import RunDir, RunStore

C = TypeVar("C", bound=Config)
R = TypeVar("R", bound=Record)


@dataclass
class Progress:
    """What a running child tells: ``what`` phase, at ``step`` of ``total``, with which loss."""

    what: str
    step: int
    total: int
    loss: float | None = None


class _Tell(Silent):
    """The monitor of a child process: sends its progress to the parent, at most five times a second."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._what, self._total, self._last = pipe, "", 0, 0.0

    def start(self, total: int, what: str) -> None:
        """Tell that a phase begins."""
        self._what, self._total = what, total
        self._pipe.send(Progress(what, 0, total))

    def step(self, step: int, values: dict[str, float], labels: Callable[[], np.ndarray] | None = None) -> None:
        """Tell the step."""
        if time.monotonic() - self._last > 0.2:
            self._last = time.monotonic()
            self._pipe.send(Progress(self._what, step + 1, self._total, values.get("loss")))


def _child(work: Callable[[C, RunDir[R], Monitor], R], config: C, run_dir: RunDir[R], pipe: Connection) -> None:
    log = os.open(run_dir.path / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)

    def die_with_parent() -> None:
        try:
            pipe.recv()
        except EOFError:
            os._exit(1)

    threading.Thread(target=die_with_parent, daemon=True).start()
    work(config, run_dir, _Tell(pipe))


@dataclass
class _Job(Generic[C, R]):
    config: C
    run_dir: RunDir[R]
    process: Any
    pipe: Connection | None


def run_all(
    runs: Iterable[C], store: RunStore[R], work: Callable[[C, RunDir[R], Monitor], R], *, jobs: int = 1,
    listen: Callable[[C, Progress | R], None] = lambda config, event: None, preload: Sequence[str] = (),
) -> list[R]:
    """Run what is not finished yet; each run in a fresh process, so that a crash takes one row and no more.

    Parameters
    ----------
    runs : resolved configs
    store : where their folders lie; finished runs there are taken as they are
    work : a function of a module that carries one run out in its folder, telling a monitor
    jobs : processes at a time
    listen : told of every progress step and every finished or failed run
    preload : modules that every run needs: imported once, not once a run

    Returns
    -------
    One record per run, in the order of ``runs``. On an interrupt the children are ended, finished runs stay.
    """
    runs = list(runs)
    store.put_in_order([config.run_id for config in runs])
    records: dict[str, R] = {}
    queue = []
    for config in runs:
        done = store.run_dir(config).record()
        if done is not None and done.status == "finished":
            records[config.run_id] = done
            listen(config, done)
        else:
            queue.append(config)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    active: dict[int, _Job[C, R]] = {}
    try:
        while queue or active:
            while queue and len(active) < jobs:
                job = _start(context, work, queue.pop(0), store)
                active[job.process.sentinel] = job
            wait([*active, *(j.pipe for j in active.values() if j.pipe)])
            for sentinel, job in list(active.items()):
                _forward(job, listen)
                if not job.process.is_alive():
                    _forward(job, listen)
                    records[job.config.run_id] = _collect(active.pop(sentinel))
                    listen(job.config, records[job.config.run_id])
    finally:
        for job in active.values():
            job.process.kill()
    store.reindex()
    return [records[c.run_id] for c in runs]


def _start(context: Any, work: Callable[..., R], config: C, store: RunStore[R]) -> _Job[C, R]:
    run_dir = store.run_dir(config)
    run_dir.path.mkdir(parents=True, exist_ok=True)
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(work, config, run_dir, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Job(config, run_dir, process, ours)


def _forward(job: _Job[C, R], listen: Callable[[C, Progress | R], None]) -> None:
    try:
        while job.pipe and job.pipe.poll():
            listen(job.config, job.pipe.recv())
    except (EOFError, OSError):  # the child has ended
        job.pipe = None


def _collect(job: _Job[C, R]) -> R:
    """The record of an ended child; one that died without a word is a failure with its exit code."""
    job.process.join()
    record = job.run_dir.record()
    if record is not None and record.status != "running":
        return record
    code = job.process.exitcode
    why = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    file = job.run_dir.path / "log.txt"
    log = file.read_text(errors="replace")[-2000:].strip() if file.exists() else "it died before its first line of code"
    if record is None and not (job.run_dir.path / "config.yaml").exists():
        job.run_dir.open(job.config)  # a folder without its config is no row of a report
    record = record or job.run_dir.kind(id=job.config.run_id, status="failed", config=job.config)
    record.status = "failed"
    record.error = {"type": "ProcessDied", "message": f"the run's process died ({why})", "traceback": log}
    job.run_dir.write_record(record)
    return record
