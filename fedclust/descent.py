"""Gradient descent of one model, or of many side by side, each on its own batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedclust.models import Params

Batch = tuple[Tensor, Tensor | None]
"""Samples (b,) of one client; or (J, b) of the clients of the first J jobs, padded, and which of them are real."""
Gradient = Callable[[Params, Tensor, Tensor | None], Params]


AHEAD = 64
"""Steps whose batches are laid out at once."""


@dataclass(frozen=True)
class Rule:
    """The step of SGD, or of Adam."""

    lr: float
    weight_decay: float
    prox: float
    inner_lr: float
    adam: bool = False

    def step_(self, p: Tensor, gradient: Tensor, start: Tensor, moments: Moments | None) -> None:
        """theta <- theta - lr grad(l + (wd/2) |theta|^2 + (mu/2) |theta - theta_0|^2), in place."""
        if self.weight_decay:
            gradient = gradient.add(p, alpha=self.weight_decay)
        if self.prox:
            gradient = gradient.add(p - start, alpha=self.prox)
        if moments is not None:
            gradient = moments.direction(gradient)
        p.sub_(gradient, alpha=self.lr)


class Moments:
    """Adam's m and v of one parameter (Kingma and Ba, arXiv 1412.6980, algorithm 1, with its defaults)."""

    def __init__(self, p: Tensor) -> None:
        self._m, self._v, self._t = torch.zeros_like(p), torch.zeros_like(p), 0

    def direction(self, gradient: Tensor) -> Tensor:
        """m_hat / (sqrt(v_hat) + eps), m and v moved by the gradient of all jobs or of the first ones."""
        self._t += 1
        m, v = self._m[: len(gradient)], self._v[: len(gradient)]
        m.lerp_(gradient, 0.1)
        v.lerp_(gradient.square(), 0.001)
        return (m / (1 - 0.9**self._t)) / ((v / (1 - 0.999**self._t)).sqrt_().add_(1e-8))


def descend(params: Params, batches: Iterable[Batch], gradient: Gradient, rule: Rule) -> Params:
    """SGD or Adam from ``params``, of one model or of J side by side; jobs without a batch left are the last ones."""
    own = {name: p.clone() for name, p in params.items()}
    moments = {name: Moments(p) for name, p in own.items()} if rule.adam else {}
    live, jobs = own, len(next(iter(own.values())))
    for index, real in batches:
        if real is not None and index.shape[0] < jobs:
            jobs = index.shape[0]
            live = {name: p[:jobs] for name, p in own.items()}
        here = live
        if rule.inner_lr:
            (index, real), inner = _halves(index, real)
            found = gradient(live, *inner)
            here = {name: p.sub(found[name], alpha=rule.inner_lr) for name, p in live.items()}
        found = gradient(here, index, real)
        for name, p in live.items():
            start = params[name] if real is None else params[name][:jobs]
            rule.step_(p, found[name], start, moments.get(name))
    return own


def _halves(index: Tensor, real: Tensor | None) -> tuple[Batch, Batch]:
    """A batch cut in two; of an odd number the first half has one sample more."""
    if real is None:
        first, second = index.tensor_split(2)
        return (first, None), (second, None)
    early = real.cumsum(1) <= (real.sum(1, keepdim=True) + 1) // 2
    return (index, real & early), (index, real & ~early)


def side_by_side(
    orders: Sequence[Sequence[Tensor]], size: int, width: int, copies: int, device: torch.device
) -> Iterator[Batch]:
    """Step by step the batches of many clients.

    Parameters
    ----------
    orders : of every client the permutations of its samples, one an epoch; clients with more steps first
    size : of a batch; the last of an epoch may be short
    width : b, to which batches are padded
    copies : jobs of each client, which see the same batches

    Yields
    ------
    (J, b) samples of the jobs that have a batch left, and which of them are real
    """
    if len(orders) == 1:  # what is laid out below is for unlike clients, and takes one alone as long as a step
        yield from _alone(orders[0], size, width, copies, device)
        return
    n = torch.tensor([of[0].shape[0] for of in orders])
    epochs, a_epoch = len(orders[0]), -(-n // size)
    flat = torch.cat([order for of in orders for order in of])
    begin = torch.cat([n.new_zeros(1), (n * epochs).cumsum(0)[:-1]])
    within = torch.arange(width)
    left = (a_epoch * epochs).tolist()
    for first in range(0, left[0], AHEAD):
        step = torch.arange(first, min(left[0], first + AHEAD))[:, None]
        position = (step % a_epoch * size)[..., None] + within  # (steps, clients, width)
        real = (position < n[:, None]) & (within < size)
        # where a client has no step left, or a batch no sample, the place does not matter
        place = (begin + step // a_epoch * n)[..., None] + position
        index = flat[place.clamp_max(len(flat) - 1)].where(real, 0)
        if copies > 1:
            index, real = index.repeat_interleave(copies, 1), real.repeat_interleave(copies, 1)
        index, real = index.to(device), real.to(device)
        for i in range(len(step)):
            live = copies * sum(total > first + i for total in left)
            yield index[i, :live], real[i, :live]


def _alone(orders: Sequence[Tensor], size: int, width: int, copies: int, device: torch.device) -> Iterator[Batch]:
    """The batches of one client, padded as among others."""
    within = torch.arange(width)
    for order in orders:
        for batch in order.split(size) if order.shape[0] else ():
            index = torch.nn.functional.pad(batch, (0, width - batch.shape[0]))
            real = within < batch.shape[0]
            yield index.expand(copies, width).to(device), real.expand(copies, width).to(device)
