"""The run folder on disk and the sqlite index beside it, which is derived and can be rebuilt."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from graphclust.atomic import write_atomic
from graphclust.graph import InputError
from graphclust.runs.record import RunConfig, RunRecord


def save_array(path: Path, array: np.ndarray) -> None:
    """``numpy.save`` through :func:`write_atomic`."""
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


class RunDir:
    """One run's folder: config.yaml, record.json, history.jsonl, labels.npy, embedding.npy, epoch_labels.npy."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def open(self, config: RunConfig) -> None:
        """Claim the folder for ``config``; InputError when it holds the run of another config."""
        file = self.path / "config.yaml"
        if file.exists():
            held = RunConfig.model_validate(yaml.safe_load(file.read_text()))
            if held.fingerprint() != config.fingerprint():
                raise InputError(
                    f"the output folder {self.path} holds the run of another config ({held.method} on {held.data}, "
                    f"seed {held.seed}); give another --out, or remove the folder"
                )
        write_atomic(file, yaml.safe_dump(config.resolved().model_dump(mode="json"), sort_keys=False))

    def record(self) -> RunRecord | None:
        """The record, or None when the run never started or its file is unreadable."""
        try:
            return RunRecord.model_validate_json((self.path / "record.json").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def write_record(self, record: RunRecord) -> None:
        """Write record.json."""
        write_atomic(self.path / "record.json", record.model_dump_json(indent=1))

    def write_history(self, history: list[dict[str, float]]) -> None:
        """Write history.jsonl, one epoch a line."""
        write_atomic(self.path / "history.jsonl", "".join(json.dumps(h) + "\n" for h in history))

    def history(self) -> list[dict[str, float]]:
        """The epochs of history.jsonl; empty when there is none."""
        file = self.path / "history.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def array(self, name: str) -> np.ndarray | None:
        """The array ``name``.npy, or None."""
        file = self.path / f"{name}.npy"
        return np.load(file, allow_pickle=False) if file.exists() else None


class RunStore:
    """A folder of run folders.

    Parameters
    ----------
    root : Path
        Runs lie in ``root/<id>``, the index in ``root/index.sqlite``.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def run_dir(self, config: RunConfig) -> RunDir:
        """The folder of ``config``'s run (it need not exist)."""
        return RunDir(self.root / config.run_id)

    def run_dirs(self) -> Iterator[RunDir]:
        """Every run folder in ``root``."""
        for file in sorted(self.root.glob("*/config.yaml")):
            yield RunDir(file.parent)

    def records(self) -> list[tuple[RunDir, RunRecord]]:
        """All readable records with their folders."""
        found = ((d, d.record()) for d in self.run_dirs())
        return [(d, r) for d, r in found if r is not None]

    def reindex(self) -> Path:
        """Rebuild ``index.sqlite`` from the record files: table ``runs`` and long table ``metrics``."""
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / "index.sqlite"
        temporary = path.with_suffix(".sqlite.tmp")
        temporary.unlink(missing_ok=True)
        runs: list[tuple[Any, ...]] = []
        metrics: list[tuple[Any, ...]] = []
        for d, r in self.records():
            c = r.config
            runs.append((r.id, c.name, c.method, c.data, c.seed, r.status, r.n_clusters, r.timings.get("fit"),
                         r.peak_memory_mb, str(d.path), (r.error or {}).get("message")))
            metrics += [(r.id, name, value, False) for name, value in r.metrics.items()]
            metrics += [(r.id, name, value, True) for name, value in r.oracle.items()]
        db = sqlite3.connect(temporary)
        with db:
            db.execute("create table runs (id primary key, name, method, data, seed, status, n_clusters, fit_seconds, "
                       "peak_memory_mb, path, error)")
            db.execute("create table metrics (run_id references runs, name, value, oracle)")
            db.executemany("insert into runs values (?,?,?,?,?,?,?,?,?,?,?)", runs)
            db.executemany("insert into metrics values (?,?,?,?)", metrics)
        db.close()
        os.replace(temporary, path)
        return path
