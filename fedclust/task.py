"""What clients compute, free of Flower: pure functions of one client, run over a cohort of them side by side."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.func import vmap

from fedclust.data.client import ClientData, Split
from fedclust.models import Model, Params

# From this many models on, one vmap over all is faster than one autograd.grad after the other (4.8k-parameter MLP).
VMAP_FROM = 8
EVALUATED = ("test", "validation")


class Training(BaseModel):
    """How a client trains in one round."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[int, Field(ge=1)] = 1
    lr: Annotated[float, Field(gt=0)] = 0.1
    batch_size: Annotated[int, Field(ge=1)] = 20
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


def stream(seed: int, *keys: object) -> torch.Generator:
    """A generator that depends on ``seed`` and the names only: not on the machine, the order of calls or other clients."""
    text = "/".join(str(k) for k in (seed, *keys))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)


def cross_entropy(model: Model, params: Params, x: Tensor, y: Tensor, at: Tensor | None, adjacency: Tensor | None) -> Tensor:
    """Per-sample losses l(theta; x, y) (b,); on nodes x holds the features of all nodes and ``at`` (b,) the samples."""
    logits = model.logits(params, x, adjacency)
    return torch.nn.functional.cross_entropy(logits if at is None else logits[at], y, reduction="none")


class Cohort:
    """B >= 1 clients side by side, their data padded to the largest.

    A client's batches and randomness depend on its id and the round alone, never on its neighbours in the cohort.

    Parameters
    ----------
    clients : the clients' data
    model : the architecture that all share
    seed, round : of the federation
    memory : tensors (B, ...) that the clients keep from round to round

    Attributes
    ----------
    n : (B,) number of training samples
    y, mask : (B, n_max) labels, 0 where padded, and which samples are real
    """

    def __init__(
        self, clients: Sequence[ClientData], model: Model, *, seed: int, round: int,
        memory: dict[str, Tensor] | None = None,
    ) -> None:
        self.clients, self.model, self.seed, self.round = tuple(clients), model, seed, round
        self.memory: dict[str, Tensor] = memory if memory is not None else {}
        self.ids = [c.id for c in self.clients]
        self.n = torch.tensor([len(c.train) for c in self.clients])
        self._x, self.y, self.mask = _padded([c.train for c in self.clients])
        on_nodes = model.on_nodes
        self._nodes = _stacked([c.nodes for c in self.clients]) if on_nodes else None
        self._adjacency = _stacked([c.adjacency for c in self.clients], both=True) if on_nodes else None

    def __len__(self) -> int:
        return len(self.clients)

    def train(
        self, params: Params, training: Training, *, sample_weight: Tensor | None = None, prox: float = 0.0,
        key: str = "train",
    ) -> Params:
        """SGD of each model on each client's own batches.

        The loss of a batch is sum_j w_j l_j / |batch|; with ``prox`` mu, (mu/2) |theta - theta_0|^2 is added, theta_0
        being where the training starts (FedProx, arXiv 1812.06127, equation 2).

        Parameters
        ----------
        params : tensors (B, K, ...)
        training : epochs, step size, batch size, weight decay
        sample_weight : (B, K, n_max); None: all 1
        prox : mu
        key : names the stream of batches; the K models of a client see the same batches

        Returns
        -------
        tensors (B, K, ...)
        """
        b, k = next(iter(params.values())).shape[:2]
        batches, valid = self._batches(training, key)
        jobs = {name: p.flatten(0, 1) for name, p in params.items()}
        weight = None if sample_weight is None else sample_weight.flatten(0, 1)
        client = torch.arange(b).repeat_interleave(k)
        if b * k < VMAP_FROM:
            done = [self._descend({n: p[j] for n, p in jobs.items()}, int(client[j]), batches, valid,
                                  None if weight is None else weight[j], training, prox) for j in range(b * k)]
            out = {name: torch.stack([d[name] for d in done]) for name in jobs}
        else:
            out = self._descend_together(jobs, client, batches, valid, weight, training, prox)
        return {name: t.unflatten(0, (b, k)) for name, t in out.items()}

    def _batches(self, training: Training, key: str) -> tuple[Tensor, Tensor]:
        """Indices (B, steps, batch) into the padded samples and which of them count; the last batch may be short."""
        size = min(training.batch_size, int(self.n.max()))
        per_epoch = [math.ceil(int(n) / training.batch_size) for n in self.n]
        steps = training.epochs * max(per_epoch)
        index = torch.zeros(len(self), steps, size, dtype=torch.long)
        valid = torch.zeros(len(self), steps, size, dtype=torch.bool)
        for i, (n, count) in enumerate(zip(self.n.tolist(), per_epoch, strict=True)):
            generator = stream(self.seed, "batches", key, self.ids[i], self.round)
            for epoch in range(training.epochs):
                order = torch.randperm(n, generator=generator)
                padded = torch.zeros(count * training.batch_size, dtype=torch.long)
                padded[:n] = order
                rows = slice(epoch * count, (epoch + 1) * count)
                index[i, rows] = padded.view(count, -1)[:, :size]
                valid[i, rows] = (torch.arange(len(padded)) < n).view(count, -1)[:, :size]
        return index, valid

    def _batch_loss(self, params: Params, x: Tensor, y: Tensor, at: Tensor | None, adjacency: Tensor | None,
                    weight: Tensor) -> Tensor:
        """sum_j w_j l_j; the weights hold the mask and the division by the batch size."""
        return (weight * cross_entropy(self.model, params, x, y, at, adjacency)).sum()

    def _inputs(self, i: int | Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The samples ``index`` of client i: x, y, positions among the nodes, adjacency."""
        if self._nodes is None:
            return self._x[i, index], self.y[i, index], None, None
        assert self._adjacency is not None
        return self._nodes[i], self.y[i, index], self._x[i, index], self._adjacency[i]

    def _descend(self, params: Params, i: int, batches: Tensor, valid: Tensor, weight: Tensor | None,
                 training: Training, prox: float) -> Params:
        """One model on one client."""
        anchor = params
        params = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        leaves = list(params.values())
        for index, real in zip(batches[i], valid[i], strict=True):
            count = int(real.sum())
            if not count:
                continue
            index = index[:count]
            w = torch.full((count,), 1 / count) if weight is None else weight[index] / count
            loss = self._batch_loss(params, *self._inputs(i, index), w)
            gradients = torch.autograd.grad(loss, leaves)
            with torch.no_grad():
                for (name, p), g in zip(params.items(), gradients, strict=True):
                    p.sub_(training.lr * _regularised(g, p, anchor[name], training.weight_decay, prox))
        return {name: p.detach() for name, p in params.items()}

    def _descend_together(self, params: Params, client: Tensor, batches: Tensor, valid: Tensor, weight: Tensor | None,
                          training: Training, prox: float) -> Params:
        """J models at once, model j on client client[j]."""
        anchor = params
        gradient = vmap(torch.func.grad(self._batch_loss), in_dims=(0, *self._axes(), 0))
        for step in range(batches.shape[1]):
            real = valid[:, step]
            count = real.sum(1, keepdim=True)
            w = (real / count.clamp_min(1))[client]
            if weight is not None:
                w = w * weight.gather(1, batches[client, step])
            gradients = gradient(params, *self._all_inputs(client, batches[:, step]), w)
            moves = (count[client, 0] > 0).float()  # a client that has done its steps stays where it is
            params = {
                name: p - training.lr * moves.view(-1, *[1] * (p.dim() - 1))
                * _regularised(gradients[name], p, anchor[name], training.weight_decay, prox)
                for name, p in params.items()
            }
        return {name: p.detach() for name, p in params.items()}

    def _axes(self) -> tuple[int | None, ...]:
        return (0, 0, None, None) if self._nodes is None else (0, 0, 0, 0)

    def _all_inputs(self, client: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """As _inputs, for samples ``index`` (B, b) of the client of every job."""
        rows = client[:, None]
        at = index[client]
        if self._nodes is None:
            return self._x[rows, at], self.y[rows, at], None, None
        assert self._adjacency is not None
        return self._nodes[client], self.y[rows, at], self._x[rows, at], self._adjacency[client]

    @torch.no_grad()
    def losses(self, params: Params) -> Tensor:
        """Cross-entropies (B, K, n_max) of every model on the client's training samples; 0 where padded."""
        k = next(iter(params.values())).shape[1]
        out = torch.zeros(len(self), k, self.mask.shape[1])
        for i in range(len(self)):
            n = int(self.n[i])
            inputs = self._inputs(i, torch.arange(n))
            for j in range(k):
                out[i, j, :n] = cross_entropy(self.model, {name: p[i, j] for name, p in params.items()}, *inputs)
        return out

    @torch.no_grad()
    def probabilities(self, i: int, params: Params, split: Split) -> Tensor:
        """softmax(theta_k(x)) (K, n, C) of client i's models ``params`` (K, ...) on one of its splits."""
        c = self.clients[i]
        k = next(iter(params.values())).shape[0]
        outputs = []
        for j in range(k):
            one = {name: p[j] for name, p in params.items()}
            if self._nodes is None:
                logits = self.model.logits(one, split.x)
            else:
                logits = self.model.logits(one, c.nodes, c.adjacency)[split.x]
            outputs.append(torch.softmax(logits, dim=-1))
        return torch.stack(outputs)

    @torch.no_grad()
    def evaluate(self, params: Params, weights: Tensor, *, hard: bool) -> dict[str, Tensor]:
        """Accuracy and log-loss of the clients' mixtures.

        Soft: sum_k w_k softmax(theta_k(x)), an average of probabilities (FedEM, arXiv 2108.10252, section 3.1); hard:
        the model with the largest weight.

        Parameters
        ----------
        params : tensors (B, K, ...)
        weights : (B, K), rows sum to 1
        hard : take the model with the largest weight only

        Returns
        -------
        (B,) tensors ``accuracy`` and ``loss`` on test, ``accuracy_validation`` and ``loss_validation``; NaN where a
        client has no such samples.
        """
        out = {name: torch.full((len(self),), math.nan) for name in
               ("accuracy", "loss", "accuracy_validation", "loss_validation")}
        for i, c in enumerate(self.clients):
            w = weights[i]
            if hard:
                w = torch.nn.functional.one_hot(w.argmax(), len(w)).float()
            keep = w > 0
            mine = {name: p[i][keep] for name, p in params.items()}
            for split, suffix in ((c.test, ""), (c.validation, "_validation")):
                if len(split):
                    p = torch.einsum("k,knc->nc", w[keep], self.probabilities(i, mine, split))
                    out["accuracy" + suffix][i] = (p.argmax(-1) == split.y).float().mean()
                    out["loss" + suffix][i] = -p[torch.arange(len(split)), split.y].clamp_min(1e-12).log().mean()
        return out


def _regularised(gradient: Tensor, p: Tensor, anchor: Tensor, weight_decay: float, prox: float) -> Tensor:
    """gradient of l + (wd/2) |theta|^2 + (mu/2) |theta - theta_0|^2."""
    if weight_decay:
        gradient = gradient + weight_decay * p
    if prox:
        gradient = gradient + prox * (p - anchor)
    return gradient


def _padded(splits: Sequence[Split]) -> tuple[Tensor, Tensor, Tensor]:
    """Samples (B, n_max, ...), labels and mask (B, n_max)."""
    n = max(len(s) for s in splits)
    first = splits[0].x
    x = torch.zeros(len(splits), n, *first.shape[1:], dtype=first.dtype)
    y = torch.zeros(len(splits), n, dtype=torch.long)
    mask = torch.zeros(len(splits), n, dtype=torch.bool)
    for i, s in enumerate(splits):
        x[i, : len(s)], y[i, : len(s)], mask[i, : len(s)] = s.x, s.y, True
    return x, y, mask


def _stacked(tensors: Sequence[Tensor | None], *, both: bool = False) -> Tensor:
    """Matrices stacked (B, n_max, ...), padded with zeros along the first axis, or along both."""
    held = [t.to_dense() if t is not None and t.is_sparse else t for t in tensors]
    n = max(len(t) for t in held if t is not None)
    out = torch.zeros(len(held), n, n if both else held[0].shape[1])  # type: ignore[union-attr]
    for i, t in enumerate(held):
        assert t is not None
        out[i, : len(t), : t.shape[1]] = t
    return out
