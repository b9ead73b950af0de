"""The labelled samples that a federation is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from graphclust.graph import InputError


@dataclass(frozen=True)
class Samples:
    """A labelled data set.

    ``x`` (n, channels, height, width) float32 in [0, 1], or (n, d) float32; ``y`` (n,) int64 in 0..n_classes-1;
    ``domain`` (n,) int64: which of the source's domains a sample is from, zeros for a source of one domain.
    """

    x: np.ndarray
    y: np.ndarray
    domain: np.ndarray
    n_classes: int

    @property
    def n_domains(self) -> int:
        """Number of domains."""
        return int(self.domain.max()) + 1


def load_samples(source: str) -> Samples:
    """The samples of ``source``.

    Raises
    ------
    InputError
        Unknown name.
    """
    if source == "digits":
        return _digits()
    raise InputError(f"unknown source {source!r}; known: digits")


@lru_cache(maxsize=1)
def _digits() -> Samples:
    """scikit-learn's 1,797 digits of 8x8, pixels divided by 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images[:, None] / 16).astype(np.float32)
    return Samples(x, bunch.target.astype(np.int64), np.zeros(len(x), np.int64), 10)
