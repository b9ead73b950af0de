"""Execute one run: load, strip the labels, fit, evaluate, write the folder."""

from __future__ import annotations

import inspect
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphclust.coerce import as_graph, as_stream, is_temporal
from graphclust.data import load
from graphclust.graph import InputError
from graphclust.methods import get_method
from graphclust.metrics import Windows, evaluate
from graphclust.metrics.temporal import at_windows
from graphclust.monitor import Monitor, Silent
from graphclust.runs.lifecycle import carry_out, set_threads
from graphclust.runs.record import PACKAGES, RunConfig, RunRecord
from graphclust.runs.store import RunDir, save_array
from graphclust.stream import Stream

# what every run in a process of its own needs
PRELOAD = ("graphclust.runs.execute", "torch", "sklearn.cluster")

# Above this many stored labels (epochs x nodes) the trace keeps every second epoch, and so on.
TRACE_LIMIT = 20_000_000


class Trace:
    """A monitor that keeps the partition of each epoch for the after-the-fact curves, and passes all on.

    The partitions lie in a file, one after the other, so that a run taken up again from its checkpoint goes on writing
    where the checkpoint left it.

    Parameters
    ----------
    n : number of nodes
    folder : where the trace and the checkpoint lie; None: keep neither
    inner : the monitor to pass on to
    """

    def __init__(self, n: int, folder: Path | None, inner: Monitor) -> None:
        self.checkpoint = folder / "checkpoint.pt" if folder else None
        self._file = folder / "epoch_labels.i16" if folder else None
        self._n, self._inner, self._stride = n, inner, 1
        if self._file and self.checkpoint and not self.checkpoint.exists():
            self._file.unlink(missing_ok=True)

    def start(self, total: int, what: str) -> None:
        """Pick the stride that keeps the trace within its limit."""
        self._stride = max(1, -(-total * self._n // TRACE_LIMIT))
        self._inner.start(total, what)

    def step(self, step: int, values: dict[str, float], labels: Callable[[], np.ndarray] | None = None) -> None:
        """Keep the partition, if the method shows one."""
        if labels is not None and self._file is not None and step % self._stride == 0:
            with self._file.open("r+b" if self._file.exists() else "w+b") as f:
                f.seek(step // self._stride * self._n * 2)
                f.write(np.asarray(labels(), dtype=np.int16).tobytes())
        self._inner.step(step, values, labels)

    def epochs(self) -> Iterator[tuple[int, np.ndarray]]:
        """Epoch and partition, in order."""
        if self._file is not None and self._file.exists():
            rows = np.fromfile(self._file, dtype=np.int16).reshape(-1, self._n)
            yield from ((i * self._stride, row) for i, row in enumerate(rows))

    def clear(self) -> None:
        """Remove the trace and the checkpoint: the run is over."""
        for file in (self._file, self.checkpoint):
            if file is not None:
                file.unlink(missing_ok=True)


def execute(
    config: RunConfig, run_dir: RunDir[RunRecord], monitor: Monitor | None = None, *, raises: bool = False
) -> RunRecord:
    """Run ``config`` in ``run_dir`` unless it is finished there already; a failure becomes a record with its error.

    Parameters
    ----------
    config : what to run
    run_dir : where; it must be free, or hold a run of the same config
    monitor : watcher for a progress display
    raises : raise the error after recording it

    Raises
    ------
    InputError
        Before anything is written: unknown method or parameter, a folder with another config's run.
    """

    def work(record: RunRecord) -> None:
        _fit_and_evaluate(record.config, run_dir, record, monitor or Silent())

    return carry_out(config, run_dir, work, packages=PACKAGES, raises=raises)


def resolve_k(config: RunConfig, data: Any) -> tuple[int | str | None, str]:
    """The ``n_clusters`` to give the method, and where it comes from: "given", "data" or "method"."""
    cls = get_method(config.method)
    takes_k = "n_clusters" in inspect.signature(cls).parameters
    if config.n_clusters is not None and not takes_k:
        raise InputError(f"{config.method} finds the number of clusters itself; leave out -k")
    if isinstance(config.n_clusters, int):
        return config.n_clusters, "given"
    if config.n_clusters == "auto" or (config.n_clusters is None and not (takes_k and cls.needs_k)):
        return config.n_clusters, "method"
    declared = getattr(data, "k", None)
    if declared is None:
        raise InputError(
            f"{config.method} needs the number of clusters and {config.data} declares none; give -k, "
            "or use a method that finds it: leiden, leiden_auto"
        )
    return int(declared), "data"


def _fit_and_evaluate(config: RunConfig, run_dir: RunDir[RunRecord], record: RunRecord, inner: Monitor) -> None:
    cls = get_method(config.method)
    set_threads(config.threads)
    clock = time.perf_counter()
    data = load(config.data)
    y = data.y.numpy() if getattr(data, "y", None) is not None else None
    # from here on the method sees features and edges or events only: the labels stay behind
    seen = as_stream(data) if is_temporal(data) else as_graph(data)
    graph = as_graph(seen)
    record.timings["load"] = time.perf_counter() - clock
    record.n_nodes, record.n_edges = graph.n, graph.m
    record.n_events = seen.m if isinstance(seen, Stream) else None
    k, record.k_source = resolve_k(config, data)  # type: ignore[assignment]
    params = dict(config.params, random_state=config.seed)
    if "n_clusters" in inspect.signature(cls).parameters:
        params["n_clusters"] = k
    clusterer = cls(**params)
    trace = Trace(graph.n, run_dir.path if cls.trains else None, inner)
    clock, cpu = time.perf_counter(), time.process_time()
    try:
        clusterer.fit(seen, monitor=trace)
    except Exception:
        trace.clear()  # a failed run starts anew; an interrupted one goes on from its checkpoint
        raise
    record.timings["fit"] = time.perf_counter() - clock
    record.timings["fit_cpu"] = time.process_time() - cpu
    record.peak_memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    record.device = str(getattr(clusterer, "device_", "cpu"))
    record.n_clusters, record.chosen = clusterer.n_clusters_, clusterer.chosen_
    record.privacy = clusterer.privacy_.model_dump(mode="json") if clusterer.privacy_ else None
    clock = time.perf_counter()
    windows = _windows(clusterer, seen, data) if isinstance(seen, Stream) else None
    record.metrics = evaluate(clusterer.labels_, y, graph, windows=windows)
    _write_results(clusterer, run_dir)
    if y is not None:
        record.oracle = _oracle(trace, y, run_dir)
    trace.clear()
    record.timings["evaluate"] = time.perf_counter() - clock


def _windows(clusterer: Any, stream: Stream, data: Any) -> Windows:
    """The clusters over time and, where the data has a truth for each of its windows of time, both in these windows.

    There a node has the cluster of most of its events (:func:`graphclust.metrics.temporal.at_windows`), whatever
    windows the method used; a method that does not follow clusters over time has one cluster a node for all of them.
    """
    labels, edges = clusterer.window_labels_, clusterer.window_edges_
    if not hasattr(data, "y_windows"):
        return Windows(labels)
    shown, between = (clusterer.labels_[None], stream.time[[0, -1]]) if labels is None else (labels, edges)
    return Windows(labels, at_windows(stream, shown, between, data.window_edges.numpy()), data.y_windows.numpy())


def _write_results(clusterer: Any, run_dir: RunDir[RunRecord]) -> None:
    save_array(run_dir.path / "labels.npy", clusterer.labels_)
    if clusterer.window_labels_ is not None:
        save_array(run_dir.path / "window_labels.npy", clusterer.window_labels_)
        save_array(run_dir.path / "window_edges.npy", clusterer.window_edges_)
    if clusterer.embedding_ is not None:
        save_array(run_dir.path / "embedding.npy", np.asarray(clusterer.embedding_, dtype=np.float32))
    if clusterer.history_:
        run_dir.write_history(clusterer.history_)
    if hasattr(clusterer, "save"):
        clusterer.save(run_dir.path / "model")


def _oracle(trace: Trace, y: np.ndarray, run_dir: RunDir[RunRecord]) -> dict[str, float]:
    """Each metric's best epoch, chosen with the labels (what the papers' code reports), and the curves."""
    names = ["acc", "nmi", "ari", "f1"]
    rows = [[epoch, *evaluate(labels, y, names=names).values()] for epoch, labels in trace.epochs()]
    if not rows:
        return {}
    curves = np.array(rows)
    save_array(run_dir.path / "epoch_metrics.npy", curves)
    return {f"oracle_{name}": float(curves[:, i].max()) for i, name in enumerate(names, start=1)}

