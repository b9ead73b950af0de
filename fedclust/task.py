"""What clients compute, free of Flower: pure functions of one client, run over a cohort of them side by side."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.func import vmap
from torch.nn.utils.rnn import pad_sequence

from fedclust.data.client import ClientData, Split
from fedclust.models import Model, Params
from graphclust.losses import neighbour_contrast_of_nodes

# From this many models on, all clients side by side are faster than one after the other (4.8k-parameter MLP).
VMAP_FROM = 8
EVALUATED = ("test", "validation")


class Training(BaseModel):
    """How a client trains in one round."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[int, Field(ge=1)] = 1
    optimiser: Literal["sgd", "adam"] = "sgd"
    """Adam's moments begin anew in every round: they are no part of the model, and never travel."""
    lr: Annotated[float, Field(gt=0)] = 0.1
    batch_size: Annotated[int, Field(ge=1)] = 20
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


def stream(seed: int, *keys: object) -> torch.Generator:
    """A generator that depends on ``seed`` and the names only: not on the machine, the order of calls or the others."""
    text = "/".join(str(k) for k in (seed, *keys))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)


def cross_entropy(
    model: Model, params: Params | None, x: Tensor, y: Tensor, at: Tensor | None, adjacency: Tensor | None
) -> Tensor:
    """Per-sample losses l(theta; x, y) (b,); on nodes x holds the features of all nodes and ``at`` (b,) the samples."""
    logits = model.logits(params, x, adjacency)
    return torch.nn.functional.cross_entropy(logits if at is None else logits[at], y, reduction="none")


def scgc(model: Model, params: Params | None, x: Tensor, at: Tensor, gamma: Tensor) -> Tensor:
    """Losses of nodes without labels, l_i = |x_hat_i - x_i|^2 / d + alpha l_NC,i (b,).

    Their mean over all nodes is L of SCGC (arXiv 2204.12656, equation 11) without KL(P || Q), which needs centres.

    Parameters
    ----------
    x, gamma : features (n, d) and influence (n, n) of all nodes of one graph
    at : (b,) the nodes
    """
    z, decoded = model.autoencode(params, x)
    contrast = neighbour_contrast_of_nodes(z, gamma, model.config.tau)
    return (decoded - x).square().mean(1)[at] + model.config.alpha * contrast[at]


def sample_losses(
    model: Model, params: Params | None, x: Tensor, y: Tensor, at: Tensor | None, adjacency: Tensor | None
) -> Tensor:
    """The losses (b,) of the model's task; only that of classification sees ``y``."""
    if model.clusters:
        assert at is not None and adjacency is not None
        return scgc(model, params, x, at, adjacency)
    return cross_entropy(model, params, x, y, at, adjacency)


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
        self.y = pad_sequence([c.train.y for c in self.clients], batch_first=True)
        self.mask = torch.arange(self.y.shape[1]) < self.n[:, None]

    @cached_property
    def _x(self) -> Tensor:
        return pad_sequence([c.train.x for c in self.clients], batch_first=True)

    @cached_property
    def _graphs(self) -> tuple[Tensor, Tensor]:
        """Node features (B, n_max, d) and dense adjacencies (B, n_max, n_max), padded with zeros."""
        nodes = pad_sequence([c.nodes for c in self.clients if c.nodes is not None], batch_first=True)
        adjacency = torch.zeros(*nodes.shape[:2], nodes.shape[1])
        for padded, c in zip(adjacency, self.clients, strict=True):
            assert c.adjacency is not None
            padded[: len(c.adjacency), : len(c.adjacency)] = c.adjacency.to_dense()
        return nodes, adjacency

    def __len__(self) -> int:
        return len(self.clients)

    def train(
        self, params: Params, training: Training, *, sample_weight: Tensor | None = None, prox: float = 0.0,
        inner_lr: float = 0.0, key: str = "train",
    ) -> Params:
        """SGD, or Adam, of each model on each client's own batches.

        The loss of a batch is sum_j w_j l_j / |batch|; with ``prox`` mu, (mu/2) |theta - theta_0|^2 is added, theta_0
        being where the training starts (FedProx, arXiv 1812.06127, equation 2). With ``inner_lr`` alpha the gradient of
        one half of a batch is taken at theta - alpha grad l(other half): first-order MAML as in Per-FedAvg (FO), arXiv
        2002.07948, section 4.

        Parameters
        ----------
        params : tensors (B, K, ...)
        training : epochs, step size, batch size, weight decay
        sample_weight : (B, K, n_max); None: all 1
        prox : mu
        inner_lr : alpha; 0: plain SGD
        key : names the stream of batches; the K models of a client see the same batches

        Returns
        -------
        tensors (B, K, ...)
        """
        b, k = next(iter(params.values())).shape[:2]
        rule = _Rule(training.lr, training.weight_decay, prox, inner_lr, training.optimiser == "adam")
        batches = [self._batches(i, training, key) for i in range(b)]
        weight = None if sample_weight is None else sample_weight.flatten(0, 1)
        jobs = {name: p.flatten(0, 1) for name, p in params.items()}
        if b * k < VMAP_FROM or (b == 1 and self.model.has_gradient):
            if self.model.has_gradient and k > 1:  # a job is all models of a client
                weight, jobs, k = sample_weight, params, 1
            done = [
                _descend({name: p[j] for name, p in jobs.items()}, [(batch, None) for batch in batches[j // k]],
                         self._gradient(j // k, None if weight is None else weight[j]), rule)
                for j in range(b * k)
            ]
            return {name: torch.stack([d[name] for d in done]).view_as(p) for name, p in params.items()}
        client = torch.arange(b).repeat_interleave(k)
        out = _descend(jobs, _side_by_side(batches, client), self._gradients(client, weight), rule)
        return {name: t.unflatten(0, (b, k)) for name, t in out.items()}

    def _batches(self, i: int, training: Training, key: str) -> list[Tensor]:
        """The samples of every step of client i; the last batch of an epoch may be short."""
        generator = stream(self.seed, "batches", key, self.ids[i], self.round)
        orders = [torch.randperm(len(self.clients[i].train), generator=generator) for _ in range(training.epochs)]
        return [batch for order in orders for batch in order.split(training.batch_size)]

    def _inputs(self, i: int, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The samples ``index`` of client i: x, y, positions among the nodes, adjacency."""
        c = self.clients[i]
        if c.nodes is None:
            return c.train.x[index], c.train.y[index], None, None
        return c.nodes, c.train.y[index], c.train.x[index], c.adjacency

    def _all_inputs(self, client: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """As _inputs, for samples ``index`` (J, b) of the clients (J,) of all jobs."""
        rows = client[:, None]
        if not self.model.on_nodes:
            return self._x[rows, index], self.y[rows, index], None, None
        nodes, adjacency = self._graphs
        return nodes[client], self.y[rows, index], self._x[rows, index], adjacency[client]

    def _batch_loss(self, params: Params | None, x: Tensor, y: Tensor, at: Tensor | None, adjacency: Tensor | None,
                    weight: Tensor) -> Tensor:
        """sum_j w_j l_j; the weights hold the mask and the division by the batch size."""
        return weight @ sample_losses(self.model, params, x, y, at, adjacency)

    def _gradient(self, i: int, weight: Tensor | None) -> _Gradient:
        """Gradient on a batch of client i: of one model, or of several stacked ones that the architecture can take."""

        def gradient(params: Params, index: Tensor, real: Tensor | None) -> Params:
            w = torch.full(index.shape, 1 / max(len(index), 1))
            if weight is not None:
                w = w * weight[..., index]
            x, y, at, adjacency = self._inputs(i, index)
            if self.model.has_gradient:
                return self.model.gradient(params, x, y, w)
            leaves = self.model.hold(params)
            loss = self._batch_loss(None, x, y, at, adjacency, w)
            return dict(zip(params, torch.autograd.grad(loss, leaves), strict=True))

        return gradient

    def _gradients(self, client: Tensor, weight: Tensor | None) -> _Gradient:
        """Gradients of J models at once, model j on a batch of client client[j]."""
        per_client = 0 if self.model.on_nodes else None
        together = vmap(torch.func.grad(self._batch_loss), in_dims=(0, 0, 0, per_client, per_client, 0))

        def gradient(params: Params, index: Tensor, real: Tensor | None) -> Params:
            assert real is not None
            w = real / real.sum(1, keepdim=True).clamp_min(1)
            if weight is not None:
                w = w * weight.gather(1, index)
            x, y, at, adjacency = self._all_inputs(client, index)
            if self.model.has_gradient:
                return self.model.gradient(params, x, y, w)
            return together(params, x, y, at, adjacency, w)

        return gradient

    @torch.no_grad()
    def losses(self, params: Params) -> Tensor:
        """Losses (B, K, n_max) of every model on the client's training samples; 0 where padded."""
        k = next(iter(params.values())).shape[1]
        out = torch.zeros(len(self), k, self.mask.shape[1])
        for i in range(len(self)):
            n = int(self.n[i])
            inputs = self._inputs(i, torch.arange(n))
            for j in range(k):
                out[i, j, :n] = sample_losses(self.model, {name: p[i, j] for name, p in params.items()}, *inputs)
        return out

    @torch.no_grad()
    def probabilities(self, i: int, params: Params, split: Split) -> Tensor:
        """softmax(theta_k(x)) (K, n, C) of client i's models ``params`` (K, ...) on one of its splits."""
        c = self.clients[i]
        k = next(iter(params.values())).shape[0]
        outputs = []
        for j in range(k):
            one = {name: p[j] for name, p in params.items()}
            if c.nodes is None:
                logits = self.model.logits(one, split.x)
            else:
                logits = self.model.logits(one, c.nodes, c.adjacency)[split.x]
            outputs.append(torch.softmax(logits, dim=-1))
        return torch.stack(outputs)

    @torch.no_grad()
    def embedding(self, i: int, params: Params, weights: Tensor) -> Tensor:
        """z (n, latent_dim) of all nodes of client i under the one of its models (K, ...) with the largest weight."""
        nodes, best = self.clients[i].nodes, int(weights.argmax())
        assert nodes is not None
        return self.model.autoencode({name: p[best] for name, p in params.items()}, nodes)[0]

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
        client has no such samples. Of a model that clusters: ``loss``, the mean over the client's nodes, alone.
        """
        if self.model.clusters:
            one = {name: p[torch.arange(len(self)), weights.argmax(1)][:, None] for name, p in params.items()}
            return {"loss": self.losses(one).sum((1, 2)) / self.n}
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


_Batch = tuple[Tensor, Tensor | None]
"""Samples (b,) of one client; or (J, b) of the clients of J jobs, padded, and which of them are real."""
_Gradient = Callable[[Params, Tensor, Tensor | None], Params]


@dataclass(frozen=True)
class _Rule:
    """The step of SGD, or of Adam."""

    lr: float
    weight_decay: float
    prox: float
    inner_lr: float
    adam: bool = False

    def step(self, p: Tensor, gradient: Tensor, start: Tensor, real: Tensor | None, moments: _Moments | None) -> Tensor:
        """theta - lr grad(l + (wd/2) |theta|^2 + (mu/2) |theta - theta_0|^2); a job without samples stays."""
        if self.weight_decay:
            gradient = gradient.add(p, alpha=self.weight_decay)
        if self.prox:
            gradient = gradient.add(p - start, alpha=self.prox)
        if moments is not None:
            gradient = moments.direction(gradient)
        if real is not None:
            gradient = gradient * real.any(1).view(-1, *[1] * (p.dim() - 1))
        return p.sub(gradient, alpha=self.lr)


class _Moments:
    """Adam's m and v of one parameter (Kingma and Ba, arXiv 1412.6980, algorithm 1, with its defaults)."""

    def __init__(self, p: Tensor) -> None:
        self.m, self.v, self.t = torch.zeros_like(p), torch.zeros_like(p), 0

    def direction(self, gradient: Tensor) -> Tensor:
        """m_hat / (sqrt(v_hat) + eps), m and v moved by the gradient."""
        self.t += 1
        self.m = self.m.lerp(gradient, 0.1)
        self.v = self.v.lerp(gradient.square(), 0.001)
        return (self.m / (1 - 0.9**self.t)) / ((self.v / (1 - 0.999**self.t)).sqrt_().add_(1e-8))


def _descend(params: Params, batches: Iterable[_Batch], gradient: _Gradient, rule: _Rule) -> Params:
    """SGD or Adam from ``params``, of one model or of J side by side."""
    start, moments = params, {name: _Moments(p) for name, p in params.items()} if rule.adam else {}
    for index, real in batches:
        here = params
        if rule.inner_lr:
            (index, real), inner = _halves(index, real)
            found = gradient(params, *inner)
            here = {name: p.sub(found[name], alpha=rule.inner_lr) for name, p in params.items()}
        found = gradient(here, index, real)
        params = {name: rule.step(p, found[name], start[name], real, moments.get(name)) for name, p in params.items()}
    return params


def _halves(index: Tensor, real: Tensor | None) -> tuple[_Batch, _Batch]:
    """A batch cut in two; of an odd number the first half has one sample more."""
    if real is None:
        first, second = index.tensor_split(2)
        return (first, None), (second, None)
    early = real.cumsum(1) <= (real.sum(1, keepdim=True) + 1) // 2
    return (index, real & early), (index, real & ~early)


def _side_by_side(batches: list[list[Tensor]], client: Tensor) -> list[_Batch]:
    """Step by step the batches of every job's client, padded; a client that has no more has none that are real."""
    steps = max(len(of_client) for of_client in batches)
    none = torch.zeros(0, dtype=torch.long)
    out: list[_Batch] = []
    for step in range(steps):
        now = [of_client[step] if step < len(of_client) else none for of_client in batches]
        sizes = torch.tensor([len(batch) for batch in now])
        index = pad_sequence(now, batch_first=True)
        out.append((index[client], (torch.arange(index.shape[1]) < sizes[:, None])[client]))
    return out
