"""Flower's processes: the variables that they start with, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

import fedclust
from fedclust.flwr_compat import environment


def program(name: str) -> str:
    """The path of one of Flower's commands in the environment of this interpreter."""
    return str(Path(sys.executable).parent / name)


def variables(home: Path, threads: int = 1, *, code: Path | None = None) -> dict[str, str]:
    """What is set for Flower's commands beside the variables of this process.

    Parameters
    ----------
    home : where Flower may write
    threads : of every process
    code : folder of further Python modules
    """
    here = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    modules = [str(code or ""), str(Path(fedclust.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **environment(home), "OMP_NUM_THREADS": str(threads), "PATH": os.pathsep.join(here),
        "PYTHONPATH": os.pathsep.join(filter(None, modules)),
    }


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends this block as Ctrl-C does, so that what it started is ended and removed; a second changes nothing.

    Whoever is impatient sends the signal again, and it would break off the cleaning up, with processes left behind.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its descendants; those that do not go within 10 s are killed."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for p in family:
        _signal(p, "terminate")
    _, alive = psutil.wait_procs(family, timeout=10)
    for p in alive:
        _signal(p, "kill")
    psutil.wait_procs(alive, timeout=10)
    process.wait()


def _signal(process: psutil.Process, how: str) -> None:
    try:
        getattr(process, how)()
    except psutil.NoSuchProcess:
        return
