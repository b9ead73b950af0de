"""Flower's ServerApp: run config to strategy; thin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedclust.run_config import config_text, jobs
from fedclust.state import FederationResult
from fedclust.strategy import ClusteredStrategy
from graphclust.graph import InputError
from graphclust.monitor import Monitor


def server_app(
    finished: Callable[[int, FederationResult], None] | None = None, *, checkpoint: Path | None = None,
    monitor: Monitor | None = None,
) -> ServerApp:
    """The ServerApp that runs every federation of the run config, one after the other.

    The run config holds ``config`` (see :mod:`fedclust.run_config`), ``clients`` (how many to wait for, newcomers
    included) and ``folder`` (where the results go as ``result-<job>.safetensors``; empty: nowhere).

    Parameters
    ----------
    finished : called with the number of the job and its result
    checkpoint : file to go on from, for a run of a single federation
    monitor : watches the rounds
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        expected, folder = int(context.run_config.get("clients", 0)), str(context.run_config.get("folder", ""))
        if expected < 1:
            raise InputError(f"clients = {expected} of the run config; give the number of clients to wait for")
        for job, config in enumerate(jobs(config_text(context.run_config))):
            strategy = ClusteredStrategy(config, expected, checkpoint=checkpoint, monitor=monitor, job=job)
            result = strategy.start(grid)
            if folder:
                result.save(Path(folder) / f"result-{job}.safetensors")
            if finished:
                finished(job, result)

    return app


app = server_app()
