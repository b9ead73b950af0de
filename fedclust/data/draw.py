"""Clients that draw their samples from a common pool, each for itself: adding a client changes no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from fedclust.data.deal import Deal, apportion
from fedclust.data.feature import translate
from fedclust.data.settings import Settings, stream
from fedclust.data.sources import Samples
from graphclust.graph import InputError


class LabelShift(Settings):
    """The label distribution of a client, q ~ Dirichlet(A w): w the class weights (summing to 1), A the concentration.

    Parameters
    ----------
    concentration : a positive number; None: no randomness, q = w
    per : "total": the number given is A, the sum of the Dirichlet's C parameters; "per_class": it is A / C
    groups : class weights of each label group, C numbers >= 0 each; None: one group with equal weights
    deal : how the groups go to the clients
    """

    concentration: Annotated[float, Field(gt=0)] | None = None
    per: Literal["total", "per_class"] = "total"
    groups: tuple[tuple[Annotated[float, Field(ge=0)], ...], ...] | None = None
    deal: Deal = Deal()

    def total(self, n_classes: int) -> float | None:
        """A, or None."""
        if self.concentration is None or self.per == "total":
            return self.concentration
        return self.concentration * n_classes

    def weights(self, n_classes: int) -> np.ndarray:
        """(groups, C), rows summing to 1; InputError for a group of another length or without weight."""
        if self.groups is None:
            return np.full((1, n_classes), 1 / n_classes)
        for g in self.groups:
            if len(g) != n_classes or sum(g) <= 0:
                raise InputError(f"label group {g}: give {n_classes} class weights >= 0, not all 0")
        rows = np.array(self.groups, dtype=np.float64)
        return rows / rows.sum(axis=1, keepdims=True)


class Bootstrap(Settings):
    """Drawing with replacement, the drawn images then moved and made noisy so that no two are the same.

    Parameters
    ----------
    pixel_shift : images move by -pixel_shift..pixel_shift pixels
    axes : "horizontal", or "both", each by its own draw
    noise : standard deviation of the Gaussian noise added, on the scale [0, 1]
    varied : "all" images, or those to "train" on; the others then stay as they are in the source
    """

    pixel_shift: NonNegativeInt = 1
    axes: Literal["horizontal", "both"] = "horizontal"
    noise: Annotated[float, Field(ge=0)] = 0.05
    varied: Literal["all", "train"] = "all"


class Draw(Settings):
    """Every client draws its own samples from the source, by its own stream of randomness.

    The source is first cut, class by class, into three pools without a common sample: training samples are drawn from
    the first, validation samples and the newcomers' labelled support from the second, test samples from the third. So
    no test image was ever seen in training, by any client; two clients may hold the same training image.

    Parameters
    ----------
    train, test, validation : samples a client; several numbers: size classes, dealt by ``sizes``
    labels : the clients' label distributions
    bootstrap : draw with replacement and vary; None: without replacement within a client, unchanged
    pools : shares of the three pools
    centred : the pixels of images lie in [-1/2, 1/2] and not in [0, 1], which small models learn from faster
    """

    kind: Literal["draw"] = "draw"
    train: tuple[PositiveInt, ...] = (200,)
    test: tuple[PositiveInt, ...] = (60,)
    validation: tuple[NonNegativeInt, ...] = (40,)
    sizes: Deal = Deal(how="blocks")
    labels: LabelShift = LabelShift()
    bootstrap: Bootstrap | None = Bootstrap()
    pools: tuple[float, float, float] = (0.5, 0.25, 0.25)
    centred: bool = False

    @model_validator(mode="after")
    def _check(self) -> Draw:
        if min(self.pools) <= 0 or abs(sum(self.pools) - 1) > 1e-6:
            raise InputError(f"pools = {self.pools}; three positive shares that sum to 1 (train, validation, test)")
        lengths = {len(self.train), len(self.test), len(self.validation)} - {1}
        if len(lengths) > 1:
            raise InputError(
                f"train = {self.train}, test = {self.test}, validation = {self.validation}: give one number each, or "
                "one a size class"
            )
        return self

    def n_samples(self, size_class: int) -> dict[str, int]:
        """Samples of each split for a client of that size class."""
        splits = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: n[size_class if len(n) > 1 else 0] for name, n in splits.items()}

    @property
    def n_sizes(self) -> int:
        """Number of size classes."""
        return max(len(self.train), len(self.test), len(self.validation))


@dataclass(frozen=True)
class Pools:
    """For every split and class the indices of the source's samples to draw from."""

    train: list[np.ndarray]
    validation: list[np.ndarray]
    test: list[np.ndarray]

    @property
    def all(self) -> list[np.ndarray]:
        """The classes of all three pools."""
        return self.train + self.validation + self.test


def cut_pools(samples: Samples, domain: int, shares: tuple[float, float, float], seed: int) -> Pools:
    """Cut the samples of one domain, class by class, into pools with no common sample."""
    cuts = []
    for c in range(samples.n_classes):
        members = np.flatnonzero((samples.y == c) & (samples.domain == domain))
        members = stream(seed, "pools", domain, c).permutation(members)
        cuts.append(np.split(members, np.cumsum(apportion(np.array(shares), len(members)))[:2]))
    train, validation, test = (list(part) for part in zip(*cuts, strict=True))
    return Pools(train, validation, test)


def label_distribution(labels: LabelShift, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """q ~ Dirichlet(A w) over the C classes, or w itself where there is no concentration."""
    total = labels.total(len(weights))
    q = weights.copy()
    if total is not None:
        q[weights > 0] = rng.dirichlet(total * weights[weights > 0])
    return q


def draw_counts(
    pool: list[np.ndarray], q: np.ndarray, n: int, *, random_counts: bool, replace: bool, client: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Of each class how many (C,) of ``n`` samples: multinomial(n, q), or exactly n q rounded.

    Raises
    ------
    InputError
        A class without samples in the pool, or with too few to draw without replacement.
    """
    counts = rng.multinomial(n, q) if random_counts else apportion(q, n)
    for c, k in enumerate(counts):
        if k and not (len(pool[c]) if replace else len(pool[c]) >= k):
            raise InputError(
                f"client {client!r} needs {k} samples of class {c} and the pool has {len(pool[c])}; ask for fewer "
                "samples, give the pool a larger share, or draw with bootstrap"
            )
    return counts


def draw_indices(
    pool: list[np.ndarray], q: np.ndarray, n: int, *, random_counts: bool, replace: bool, client: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """``n`` indices from a pool, of each class as many as :func:`draw_counts` says; InputError as there."""
    counts = draw_counts(pool, q, n, random_counts=random_counts, replace=replace, client=client, rng=rng)
    chosen = [rng.choice(pool[c], k, replace=replace) if k else pool[c][:0] for c, k in enumerate(counts)]
    return rng.permutation(np.concatenate(chosen))


def vary(x: np.ndarray, bootstrap: Bootstrap, rng: np.random.Generator) -> np.ndarray:
    """Move and add noise to drawn samples; vectors are not moved, images are clipped to [0, 1]."""
    images = x.ndim == 4
    if images and bootstrap.pixel_shift:
        x = translate(x, bootstrap.pixel_shift, rng, vertical=bootstrap.axes == "both")
    varied = rng.normal(0, bootstrap.noise, x.shape)
    varied += x
    return (np.clip(varied, 0, 1, out=varied) if images else varied).astype(np.float32)
