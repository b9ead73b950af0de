"""Engines: what carries the messages between a ServerApp and its ClientApps."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast, get_args

from fedclust.config import Engine, FederationConfig
from fedclust.flwr_compat import apply_environment
from fedclust.state import FederationResult
from graphclust.graph import InputError
from graphclust.monitor import Monitor


class Simulate(Protocol):
    """How every engine is called."""

    def __call__(
        self, config: FederationConfig, *, checkpoint: Path | None = None, monitor: Monitor | None = None
    ) -> FederationResult:
        """Run one federation.

        Parameters
        ----------
        config : what to run
        checkpoint : file that is replaced after every round, and gone on from when it is there, where the engine can;
            None: keep none
        monitor : watches the rounds

        Raises
        ------
        InputError
            What does not fit together, before the first round.
        RunStopped
            Too few usable replies; a process of the engine that ended.
        """


def get_engine(name: str) -> Simulate:
    """The engine called ``name``; InputError when there is none. Flower is imported here, in its environment."""
    if name not in get_args(Engine):
        raise InputError(f"unknown engine {name!r}; the engines are: {', '.join(get_args(Engine))}")
    apply_environment()
    return cast(Simulate, importlib.import_module(f"{__name__}.{name}").simulate)
