"""One run from claiming its folder to its last record, whatever the work is."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from graphclust.graph import InputError
from graphclust.runs.base import Config, Record
from graphclust.runs.store import RunDir

R = TypeVar("R", bound=Record)


def carry_out(
    config: Config, run_dir: RunDir[R], work: Callable[[R], None], *, packages: Iterable[str], raises: bool = False
) -> R:
    """Do ``work`` unless the run is finished already; a failure becomes a record with its error.

    Parameters
    ----------
    config : what to run
    run_dir : where; it must be free, or hold a run of the same config
    work : computes, writes its files and fills the record in; the config in the record is resolved
    packages : whose versions the record keeps
    raises : raise the error after recording it; bad input that ``work`` refuses then leaves a free folder free

    Raises
    ------
    InputError
        Before anything is written: an unknown setting, a folder with another config's run.
    """
    config = config.resolved()
    done = run_dir.record()
    run_dir.open(config)
    if done is not None and done.status == "finished":
        return done
    record = run_dir.kind(
        id=config.run_id, status="running", config=config, taken_up=done is not None and done.status == "running",
        versions=versions(packages), git_commit=_git_commit(), started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    run_dir.write_record(record)
    try:
        work(record)
        record.status = "finished"
    except Exception as e:
        if raises and done is None and isinstance(e, InputError):
            run_dir.release()  # else the command with the mistake corrected would be refused as another config's
            raise
        record.status = "failed"
        record.error = {"type": type(e).__name__, "message": str(e), "traceback": traceback.format_exc()}
        if raises:
            raise
    finally:
        if record.status != "running":  # an interrupted run stays "running": it is taken up again
            run_dir.write_record(record)
    return record


def set_threads(threads: int) -> None:
    """Bound the threads of torch and of the BLAS and OpenMP pools of this process."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of python and of these packages."""
    return {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}}


def _git_commit() -> str | None:
    done = subprocess.run(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
