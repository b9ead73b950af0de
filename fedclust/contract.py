"""What a report promises: its form, and of its arrays, beside being finite, that they can be what they stand for.

The form follows from what a client was sent, so every reply is judged by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphclust.graph import InputError

SLACK = 1e-3
"""Of a sum of 1: what float32 may lose in a mean over many samples, and no more than averages can bear."""


@dataclass(frozen=True)
class Form:
    """What a reply holds: ``models``, how many, each with the parameters of those that were sent; ``arrays``, the shape
    of each by name, of float32, or int64 where :data:`PROMISES` says so."""

    models: int
    arrays: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What is known of the clients of some stacked reports.

    ``sent`` (S,): models that each was sent; ``n`` (S,): its training samples; ``starts``: of the algorithm, side by
    side; ``exact``: label counts leave the clients without noise.
    """

    sent: Tensor
    n: Tensor
    starts: int = 1
    exact: bool = True


def mixtures(t: Tensor, starts: int = 1) -> Tensor:
    """(S,) shares >= 0 that sum to 1 in each of ``starts`` equal parts of the row."""
    if t.dim() != 2 or t.shape[1] % starts:
        return torch.zeros(len(t), dtype=torch.bool)
    sums = t.unflatten(1, (starts, -1)).sum(2)
    return (t >= 0).all(1) & ((sums - 1).abs() <= SLACK).all(1)


def _groups(t: Tensor, asked: Asked) -> Tensor:
    """(S,) the number of a model that was sent, of each start."""
    each = t.reshape(len(t), -1)
    return ((each >= 0) & (each < asked.sent[:, None] // asked.starts)).all(1)


def _counts(t: Tensor, asked: Asked) -> Tensor:
    """(S,) numbers >= 0; without noise they are n_i in all, in every start."""
    each = t.flatten(1)
    total = asked.starts * asked.n
    return (each >= 0).all(1) & ((each.sum(1) - total).abs() <= SLACK * total if asked.exact else True)


@dataclass(frozen=True)
class Promise:
    """What the array of a name promises.

    ``shape``: from the models that its client was sent, the classes and the starts; ``kept``: (S,) which of stacked
    arrays keep to it, None: any finite numbers will do; ``otherwise``: what is wrong with one that does not;
    ``trial``: it is sent only while several starts run.
    """

    shape: Callable[[int, int, int], tuple[int, ...]]
    kept: Callable[[Tensor, Asked], Tensor] | None = None
    otherwise: str = ""
    dtype: torch.dtype = torch.float32
    trial: bool = False


PROMISES = {
    "weights": Promise(lambda k, c, s: (k,), lambda t, _: mixtures(t), "is no mixture: shares >= 0 that sum to 1"),
    "omega": Promise(lambda k, c, s: (k,), lambda t, asked: mixtures(t, asked.starts),
                     "is no mixture: shares >= 0 that sum to 1 in every start", trial=True),
    "group": Promise(lambda k, c, s: (s,) if s > 1 else (), _groups, "is not the number of a model that was sent",
                     dtype=torch.long),
    "counts": Promise(lambda k, c, s: (k, c), _counts, "are no label counts of all its samples"),
    "labels": Promise(lambda k, c, s: (c,), _counts, "are no label counts of all its samples"),
    "accuracy": Promise(lambda k, c, s: (k,), lambda t, _: ((t >= 0) & (t <= 1)).flatten(1).all(1),
                        "lies outside 0..1"),
    "likelihood": Promise(lambda k, c, s: (s,), trial=True),
    "losses": Promise(lambda k, c, s: (k,)),
}
"""By the array's name."""


def shapes(names: Iterable[str], sent: int, n_classes: int, starts: int = 1) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of these names, of a client that was sent so many models; in a trial, of all starts.

    Raises
    ------
    InputError
        A name that is not in :data:`PROMISES`.
    """
    names = tuple(names)
    for name in names:
        if name not in PROMISES:
            raise InputError(f"extras: nothing is known about the shape of array {name!r}; an algorithm with arrays of "
                             f"its own says in reply() what a reply holds, or takes names of {', '.join(PROMISES)}")
    return {name: PROMISES[name].shape(sent, n_classes, starts) for name in names
            if starts > 1 or not PROMISES[name].trial}


def dtype_of(name: str) -> torch.dtype:
    """What the array of this name holds."""
    return PROMISES[name].dtype if name in PROMISES else torch.float32


def broken(arrays: Mapping[str, Tensor], sent: Tensor, n: Tensor, *, exact: bool) -> dict[int, str]:
    """The clients whose stacked arrays (S, ...), of the form that was asked for, break a promise, by position, and how.

    Parameters
    ----------
    sent, n : (S,) models that each client was sent, and its training samples
    exact : label counts leave the clients without noise
    """
    starts = arrays["likelihood"].shape[-1] if "likelihood" in arrays else 1
    asked, found = Asked(sent, n, starts, exact), dict[int, str]()
    for name, t in arrays.items():
        promise = PROMISES.get(name)
        if promise is not None and promise.kept is not None:
            found |= {i: f"{name} {promise.otherwise}" for i in (~promise.kept(t, asked)).nonzero()[:, 0].tolist()}
    return found
