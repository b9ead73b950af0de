"""The labelled samples that a federation is made of."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedclust.data.deal import apportion
from fedclust.data.folder import as_float, read_samples
from fedclust.data.images import load_images
from fedclust.data.settings import stream
from graphclust.graph import InputError


@dataclass(frozen=True)
class Samples:
    """A labelled data set.

    ``x`` (n, channels, height, width) uint8, or float32 in [0, 1], or (n, d) float32; ``y`` (n,) int64 in
    0..n_classes-1; ``domain`` (n,) int64: which of the source's domains a sample is from, zeros for a source of one.
    """

    x: np.ndarray
    y: np.ndarray
    domain: np.ndarray
    n_classes: int

    @property
    def n_domains(self) -> int:
        """Number of domains."""
        return int(self.domain.max()) + 1

    def take(self, index: np.ndarray) -> np.ndarray:
        """Features of the samples ``index`` as float32; bytes become [0, 1]."""
        return as_float(self.x[index])

    def subset(self, n: int, seed: int) -> Samples:
        """At most ``n`` samples, of each class and domain its share."""
        if n >= len(self.y):
            return self
        kinds = self.domain * self.n_classes + self.y
        values, counts = np.unique(kinds, return_counts=True)
        wanted = apportion(counts / counts.sum(), n)
        rng = stream(seed, "subset")
        kept = [rng.choice(np.flatnonzero(kinds == v), k, replace=False) for v, k in zip(values, wanted, strict=True)]
        index = np.sort(np.concatenate(kept))
        return Samples(self.x[index], self.y[index], self.domain[index], self.n_classes)


def load_samples(source: str) -> Samples:
    """The samples of ``source``: a name of :data:`SOURCES`, or a path that :func:`read_samples` takes.

    Raises
    ------
    InputError
        Unknown name, missing or broken file, labels that are no integers >= 0.
    """
    if source in SOURCES:
        return SOURCES[source]()
    path = Path(source).expanduser()
    if path.suffix in (".npz", ".csv") or path.exists():
        x, y = read_samples(path)
        return Samples(x, y, np.zeros(len(y), np.int64), int(y.max()) + 1)
    near = difflib.get_close_matches(source, SOURCES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise InputError(f"unknown source {source!r}{hint} Known: {', '.join(SOURCES)}; or the path of an .npz or .csv")


@lru_cache(maxsize=1)
def _digits() -> Samples:
    """scikit-learn's 1,797 digits of 8x8, pixels divided by 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images[:, None] / 16).astype(np.float32)
    return Samples(x, bunch.target.astype(np.int64), np.zeros(len(x), np.int64), 10)


def _images(name: str) -> Samples:
    arrays = load_images(name)
    return Samples(arrays["x"][:, None], arrays["y"].astype(np.int64), np.zeros(len(arrays["y"]), np.int64), 10)


@lru_cache(maxsize=1)
def _fashion() -> Samples:
    return _images("fashion_mnist")


@lru_cache(maxsize=1)
def _mnist() -> Samples:
    return _images("mnist_5k")


def _digits_vs_mnist() -> Samples:
    """Two domains: 0 the digits, 1 MNIST brought to 8x8 as the digits were, means of 4x4 pixels of a 32x32 picture."""
    digits, mnist = _digits(), _mnist()
    x = np.pad(mnist.take(np.arange(len(mnist.y))), ((0, 0), (0, 0), (2, 2), (2, 2)))
    x = x.reshape(len(x), 1, 8, 4, 8, 4).mean(axis=(3, 5))
    return Samples(
        np.concatenate((digits.x, x)), np.concatenate((digits.y, mnist.y)),
        np.repeat([0, 1], [len(digits.y), len(mnist.y)]), 10,
    )


SOURCES: dict[str, Callable[[], Samples]] = {
    "digits": _digits,
    "fashion_mnist": _fashion,
    "mnist_5k": _mnist,
    "digits_vs_mnist": _digits_vs_mnist,
}
