"""The run folder on disk and the sqlite index beside it, which is derived and can be rebuilt."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import yaml
from pydantic import ValidationError

from graphclust.atomic import write_atomic
from graphclust.graph import InputError
from graphclust.runs.base import Config, Record

R = TypeVar("R", bound=Record)


def save_array(path: Path, array: np.ndarray) -> None:
    """``numpy.save`` through :func:`write_atomic`."""
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


class RunDir(Generic[R]):
    """One run's folder: config.yaml, record.json, history.jsonl, and the arrays that the run leaves.

    Parameters
    ----------
    path : the folder; it need not exist
    kind : class of its record
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path, self.kind = Path(path), kind

    def open(self, config: Config) -> None:
        """Claim the folder for ``config``; InputError when it holds the run of another config."""
        file = self.path / "config.yaml"
        if file.exists():
            config_class: Any = self.kind.model_fields["config"].annotation
            try:
                held = config_class.model_validate(yaml.safe_load(file.read_text()))
            except ValidationError as e:
                raise InputError(f"the output folder {self.path} holds a run of another kind, or of another version "
                                 "of this program; give another --out, or remove the folder") from e
            if held.fingerprint() != config.fingerprint():
                raise InputError(f"the output folder {self.path} holds the run of another config ({held.title}); "
                                 "give another --out, or remove the folder")
        write_atomic(file, yaml.safe_dump(config.resolved().model_dump(mode="json"), sort_keys=False))

    def release(self) -> None:
        """Undo :meth:`open`: the folder holds no run again, and is gone if it holds nothing else."""
        for name in ("config.yaml", "record.json"):
            (self.path / name).unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def record(self) -> R | None:
        """The record, or None when the run never started or its file is unreadable."""
        try:
            return self.kind.model_validate_json((self.path / "record.json").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def write_record(self, record: R) -> None:
        """Write record.json."""
        write_atomic(self.path / "record.json", record.model_dump_json(indent=1))

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Write history.jsonl, one epoch or round a line."""
        write_atomic(self.path / "history.jsonl", "".join(json.dumps(h) + "\n" for h in history))

    def history(self) -> list[dict[str, Any]]:
        """The epochs or rounds of history.jsonl; empty when there is none."""
        file = self.path / "history.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def array(self, name: str) -> np.ndarray | None:
        """The array ``name``.npy, or None."""
        file = self.path / f"{name}.npy"
        return np.load(file, allow_pickle=False) if file.exists() else None


def runs_in(folder: Path, kind: type[R]) -> list[tuple[RunDir[R], R]]:
    """The records, with their folders, of a benchmark's folder, of a folder of runs, or of a run's own.

    The index of several runs is rebuilt. The list is empty where there is no run of that kind.
    """
    own = RunDir(folder, kind)
    one = own.record()
    if one:
        return [(own, one)]
    store = RunStore(folder / "runs" if (folder / "runs").is_dir() else folder, kind)
    found = store.records()
    if found:
        store.reindex()
    return found


class RunStore(Generic[R]):
    """A folder of run folders.

    Parameters
    ----------
    root : Runs lie in ``root/<id>``, the index in ``root/index.sqlite``, their order in ``root/order.txt``
    kind : class of their records; a folder with another kind of record is passed over
    """

    def __init__(self, root: Path, kind: type[R]) -> None:
        self.root, self.kind = Path(root), kind

    def run_dir(self, config: Config) -> RunDir[R]:
        """The folder of ``config``'s run (it need not exist)."""
        return RunDir(self.root / config.run_id, self.kind)

    def put_in_order(self, ids: Sequence[str]) -> None:
        """Keep the order in which a benchmark has its runs, which no folder's name tells."""
        write_atomic(self.root / "order.txt", "".join(f"{i}\n" for i in ids))

    def run_dirs(self) -> Iterator[RunDir[R]]:
        """Every run folder in ``root``: those that were put in order, then the others by name."""
        file = self.root / "order.txt"
        place = {name: at for at, name in enumerate(file.read_text().split())} if file.is_file() else {}
        found = [config.parent for config in self.root.glob("*/config.yaml")]
        for path in sorted(found, key=lambda path: (place.get(path.name, len(place)), path.name)):
            yield RunDir(path, self.kind)

    def records(self) -> list[tuple[RunDir[R], R]]:
        """All readable records with their folders."""
        found = ((d, d.record()) for d in self.run_dirs())
        return [(d, r) for d, r in found if r is not None]

    def reindex(self) -> Path:
        """Rebuild ``index.sqlite`` from the record files: table ``runs`` and long table ``metrics``."""
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / "index.sqlite"
        temporary = path.with_suffix(".sqlite.tmp")
        temporary.unlink(missing_ok=True)
        runs: list[dict[str, Any]] = []
        metrics: list[tuple[str, str, float]] = []
        for d, r in self.records():
            runs.append({"id": r.id, "name": r.config.name, "seed": r.config.seed, "status": r.status, **r.facts(),
                         "peak_memory_mb": r.peak_memory_mb, "path": str(d.path),
                         "error": r.error["message"] if r.error else None})
            metrics += [(r.id, name, value) for name, value in r.values().items()]
        columns = list(runs[0]) if runs else ["id", "status"]
        db = sqlite3.connect(temporary)
        with db:
            db.execute(f"create table runs ({', '.join(columns)})")
            db.execute("create table metrics (run_id, name, value)")
            db.executemany(f"insert into runs values ({', '.join('?' * len(columns))})",
                           [list(row.values()) for row in runs])
            db.executemany("insert into metrics values (?,?,?)", metrics)
        db.close()
        os.replace(temporary, path)
        return path
