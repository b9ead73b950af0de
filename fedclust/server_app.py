"""Flower's ServerApp: run config to strategy; thin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedclust.config import FederationConfig
from fedclust.deploy.grid import PromptGrid
from fedclust.flwr_compat import is_deployed
from fedclust.rounds import RunStopped
from fedclust.run_config import config_text, jobs
from fedclust.state import FederationResult
from fedclust.strategy import ClusteredStrategy
from graphclust.atomic import write_atomic
from graphclust.graph import InputError
from graphclust.monitor import Monitor


def server_app(
    finished: Callable[[int, FederationResult], None] | None = None, *, checkpoint: Path | None = None,
    monitor: Monitor | None = None, around: Callable[[FederationConfig, Grid], Grid] = lambda config, grid: grid,
) -> ServerApp:
    """The ServerApp that runs every federation of the run config, one after the other.

    The run config holds ``config`` (see :mod:`fedclust.run_config`), ``clients`` (how many to wait for, newcomers
    included) and ``folder``: there the results go as ``result-<job>.safetensors``, until then the checkpoints as
    ``checkpoint-<job>.safetensors``, and what stopped the run as ``error.json``; empty: nowhere. A run that is given
    the folder of an interrupted one goes on after its last finished round, and leaves finished federations as they are.
    A deployed one leaves ``run-<job>`` too (:mod:`fedclust.deploy.artefacts`).

    Parameters
    ----------
    finished : called with the number of the job and its result
    checkpoint : file to go on from, for a run of a single federation
    monitor : watches the rounds
    around : the Grid of a federation in place of the one that Flower gives; a simulation puts its events there
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        named = str(context.run_config.get("folder", ""))
        folder = Path(named) if named else None
        if folder:
            (folder / "error.json").unlink(missing_ok=True)
        try:
            grid = PromptGrid(grid) if is_deployed(grid) else grid
            expected = int(context.run_config.get("clients", 0))
            if expected < 1:
                raise InputError(f"clients = {expected} of the run config; give the number of clients to wait for")
            for job, config in enumerate(jobs(config_text(context.run_config))):
                file = folder / f"checkpoint-{job}.safetensors" if folder else checkpoint
                result = _finished(folder, job, config)
                if result is None:
                    strategy = ClusteredStrategy(config, expected, checkpoint=file, monitor=monitor, job=job)
                    place = folder if isinstance(grid, PromptGrid) else None
                    own = around(config, grid)
                    result = _start(strategy, own, place, job) if place else strategy.start(own)
                    if folder and file:
                        result.save(folder / f"result-{job}.safetensors")
                        file.unlink()
                if finished:
                    finished(job, result)
        except (InputError, RunStopped) as e:
            if folder:
                write_atomic(folder / "error.json", json.dumps({"type": type(e).__name__, "message": str(e)}))
            raise

    return app


def _start(strategy: ClusteredStrategy, grid: Grid, folder: Path, job: int) -> FederationResult:
    """Run a deployed federation and leave its artefacts."""
    # long to import, and clients import this module
    from fedclust.deploy.artefacts import keep_artefacts, run_folder, speak

    speak()
    run_dir = run_folder(folder, job)
    run_dir.open(strategy.config)
    result = strategy.start(grid)
    keep_artefacts(run_dir, strategy.config, strategy.model, result)
    return result


def _finished(folder: Path | None, job: int, config: FederationConfig) -> FederationResult | None:
    """The result that an earlier run left in the folder; None when there is none of this config."""
    file = folder / f"result-{job}.safetensors" if folder else None
    if file is None or not file.exists():
        return None
    held = FederationResult.load(file)
    same = FederationConfig.model_validate(held.config).fingerprint() == config.fingerprint()
    return held if same else None


app = server_app()
