"""What a deployed run shows and leaves: its log, and the folder that a simulation leaves, for report and newcomers."""

from __future__ import annotations

import logging
from pathlib import Path

from fedclust.config import FederationConfig
from fedclust.models import Model
from fedclust.record import PACKAGES, FederationRecord, conclude
from fedclust.state import FederationResult
from fedclust.trained import TrainedFederation
from graphclust.runs.lifecycle import carry_out
from graphclust.runs.store import RunDir


def speak() -> None:
    """Let the log of this package, a line for every round, be part of the run's log, which `deploy run` shows."""
    log = logging.getLogger("fedclust")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)


def run_folder(folder: Path, job: int) -> RunDir[FederationRecord]:
    """``run-<job>`` in the run's folder: record, tables, and in ``model/`` the models that `fedclust assign` takes."""
    return RunDir(folder / f"run-{job}", FederationRecord)


def keep_artefacts(
    run_dir: RunDir[FederationRecord], config: FederationConfig, model: Model, result: FederationResult
) -> None:
    """Fill the run's folder from its result; what would be the true groups nobody knows.

    Raises
    ------
    InputError
        A folder with another config's run.
    """
    def work(record: FederationRecord) -> None:
        record.timings["fit"] = result.seconds
        conclude(record, run_dir, result, {}, deployed=True)
        TrainedFederation(config.algorithm, config.make(), model, result.state, config.seed).save(
            run_dir.path / "model")

    carry_out(config, run_dir, work, packages=PACKAGES, raises=True)
