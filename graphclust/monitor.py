"""What a caller may watch while a method fits. Information flows outward only: a method calls, nothing comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np


class Monitor(Protocol):
    """The runner, the progress bar and the checkpoint folder, as a method sees them."""

    checkpoint: Path | None
    """A file the training loop may write its state to and resume from; None: do not checkpoint."""

    def start(self, total: int, what: str) -> None:
        """A phase of ``total`` steps begins (``what``: "pre-training", "training", ...)."""

    def step(self, step: int, values: dict[str, float], labels: Callable[[], np.ndarray] | None = None) -> None:
        """Step ``step`` of the phase is done, with its loss values; ``labels()`` gives the partition as it stands."""


class Silent:
    """A monitor that watches nothing: what ``fit`` uses when it is given none."""

    checkpoint: Path | None = None

    def start(self, total: int, what: str) -> None:
        """Ignore the phase."""

    def step(self, step: int, values: dict[str, float], labels: Callable[[], np.ndarray] | None = None) -> None:
        """Ignore the step."""
