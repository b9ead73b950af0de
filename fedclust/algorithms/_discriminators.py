"""FedCollab's divergences between clients: one small network for every pair learns to tell the two apart.

Source: Bao, Wang, Wu & He, ICML 2023, arXiv 2306.06508: D_ij = max_h |e_i(h) - e_j(h)| is estimated by
2 BA - 1, BA being the balanced accuracy of the discriminator f: X x Y -> {i, j} on samples that it was not trained on.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import one_hot

from fedclust.algorithms.base import Delivery, Payload, Report, Reports, State, models, together, with_models
from fedclust.contract import Form
from fedclust.models import Model, Params
from fedclust.task import Cohort, stream

FAMILY = "discriminator"
LEARN, JUDGE = "divergence", "divergence-last"
"""Phases: train and test the pairs' networks; only test them."""
BETAS, EPSILON = (0.8, 0.9), 1e-8
# The phase ends early when the mean balanced accuracy of all pairs has not risen by this much.
PROGRESS = 0.002
# Numbers in the hidden layers of so many clients as are computed at once: they stay near the processor.
AT_ONCE = 2**21


class PairwiseDivergence(BaseModel):
    """How the divergences are estimated, by federated training between the two clients of every pair.

    h = relu(W_x x + b + 2 (W_y y~ + b_y)), f = w h + c, y~ = C / sqrt(C - 1) onehot(y); of the pair (i, j), i < j,
    client i has domain label 0 and client j 1; binary cross-entropy. A client sees its own samples and its pairs'
    networks only.

    The paper's scheme: width 200, no projection, a round is one SGD step of 32 samples with lr .01 or .05 and the plain
    mean of the two sides; 300 rounds on average, at most 2000. It is at hand: ``server="average", batch_size=32,
    local_lr=.05, width=200, projection=None, rounds=300, patience=100``. The default moves less by four means: a random
    projection of the input (drawn from the federation's seed, never sent), a narrow network, all pairs of a client in
    one message, and fewer rounds, for the client steps along the gradient of all its training samples and the server
    moves with Adam (FedAdam, Reddi et al. 2021, arXiv 2003.00295). More local steps do not help here: a side holds one
    domain label only, so they drive each side to a constant answer, and the mean of the two learns less, not more.

    Other deviations: side i of a pair trains on min(n_i / 2, max(min_samples, min(n_i, n_j) / 2)) of its samples, not
    on half of the federation's smallest client; all others are held out. The estimates are those of one round, the one
    with the largest mean over all pairs, not of every pair's own best round, which is optimistic where few samples are
    held out; the same mean decides when to stop.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: Annotated[int, Field(ge=2)] = 25
    """At most that many messages to every client; the networks are trained in all but the last."""
    patience: Annotated[int, Field(ge=1)] = 8
    """Rounds without progress after which the phase ends."""
    width: Annotated[int, Field(ge=1)] = 32
    projection: Annotated[int, Field(ge=1)] | None = 32
    """Dimensions that inputs with more are projected to; None: never."""
    min_samples: Annotated[int, Field(ge=1)] = 16
    """Training samples that the larger client of a pair uses at least, where it has twice as many."""
    local_steps: Annotated[int, Field(ge=1)] = 1
    local_lr: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """None: all training samples in every step."""
    server: Literal["adam", "average"] = "adam"
    server_lr: Annotated[float, Field(gt=0)] = 0.02

    # --- server ---------------------------------------------------------------------------------------------------

    def start(self, n_samples: Tensor, model: Model, seed: int) -> State:
        """The same initial network for every pair, and nothing known about any."""
        d = 1
        for size in model.input_shape:
            d *= size
        d = d if self.projection is None else min(d, self.projection)
        one = self._init(d, model.n_classes, stream(seed, FAMILY))
        n_pairs = len(n_samples) * (len(n_samples) - 1) // 2
        first = {name: t.expand(n_pairs, *t.shape).clone() for name, t in one.items()}
        state = with_models({}, first, FAMILY, balanced_accuracy=torch.empty(0, n_pairs))
        for moment in ("m", "v"):
            state = with_models(state, {name: torch.zeros_like(t) for name, t in first.items()}, f"{FAMILY}_{moment}")
        return state

    def _init(self, d: int, n_classes: int, generator: torch.Generator) -> Params:
        def uniform(*shape: int, fan_in: int) -> Tensor:
            return (2 * torch.rand(*shape, generator=generator) - 1) / fan_in**0.5

        h = self.width
        return {"W_x": uniform(h, d, fan_in=d), "b": uniform(h, fan_in=d),
                "W_y": uniform(h, n_classes, fan_in=n_classes), "b_y": uniform(h, fan_in=n_classes),
                "w": uniform(h, fan_in=h), "c": uniform(1, fan_in=h)[0]}

    def payload(self, state: State, client: int, n_samples: Tensor) -> Payload:
        """The networks of the client's N - 1 pairs, its side in each, and how many samples to train on."""
        mine = pairs_of(client, len(n_samples))
        pairs = all_pairs(len(n_samples))[mine]
        half = n_samples[pairs].min(dim=1).values // 2
        used = torch.minimum(half.clamp_min(self.min_samples), n_samples[client] // 2)
        last = len(state["balanced_accuracy"]) == self.rounds - 1 or self._stalled(state)
        arrays = {"side": (pairs[:, 1] == client).float(), "used": used.long()}
        return Payload(mine.tolist(), arrays, FAMILY, JUDGE if last else LEARN)

    def reply(self, payload: Payload) -> Form:
        """The networks, unless they are only tested, and their accuracies."""
        k = len(payload.groups)
        return Form(k if payload.phase == LEARN else 0, {"accuracy": (k,)})

    def _stalled(self, state: State) -> bool:
        """True when the mean over the pairs has made no progress for ``patience`` rounds."""
        course = state["balanced_accuracy"].nanmean(dim=1)
        if len(course) <= self.patience + 1:
            return False
        return bool(course[-self.patience:].max() < course[: -self.patience].max() + PROGRESS)

    def update(self, state: State, reports: Reports, n_clients: int) -> State:
        """Every pair that both clients reported on moves; the last round leaves ``divergence`` (N, N) in the state."""
        sent = torch.stack([pairs_of(int(i), n_clients) for i in reports.clients]).flatten()
        n_pairs = state["balanced_accuracy"].shape[1]
        heard = torch.zeros(n_pairs).index_add(0, sent, torch.ones(len(sent))) == 2
        accuracy = torch.zeros(n_pairs).index_add(0, sent, reports.arrays["accuracy"].flatten() / 2)
        known = torch.cat((state["balanced_accuracy"], accuracy.where(heard, torch.nan)[None]))
        if reports.phase == JUDGE:
            families = (FAMILY, f"{FAMILY}_m", f"{FAMILY}_v")
            kept = {key: t for key, t in state.items() if key.partition("/")[0] not in families}
            return {**kept, "balanced_accuracy": known, "divergence": _divergence(known, n_clients)}
        old = models(state, FAMILY)
        mean = {name: torch.zeros_like(t).index_add(0, sent, reports.models[name].flatten(0, 1) / 2)
                for name, t in old.items()}
        return {**self._moved(state, old, mean, heard), "balanced_accuracy": known}

    def _moved(self, state: State, old: Params, mean: Params, heard: Tensor) -> State:
        """The two sides' mean, or a step of Adam along it; pairs that were not heard stay."""
        def keep(new: Tensor, previous: Tensor) -> Tensor:
            return torch.where(heard.view(-1, *[1] * (new.dim() - 1)), new, previous)

        if self.server == "average":
            return with_models(state, {name: keep(mean[name], t) for name, t in old.items()}, FAMILY)
        steps = (1 + state["balanced_accuracy"].isfinite().sum(0)).float()
        first, second, new = models(state, f"{FAMILY}_m"), models(state, f"{FAMILY}_v"), {}
        for name, t in old.items():
            gradient = (t - mean[name]) / (self.local_lr * self.local_steps)
            at = steps.view(-1, *[1] * (t.dim() - 1))
            first[name] = keep(BETAS[0] * first[name] + (1 - BETAS[0]) * gradient, first[name])
            second[name] = keep(BETAS[1] * second[name] + (1 - BETAS[1]) * gradient**2, second[name])
            scale = (second[name] / (1 - BETAS[1]**at)).sqrt() + EPSILON
            new[name] = keep(t - self.server_lr * first[name] / (1 - BETAS[0]**at) / scale, t)
        state = with_models(with_models(state, first, f"{FAMILY}_m"), second, f"{FAMILY}_v")
        return with_models(state, new, FAMILY)

    # --- client ---------------------------------------------------------------------------------------------------

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Accuracies (B, k) of the networks as they arrived, on held-out samples, and the networks after training."""
        samples, learns = self._samples(cohort), delivery.phase == LEARN
        n, k = cohort.mask.shape[1], delivery.arrays["used"].shape[1]
        drawn = self._drawn(cohort, k) if learns and self.batch_size is not None else None
        parts = []
        for rows in torch.arange(len(cohort)).split(max(1, AT_ONCE // max(1, n * k * self.width))):
            at = slice(int(rows[0]), int(rows[-1]) + 1)
            params = {name: t[at] for name, t in delivery.models.items()}
            z, side, used = samples[at], delivery.arrays["side"][at], delivery.arrays["used"][at]
            accuracy = _accuracy(params, z, side, used, cohort.mask[at])
            trained = self._descend(params, z, side, used, None if drawn is None else drawn[at]) if learns else {}
            parts.append(Report(trained, {"accuracy": accuracy}))
        return together(parts)

    def _samples(self, cohort: Cohort) -> Tensor:
        """Inputs, y~ and a one (B, n_max, d + C + 1), stratified: any first part holds the classes in their shares."""
        each = [(c.train.x if c.nodes is None else c.nodes[c.train.x]).flatten(1) for c in cohort.clients]
        x = each[0].new_zeros(*cohort.mask.shape, each[0].shape[1], device=cohort.mask.device)
        x[cohort.mask] = torch.cat(each).to(x.device)
        if self.projection is not None and x.shape[2] > self.projection:
            matrix = torch.randn(x.shape[2], self.projection, generator=stream(cohort.seed, FAMILY, "projection"))
            x = x @ matrix.to(x.device).expand(len(x), -1, -1) / self.projection**0.5
        c = cohort.model.n_classes
        of_y = one_hot(cohort.y, c) * (c / max(c - 1, 1) ** 0.5)
        z = torch.cat((x, of_y, torch.ones_like(x[..., :1])), dim=2)
        return z.gather(1, _stratified(cohort)[..., None].expand(-1, -1, z.shape[2]))

    def _drawn(self, cohort: Cohort, k: int) -> Tensor:
        """Uniform numbers (B, local_steps, k, batch_size) that draw the batches, from each client's own stream."""
        generators = [stream(cohort.seed, FAMILY, "batches", client, cohort.round) for client in cohort.ids]
        each = [torch.rand(self.local_steps, k, self.batch_size or 0, generator=g) for g in generators]
        return torch.stack(each).to(cohort.y.device)

    def _descend(self, params: Params, z: Tensor, side: Tensor, used: Tensor, drawn: Tensor | None) -> Params:
        """The networks (B, k, ...) after their steps, each on the first ``used`` (B, k) samples of ``z`` (B, n, D)."""
        b, k = used.shape
        if drawn is None:
            z = z[:, : z.shape[1] // 2]  # no network uses more, and how long it is must not depend on the neighbours
            weight = (torch.arange(z.shape[1], device=z.device) < used[..., None]) / used.clamp_min(1)[..., None]
            for _ in range(self.local_steps):
                params = self._step(params, z, side, weight)
            return params
        # every network has a batch of its own, as if it were a client's only one
        params, side = {name: t.flatten(0, 1)[:, None] for name, t in params.items()}, side.flatten()[:, None]
        for numbers in drawn.unbind(1):
            index = (numbers * used[..., None]).long().flatten(1)
            batch = z.gather(1, index[..., None].expand(-1, -1, z.shape[2])).view(b * k, -1, z.shape[2])
            params = self._step(params, batch, side, torch.full_like(batch[:, None, :, 0], 1 / batch.shape[1]))
        return {name: t.view(b, k, *t.shape[2:]) for name, t in params.items()}

    def _step(self, params: Params, z: Tensor, side: Tensor, weight: Tensor) -> Params:
        gradient = _gradient(params, z, side, weight)
        return {name: t - self.local_lr * gradient[name] for name, t in params.items()}


def _forward(p: Params, z: Tensor) -> tuple[Tensor, Tensor]:
    """f (B, k, n) and h (B, k, width, n) of k networks a client, all on its inputs z (B, n, D): no copies of them."""
    first = torch.cat((p["W_x"], 2 * p["W_y"], (p["b"] + 2 * p["b_y"])[..., None]), dim=3)  # (B, k, width, D)
    h = (first.flatten(1, 2) @ z.mT).relu_().unflatten(1, first.shape[1:3])
    return (p["w"][:, :, None] @ h)[:, :, 0] + p["c"][..., None], h


def _gradient(p: Params, z: Tensor, side: Tensor, weight: Tensor) -> Params:
    """Gradient of sum_j w_j BCE(f_j, side), w (B, k, n), written out: autograd takes a quarter more time."""
    f, h = _forward(p, z)
    of_f = (torch.sigmoid(f) - side[..., None]) * weight
    of_w = (h @ of_f[..., None])[..., 0]
    of_h = (p["w"][..., None] * of_f[:, :, None]).mul_(h.sign_())  # h is 0 where relu lets nothing through
    of_first = (of_h.flatten(1, 2) @ z).unflatten(1, h.shape[1:3])
    of_x, of_y, of_b = of_first.split((p["W_x"].shape[3], p["W_y"].shape[3], 1), dim=3)
    of_b = of_b[..., 0]
    return {"W_x": of_x, "b": of_b, "W_y": 2 * of_y, "b_y": 2 * of_b, "w": of_w, "c": of_f.sum(2)}


def _accuracy(params: Params, z: Tensor, side: Tensor, used: Tensor, mask: Tensor) -> Tensor:
    """(B, k) share of the samples after the first ``used`` that are told to be this client's."""
    right = (_forward(params, z)[0] > 0) == side[..., None].bool()
    held_out = (torch.arange(z.shape[1], device=z.device) >= used[..., None]) & mask[:, None]
    return (right & held_out).sum(2) / held_out.sum(2)


def _stratified(cohort: Cohort) -> Tensor:
    """A random order (B, n_max) of every client's samples in which each class is spread evenly; padding stays last."""
    mask, none = cohort.mask, cohort.model.n_classes
    place = torch.arange(mask.shape[1], device=mask.device)
    order, jitter = place.repeat(len(mask), 1), place.new_zeros(mask.shape, dtype=torch.float)
    generators = [stream(cohort.seed, FAMILY, "order", client) for client in cohort.ids]
    draws = [(torch.randperm(n, generator=g), torch.rand(n, generator=g))
             for n, g in zip(cohort.n.tolist(), generators, strict=True)]
    order[mask], jitter[mask] = (torch.cat(part).to(mask.device) for part in zip(*draws, strict=True))
    y, by_class = cohort.y.gather(1, order).masked_fill(~mask, none).sort(dim=1, stable=True)
    count = one_hot(y, none + 1).sum(1)
    rank = place - (count.cumsum(1) - count).gather(1, y)
    at = ((rank + jitter) / count.gather(1, y)).masked_fill(~mask, torch.inf)
    return order.gather(1, torch.empty_like(at).scatter(1, by_class, at).argsort(dim=1, stable=True))


def _divergence(balanced_accuracy: Tensor, n_clients: int) -> Tensor:
    """D (N, N) = max(0, 2 BA - 1) in the round of the largest mean (R, P); for a pair that was not heard in it the last
    value before, else the first after; 1 for a pair that was never heard: better apart.
    """
    best = int(balanced_accuracy.nanmean(dim=1).nan_to_num(0).argmax())
    value = torch.full(balanced_accuracy.shape[1:], torch.nan)
    for row in (*balanced_accuracy[: best + 1].flip(0), *balanced_accuracy[best + 1 :]):
        value = torch.where(value.isnan(), row, value)
    d = torch.zeros(n_clients, n_clients)
    i, j = all_pairs(n_clients).T
    d[i, j] = d[j, i] = (2 * value.nan_to_num(1) - 1).clamp_min(0)
    return d


def all_pairs(n: int) -> Tensor:
    """(P, 2) all pairs i < j, in the order of their numbers."""
    return torch.triu_indices(n, n, 1).T


def pairs_of(client: int, n: int) -> Tensor:
    """(N - 1,) numbers of the pairs that a client belongs to."""
    return (all_pairs(n) == client).any(1).nonzero()[:, 0]
