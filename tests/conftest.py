"""What every test may use. Threads are bounded before torch is imported: the suite runs in two processes."""

import os
import time
from multiprocessing import forkserver as server

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from graphclust.graph import Graph, from_adjacency

torch.set_num_threads(1)
# the same examples on every machine, however slow: a failure is the change's, not the day's
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.load_profile("same")


def planted_graph(n: int = 120, k: int = 3, d: int = 12, seed: int = 0) -> tuple[Graph, np.ndarray]:
    """An easy attributed graph: k blocks, p_in .25, p_out .01, Gaussian features around k centres."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    p = np.where(y[:, None] == y[None, :], 0.25, 0.01)
    upper = np.triu(rng.random((n, n)) < p, 1)
    x = rng.normal(size=(k, d))[y] * 1.5 + rng.normal(size=(n, d)) * 0.5
    return from_adjacency(sp.csr_array((upper | upper.T).astype(np.float32)), x), y


@pytest.fixture(scope="session")
def planted() -> tuple[Graph, np.ndarray]:
    """Graph and labels of :func:`planted_graph`."""
    return planted_graph()


@pytest.fixture
def clock(monkeypatch) -> None:
    """Time that passes in ``time.sleep`` only, at once: deadlines that do not depend on how busy the machine is."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


@pytest.fixture(scope="session")
def forkserver() -> None:
    """What runs are forked from: a process has one, so it imports what the runs of both commands need, not of one."""
    from fedclust.flwr_compat import apply_environment
    from graphclust.runs import execute
    from simulations import run

    apply_environment()
    server.set_forkserver_preload([*execute.PRELOAD, *run.PRELOAD])
    server.ensure_running()
