"""What TGC learns, and one pass of its training over a stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from graphclust.losses import kl_divergence, soft_assignment, target_distribution
from graphclust.losses.temporal import history_attention, intensity, reconstruction_norms, temporal_loss
from graphclust.methods._events import Events
from graphclust.methods._network import KMEANS_LIMIT
from graphclust.methods.base import by_size, follow
from graphclust.stream import Stream


@dataclass(frozen=True)
class Rules:
    """The options of :class:`graphclust.methods.tgc.TGC`, each with a value."""

    hist_len: int
    negatives: int
    lr: float
    batch_size: int
    order: str
    node_weight: float
    batch_weight: float
    kernel: str
    attention: str
    time_unit: str
    balance: str
    clusters: str
    components: str
    start: str
    dim: int
    geometry: str
    bandwidth: float | str
    collapse_guard: float


class Table(nn.Module):
    """What TGC learns: no network, but a vector z and a decay delta for each node, and the centres.

    z and delta are buffers, not parameters: a step writes the rows of its batch alone.

    Parameters
    ----------
    z : (n, dim) float32, the vectors at the start
    n_clusters : K
    windows : W, how many rows of ``window_labels`` are to be filled
    cosine : clusters are compact in u = z / ||z||, else in u = z
    """

    z: Tensor
    anchor: Tensor
    delta: Tensor
    bandwidth: Tensor
    window_labels: Tensor
    shuffle: Tensor

    def __init__(self, z: np.ndarray, n_clusters: int, windows: int, cosine: bool) -> None:
        super().__init__()
        self.cosine = cosine
        self.register_buffer("z", torch.from_numpy(z))
        self.register_buffer("anchor", self.position(self.z).clone())
        self.register_buffer("delta", torch.ones(len(z), 1))
        self.register_buffer("bandwidth", torch.ones(()))
        self.register_buffer("window_labels", torch.full((windows, len(z)), -1))
        # of the generator when a pass began, so that a fit killed within it finds its order again
        self.register_buffer("shuffle", torch.Generator().get_state())
        self.centres = nn.Parameter(torch.zeros(n_clusters, z.shape[1]))

    def position(self, z: Tensor) -> Tensor:
        """u, (..., dim)."""
        return normalize(z, dim=-1) if self.cosine else z

    def soft_at(self, u: Tensor) -> Tensor:
        """q of the positions ``u`` (B, dim), (B, K)."""
        return soft_assignment(u, self.position(self.centres), self.bandwidth)

    @torch.no_grad()
    def assign(self) -> Tensor:
        """q of all nodes, (n, K)."""
        return self.soft_at(self.position(self.z))

    @torch.no_grad()
    def start(self, seed: int, bandwidth: float | str) -> None:
        """Centres by k-means on u (20 starts), and u as it is now as the anchor of the target distribution."""
        z = self.position(self.z).numpy()
        limit = max(KMEANS_LIMIT, 20 * len(self.centres))
        fit = z if len(z) <= limit else z[np.random.default_rng(seed).choice(len(z), limit, replace=False)]
        model = KMeans(len(self.centres), n_init=20, random_state=seed).fit(fit)
        self.centres.copy_(torch.from_numpy(model.cluster_centers_))
        self.anchor.copy_(self.position(self.z))
        spread = model.inertia_ / len(fit)
        self.bandwidth.fill_((spread if spread > 0 else 1.0) if bandwidth == "auto" else bandwidth)

    def close_window(self, window: int, active: Tensor) -> None:
        """Write down the clusters of the nodes ``active`` as those of this window, and begin the next from here."""
        nodes = active.unique()
        self.window_labels[window, nodes] = self.assign().argmax(1)[nodes]
        self.anchor.copy_(self.position(self.z))

    @torch.no_grad()
    def grown(self, stream: Stream) -> Table:
        """The same with rows for all nodes of ``stream``; a new one's vector is the mean of those it meets (else 0)."""
        known = len(self.z)
        graph = stream.graph().adjacency[known:, :known]
        weight = np.maximum(graph.sum(axis=1), 1)[:, None]
        z = np.concatenate((self.z.numpy(), (graph @ self.z.numpy() / weight).astype(np.float32)))
        new = Table(z, len(self.centres), len(self.window_labels), self.cosine)
        new.delta[:known] = self.delta
        new.window_labels[:, :known] = self.window_labels
        new.centres.copy_(self.centres)
        new.bandwidth.copy_(self.bandwidth)
        return new

    @torch.no_grad()
    def order_by_size(self) -> None:
        """Put the clusters by decreasing size, as ``labels_`` are."""
        order = by_size(self.assign().argmax(1).numpy())[1]
        order = np.concatenate((order, np.setdiff1d(np.arange(len(self.centres)), order)))
        self.centres.copy_(self.centres[torch.from_numpy(order)])
        self.window_labels.copy_(torch.from_numpy(follow(self.window_labels.numpy(), order)))


def in_order(entries: Tensor, rules: Rules, generator: torch.Generator) -> Tensor:
    """``entries``, which come in the order of time, in the order of a pass over them."""
    return entries[torch.randperm(len(entries), generator=generator)] if rules.order == "shuffled" else entries


def one_pass(
    table: Table, events: Events, entries: Tensor, rules: Rules, optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> dict[str, float]:
    """Train on ``entries`` (S,), which come in the order of time, once and in the order that ``rules`` say; the losses,
    as of :func:`train_on`."""
    return train_on(table, events, in_order(entries, rules, generator), rules, optimiser, generator)


def train_on(
    table: Table, events: Events, entries: Tensor, rules: Rules, optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> dict[str, float]:
    """A step for each batch of ``entries``, as they come; the losses, each a mean over samples.

    Parameters
    ----------
    entries : (S,) int64 of ``events``
    optimiser : of the centres
    """
    total = torch.zeros(3, dtype=torch.float64)
    # no entries would be split into one batch of none
    for batch in entries.split(rules.batch_size) if len(entries) else ():
        total += _step(table, events, batch, rules, optimiser, generator)
    temporal, node, reconstruction = (total / max(1, len(entries))).tolist()
    return {"loss": temporal + node + reconstruction, "temporal": temporal, "node": node,
            "reconstruction": reconstruction}


def _step(
    table: Table, events: Events, batch: Tensor, rules: Rules, optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> Tensor:
    """One step of SGD on the rows of a batch; the sums of the three weighted parts."""
    b, h, code = len(batch), rules.hist_len, rules.balance == "code"
    source = events.node[batch]
    before, exists = events.history(batch, h)
    past = torch.where(exists, events.other[before], 0)
    rows = torch.cat((
        source[:, None], past, events.other[batch][:, None], events.negatives(b, rules.negatives, generator)
    ), 1)
    g = embedding(rows, table.z)  # (B, R, dim): s, h_1..h_H, t, n_1..n_N
    delta = embedding(source, table.delta).requires_grad_()
    # every distance and angle that the loss needs is a product of s or some h with another row, (B, 1 + H, R)
    product = (g[:, : 1 + h] @ g.mT).requires_grad_()
    squared = torch.linalg.vector_norm(g, dim=2).square().requires_grad_()
    distance = (squared[:, : 1 + h, None] + squared[:, None] - 2 * product).clamp_min(0)
    length = squared.clamp_min(1e-12).sqrt()
    cos = product[:, 0] / (length[:, :1] * length)

    masked = rules.attention == "masked"
    attention = history_attention(distance[:, 0, 1 : 1 + h], exists, masked)
    elapsed = (events.time[batch][:, None] - torch.where(exists, events.time[before], 0)).float()
    kernel = torch.exp((1 if rules.kernel == "growth" else -1) * delta * elapsed.abs())
    ahead = intensity(distance[:, 0, 1 + h :], distance[:, 1:, 1 + h :], attention, kernel)
    temporal = temporal_loss(ahead, 1e-6 if code else 0.0).sum()
    norms = reconstruction_norms(
        cos[:, 1 + h], cos[:, 1 : 1 + h] * exists, exists if masked else torch.ones_like(exists), cos[:, 2 + h :]
    )
    reconstruction = rules.batch_weight * norms
    z = g[:, 0].clone().requires_grad_()
    q = table.soft_at(table.position(z))
    p = target_distribution(table.soft_at(embedding(source, table.anchor)))
    node = rules.node_weight * kl_divergence(p, q) * (1 if code else b)
    optimiser.zero_grad()
    (temporal + node + reconstruction).backward()
    change = _through_products(g, product.grad, squared.grad, -rules.lr)
    change[:, 0] -= rules.lr * z.grad
    _add_rows(table.z, rows, change)
    _add_rows(table.delta, source, -rules.lr * delta.grad)
    if not code and table.centres.grad is not None:
        table.centres.grad /= q.detach().sum(0).clamp_min(1)[:, None]
    optimiser.step()
    if rules.kernel == "decay":
        table.delta[source] = table.delta[source].clamp_min(0)
    return torch.stack((temporal.detach(), node.detach(), reconstruction.detach())).double()


def _through_products(g: Tensor, product: Tensor | None, squared: Tensor | None, factor: float) -> Tensor:
    """``factor`` dL/dG from the derivatives P by G_a G^T, (B, A, R), and S by |G|^2, (B, R): (P + P^T + 2 diag S) G.

    Autograd would run over (B, R, dim) for each operation; this is one product.
    """
    assert product is not None and squared is not None
    both = torch.diag_embed(2 * factor * squared)
    anchors = product.shape[1]
    both[:, :anchors] += factor * product
    both[:, :, :anchors] += factor * product.mT
    return both @ g


def _add_rows(table: Tensor, index: Tensor, change: Tensor) -> None:
    """table[index] += change in place, repeated rows adding up: a step of SGD on the rows of a batch alone.

    Parameters
    ----------
    table : (n, d)
    index : (...) int64
    change : (..., d)
    """
    d = table.shape[1]
    table.scatter_add_(0, index.reshape(-1, 1).expand(-1, d), change.reshape(-1, d))
