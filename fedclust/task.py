"""What clients compute, free of Flower: pure functions of one client, run over a cohort of them side by side."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.func import vmap
from torch.nn.utils.rnn import pad_sequence

from fedclust.data.client import ClientData, Split
from fedclust.descent import Gradient, Rule, descend, side_by_side
from fedclust.models import Model, Params
from fedclust.objectives import sample_losses


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
    text = "/".join(map(str, (seed, *keys)))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1)


def padded_length(n: int) -> int:
    """n rounded up to 32, 48, 64, 96, 128, 192, ...: few lengths, which clients of like size share."""
    if n <= 32:
        return 32 if n else 0
    power = 1 << (n - 1).bit_length()
    return power * 3 // 4 if n <= power * 3 // 4 else power


class Cohort:
    """B >= 1 clients side by side, their data padded to the largest.

    A cohort of one computes with autograd, or with the gradient written out; one of many as stacked tensors. How a
    matrix product is rounded depends on its shape, and a difference in the last digit may decide on which side of a
    kink a unit lies. So where the gradient is written out, one client's data are padded as those of many are, to
    :func:`padded_length`: among clients of the same lengths each gets, bit for bit, what it gets by itself.

    A client's batches and randomness depend on its id and the round alone, never on its neighbours in the cohort.

    Parameters
    ----------
    clients : the clients' data
    model : the architecture that all share
    seed, round : of the federation
    memory : tensors (B, ...) that the clients keep from round to round
    device : where the clients compute
    """

    def __init__(
        self, clients: Sequence[ClientData], model: Model, *, seed: int, round: int,
        memory: dict[str, Tensor] | None = None, device: torch.device | str = "cpu",
    ) -> None:
        self.clients, self.model, self.seed, self.round = tuple(clients), model, seed, round
        self.memory: dict[str, Tensor] = memory if memory is not None else {}
        self.ids = [c.id for c in self.clients]
        self.device = torch.device(device)
        self._splits: dict[str, _Stacked] = {}

    @property
    def n(self) -> Tensor:
        """(B,) number of training samples."""
        return self._stacked("train").n

    @property
    def y(self) -> Tensor:
        """(B, n_max) their labels, 0 where padded."""
        return self._stacked("train").y

    @property
    def mask(self) -> Tensor:
        """(B, n_max) which of them are real."""
        return self._stacked("train").mask

    def begin(self, round: int, memory: dict[str, Tensor]) -> Cohort:
        """The same clients in another round, their data stacked already."""
        self.round, self.memory = round, memory
        return self

    def __len__(self) -> int:
        return len(self.clients)

    @property
    def n_bytes(self) -> int:
        """Bytes of the samples that are stacked."""
        return sum(of.x.nbytes + of.y.nbytes for of in self._splits.values())

    def _stacked(self, split: str) -> _Stacked:
        if split not in self._splits:
            samples = [getattr(c, split) for c in self.clients]
            n = max(len(s) for s in samples)
            length = padded_length(n) if self.model.has_gradient else n
            self._splits[split] = _Stacked(samples, length, self.device)
        return self._splits[split]

    @cached_property
    def _graphs(self) -> tuple[Sequence[Tensor] | Tensor, Sequence[Tensor] | Tensor]:
        """Node features and adjacencies, [(n, d)] and [(n, n)] of one client, which may be sparse; of many stacked and
        padded with zeros, (B, n_max, d) and dense (B, n_max, n_max)."""
        nodes = [c.nodes.to(self.device) for c in self.clients if c.nodes is not None]
        links = [c.adjacency.to(self.device) for c in self.clients if c.adjacency is not None]
        if len(self) == 1:
            return nodes, links
        stacked = pad_sequence(nodes, batch_first=True)
        adjacency = stacked.new_zeros(*stacked.shape[:2], stacked.shape[1])
        for padded, own in zip(adjacency, links, strict=True):
            padded[: len(own), : len(own)] = own.to_dense()
        return stacked, adjacency

    def _inputs(self, split: str) -> tuple[Any, Any, Any, Any]:
        """x, y, positions among the nodes, adjacency: of every client, along the first axis; None where not needed."""
        of = self._stacked(split)
        if not self.model.on_nodes:
            return of.x, of.y, None, None
        nodes, adjacency = self._graphs
        return nodes, of.y, of.x, adjacency

    # --- training -------------------------------------------------------------------------------------------------

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
        rule = Rule(training.lr, training.weight_decay, prox, inner_lr, training.optimiser == "adam")
        orders = [self._orders(i, training, key) for i in range(len(self))]
        if len(self) == 1 and not self.model.has_gradient:
            return self._train_one(params, orders[0], training.batch_size, sample_weight, rule)
        return self._train_many(params, orders, training.batch_size, sample_weight, rule)

    def _orders(self, i: int, training: Training, key: str) -> list[Tensor]:
        """The permutation of client i's samples in every epoch."""
        generator = stream(self.seed, "batches", key, self.ids[i], self.round)
        return [torch.randperm(len(self.clients[i].train), generator=generator) for _ in range(training.epochs)]

    def _train_one(self, params: Params, orders: list[Tensor], size: int, weight: Tensor | None, rule: Rule) -> Params:
        """The models of a client one after the other."""
        batches = [(batch.to(self.device), None) for order in orders for batch in order.split(size)]
        own = None if weight is None else weight[0]
        each = [
            descend({name: p[0, j] for name, p in params.items()}, batches,
                    self._gradient(None if own is None else own[j]), rule)
            for j in range(next(iter(params.values())).shape[1])
        ]
        return {name: torch.stack([one[name] for one in each])[None] for name in params}

    def _train_many(
        self, params: Params, orders: list[list[Tensor]], size: int, weight: Tensor | None, rule: Rule
    ) -> Params:
        """All models of all clients side by side, the clients with the most steps first."""
        b, k = next(iter(params.values())).shape[:2]
        sort = sorted(range(b), key=lambda i: orders[i][0].shape[0], reverse=True)
        first = torch.tensor(sort, device=self.device)
        sorted_already = sort == list(range(b))
        jobs = {name: (p if sorted_already else p[first]).flatten(0, 1) for name, p in params.items()}
        if weight is not None:
            weight = (weight if sorted_already else weight[first]).flatten(0, 1)
        batches = side_by_side([orders[i] for i in sort], size, min(size, self.y.shape[1]), k, self.device)
        done = descend(jobs, batches, self._gradients(first.repeat_interleave(k), weight), rule)
        out = {name: p.unflatten(0, (b, k)) for name, p in done.items()}
        return out if sorted_already else {name: p[first.argsort()] for name, p in out.items()}

    def _batch_loss(self, params: Params | None, x: Tensor, y: Tensor, at: Tensor | None, adjacency: Tensor | None,
                    weight: Tensor) -> Tensor:
        """sum_j w_j l_j; the weights hold the mask and the division by the batch size."""
        return weight @ sample_losses(self.model, params, x, y, at, adjacency)

    def _gradient(self, weight: Tensor | None) -> Gradient:
        """Gradient of one model on a batch of the only client."""
        x, y, *on_nodes = self._inputs("train")
        x, y = x[0], y[0]
        at, adjacency = (None if of is None else of[0] for of in on_nodes)

        def gradient(params: Params, index: Tensor, real: Tensor | None) -> Params:
            w = y.new_full(index.shape, 1 / max(len(index), 1), dtype=torch.float32)
            if weight is not None:
                w = w * weight[index]
            leaves = self.model.hold(params)
            loss = self._batch_loss(None, x[index] if at is None else x, y[index], None if at is None else at[index],
                                    adjacency, w)
            return dict(zip(params, torch.autograd.grad(loss, leaves), strict=True))

        return gradient

    def _gradients(self, clients: Tensor, weight: Tensor | None) -> Gradient:
        """Gradients of J models at once, model j on a batch of client clients[j]."""
        x, y, at, adjacency = self._inputs("train")
        per_client = None if at is None else 0
        together = vmap(torch.func.grad(self._batch_loss), in_dims=(0, 0, 0, per_client, per_client, 0))

        def gradient(params: Params, index: Tensor, real: Tensor | None) -> Params:
            assert real is not None
            w = real / real.sum(1, keepdim=True).clamp_min(1)
            if weight is not None:
                w = w * weight[: len(index)].gather(1, index)
            if len(self) == 1:  # of an architecture with a gradient
                return self.model.gradient(params, x[0][index], y[0][index], w)
            live = clients[: len(index)]
            rows = live[:, None]
            if self.model.has_gradient:
                return self.model.gradient(params, x[rows, index], y[rows, index], w)
            if at is None:
                return together(params, x[rows, index], y[rows, index], None, None, w)
            return together(params, x[live], y[rows, index], at[rows, index], adjacency[live], w)

        return gradient

    # --- what models make of samples --------------------------------------------------------------------------------

    def _each(self, f: Callable[..., Tensor], params: Params, *inputs: Any) -> Tensor:
        """f (B, K, ...) of every model on its client's inputs."""
        if len(self) == 1:
            own = [None if of is None else of[0] for of in inputs]
            k = next(iter(params.values())).shape[1]
            return torch.stack([f({name: p[0, j] for name, p in params.items()}, *own) for j in range(k)])[None]
        alike = tuple(None if of is None else 0 for of in inputs)
        of_one = vmap(f, in_dims=(0, *[None] * len(inputs)))
        return vmap(of_one, in_dims=(0, *alike))(params, *inputs)

    def _logits(self, params: Params, split: str) -> Tensor:
        """(B, K, n_max, C) of every model on its client's samples."""
        x, _, at, adjacency = self._inputs(split)
        if self.model.has_gradient:
            return self.model.forward(params, x)

        def logits(p: Params, x: Tensor, at: Tensor | None, adjacency: Tensor | None) -> Tensor:
            found = self.model.logits(p, x, adjacency)
            return found if at is None else found[at]

        return self._each(logits, params, x, at, adjacency)

    @torch.no_grad()
    def losses(self, params: Params) -> Tensor:
        """Losses (B, K, n_max) of every model on the client's training samples; 0 where padded."""
        if self.model.clusters:
            inputs = self._inputs("train")
            found = self._each(lambda p, *of: sample_losses(self.model, p, *of), params, *inputs)
        else:
            logits = self._logits(params, "train")
            y = self.y[:, None].expand(logits.shape[:3])
            found = torch.nn.functional.cross_entropy(logits.movedim(-1, 1), y, reduction="none")
        return found.where(self.mask[:, None], 0)

    @torch.no_grad()
    def probabilities(self, params: Params, split: str) -> Tensor:
        """softmax(theta_k(x)) (B, K, n_max, C) of the clients' models on one of their splits."""
        return torch.softmax(self._logits(params, split), dim=-1)

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
            one = _heaviest(params, weights)
            return {"loss": self.losses(one).sum((1, 2)) / self.n}
        if hard:
            params, weights = _heaviest(params, weights), weights.new_ones(len(self), 1)
        out: dict[str, Tensor] = {}
        for split, suffix in (("test", ""), ("validation", "_validation")):
            of = self._stacked(split)
            values = [of.n.new_full(of.n.shape, math.nan, dtype=torch.float32)] * 2
            if of.y.shape[1]:
                p = torch.einsum("bk,bknc->bnc", weights, self.probabilities(params, split))
                right = (p.argmax(-1) == of.y) & of.mask
                loss = -p.gather(2, of.y[..., None])[..., 0].clamp_min(1e-12).log()
                values = [t.sum(1) / of.n for t in (right.float(), loss.where(of.mask, 0))]
            out |= dict(zip(("accuracy" + suffix, "loss" + suffix), values, strict=True))
        return out


class _Stacked:
    """One split of B clients, padded: x (B, n_max, ...), y and mask (B, n_max), n (B,)."""

    def __init__(self, splits: Sequence[Split], length: int, device: torch.device) -> None:
        self.n = torch.tensor([len(s) for s in splits], device=device)
        self.x, self.y = (_padded([t.to(device) for t in each], length)
                          for each in ([s.x for s in splits], [s.y for s in splits]))
        self.mask = torch.arange(length, device=device) < self.n[:, None]


def _padded(each: Sequence[Tensor], length: int) -> Tensor:
    """(B, length, ...), zeros at the ends."""
    if len(each) == 1 and len(each[0]) == length:
        return each[0][None]
    out = each[0].new_zeros(len(each), length, *each[0].shape[1:])
    for row, t in zip(out, each, strict=True):
        row[: len(t)] = t
    return out


def _heaviest(params: Params, weights: Tensor) -> Params:
    """Of models (B, K, ...) the one (B, 1, ...) with the largest of the weights (B, K)."""
    rows = torch.arange(len(weights), device=weights.device)
    return {name: p[rows, weights.argmax(1)][:, None] for name, p in params.items()}
