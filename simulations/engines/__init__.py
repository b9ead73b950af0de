"""Engines: what carries the messages between a ServerApp and its ClientApps."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fedclust.config import Engine, FederationConfig
from fedclust.state import FederationResult
from graphclust.monitor import Monitor


class RunFederation(Protocol):
    """Runs a federation to its end, going on from ``checkpoint`` when it is there."""

    def __call__(
        self, config: FederationConfig, *, checkpoint: Path | None = None, monitor: Monitor | None = None
    ) -> FederationResult:
        """Run it."""


def get_engine(name: Engine) -> RunFederation:
    """The engine called ``name``; Ray is looked for only when it is asked for."""
    if name == "ray":
        from simulations.engines.ray import simulate
    else:
        from simulations.engines.inprocess import simulate
    return simulate
