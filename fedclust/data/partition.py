"""Partitioners: every sample of a data set goes to exactly one client."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from fedclust.data.deal import Deal, apportion
from fedclust.data.settings import Settings
from graphclust.graph import InputError

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class Cut(Settings):
    """What every partitioner has: how a client's own samples are split.

    Parameters
    ----------
    test, validation : shares of a client's samples; each client has at least one training and one test sample
    """

    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    validation: Share = 0.1


class Iid(Cut):
    """Equal parts at random (McMahan et al. 2017, arXiv 1602.05629, section 3)."""

    kind: Literal["iid"] = "iid"


class Dirichlet(Cut):
    """Label skew by Dirichlet distributions.

    Parameters
    ----------
    concentration : small: few classes a client; large: iid
    per : "total": the number is the sum of the Dirichlet's parameters; "per_class": the mean of them (per client with
        over="clients")
    over : "classes": each client in turn draws q ~ Dir(A p), p the class shares of the samples still there, and takes
        its equal part accordingly (Hsu et al. 2019, arXiv 1909.06335, without replacement, as FedRC's scripts do; the
        last clients get what is left); "clients": each class is divided over the clients by a draw from Dir, so that
        the sizes are skewed too (Yurochkin et al. 2019, arXiv 1905.12022)
    """

    kind: Literal["dirichlet"] = "dirichlet"
    concentration: Positive = 3.0
    per: Literal["total", "per_class"] = "total"
    over: Literal["classes", "clients"] = "classes"


class Shards(Cut):
    """Samples sorted by label, cut into equal shards, ``per_client`` of them each (arXiv 1602.05629, section 3)."""

    kind: Literal["shards"] = "shards"
    per_client: PositiveInt = 2


class Quantity(Cut):
    """Labels iid, sizes skewed.

    Parameters
    ----------
    concentration : sizes in the shares of a draw from Dir(concentration, ..., concentration) over the clients
        (Li et al. 2022, arXiv 2102.02079, quantity skew)
    minimum : samples that each client has before the rest is divided by that draw
    ratios : instead of a draw: one relative size a size class, dealt by ``deal``
    """

    kind: Literal["quantity"] = "quantity"
    concentration: Positive = 1.0
    ratios: tuple[Positive, ...] | None = None
    deal: Deal = Deal()
    minimum: PositiveInt = 5


Cutter = Iid | Dirichlet | Shards | Quantity


def cut(
    rule: Cutter, y: np.ndarray, n_clients: int, rng: np.random.Generator, sizes: list[int] | None = None
) -> list[np.ndarray]:
    """Indices (into ``y``) of each client; together 0..n-1, each once.

    Parameters
    ----------
    y : labels (n,) int
    sizes : the clients' size classes, for Quantity with ratios

    Raises
    ------
    InputError
        More clients, or shards, than samples.
    """
    least = {Shards: "per_client", Quantity: "minimum"}.get(type(rule))
    need = n_clients * (getattr(rule, least) if least else 1)
    if need > len(y):
        each = f" with {least} = {getattr(rule, least)}" if least else ""
        raise InputError(
            f"n_clients = {n_clients}{each} needs {need} samples and there are {len(y)}; take fewer clients"
        )
    if isinstance(rule, Dirichlet) and rule.over == "clients":
        return _classes_over_clients(rule, y, n_clients, rng)
    if isinstance(rule, Dirichlet):
        return _dirichlet_labels(rule, y, n_clients, rng)
    if isinstance(rule, Shards):
        return _shards(y, n_clients, rule.per_client, rng)
    order = rng.permutation(len(y))
    if isinstance(rule, Iid):
        return np.array_split(order, n_clients)
    if rule.ratios is not None:
        ratios = np.array(rule.ratios)[sizes]
        return _pieces(order, apportion(ratios / ratios.sum(), len(y)))
    shares = rng.dirichlet(np.full(n_clients, rule.concentration))
    return _pieces(order, rule.minimum + apportion(shares, len(y) - n_clients * rule.minimum))


def _pieces(order: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    return np.split(order, np.cumsum(sizes)[:-1])


def _dirichlet_labels(rule: Dirichlet, y: np.ndarray, n_clients: int, rng: np.random.Generator) -> list[np.ndarray]:
    """q_i ~ Dir(A p_remaining), samples taken without replacement until the client has its part."""
    classes, counts = np.unique(y, return_counts=True)
    total = rule.concentration * (len(classes) if rule.per == "per_class" else 1)
    stock = [rng.permutation(np.flatnonzero(y == c)) for c in classes]
    left = counts.copy()
    parts = []
    for size in apportion(np.full(n_clients, 1 / n_clients), len(y)):
        q = np.zeros(len(classes))
        q[left > 0] = rng.dirichlet(total * left[left > 0] / left.sum())
        taken = _within(size, q, left, rng)
        parts.append(rng.permutation(np.concatenate([s[f - k:f] for s, f, k in zip(stock, left, taken, strict=True)])))
        left = left - taken
    return parts


def _within(size: int, q: np.ndarray, left: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Class counts that sum to ``size`` <= sum(left), drawn by q, no class above what is left of it."""
    taken = np.zeros_like(left)
    while (missing := size - taken.sum()) > 0:
        room = left - taken
        p = np.where(room > 0, q, 0)
        if p.sum() <= 0:  # all classes that q likes are used up: by what is left
            p = room
        taken += np.minimum(rng.multinomial(missing, p / p.sum()), room)
    return taken


def _classes_over_clients(
    rule: Dirichlet, y: np.ndarray, n_clients: int, rng: np.random.Generator
) -> list[np.ndarray]:
    a = rule.concentration / (n_clients if rule.per == "total" else 1)
    parts: list[list[np.ndarray]] = [[] for _ in range(n_clients)]
    for c in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == c))
        shares = rng.dirichlet(np.full(n_clients, a))
        for part, piece in zip(parts, _pieces(members, apportion(shares, len(members))), strict=True):
            part.append(piece)
    return [rng.permutation(np.concatenate(part)) for part in parts]


def _shards(y: np.ndarray, n_clients: int, per_client: int, rng: np.random.Generator) -> list[np.ndarray]:
    order = rng.permutation(len(y))
    order = order[np.argsort(y[order], kind="stable")]
    shards = np.array_split(order, n_clients * per_client)
    dealt = rng.permutation(len(shards)).reshape(n_clients, per_client)
    return [np.concatenate([shards[s] for s in mine]) for mine in dealt]
