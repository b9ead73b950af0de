"""What TGC learns, and one pass of its training over a stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from graphclust.losses import kl_divergence, soft_assignment, target_distribution
from graphclust.losses.temporal import (
    history_attention,
    intensity,
    reconstruction_norms,
    reconstruction_slopes,
    temporal_loss,
    temporal_slopes,
)
from graphclust.methods._events import Events
from graphclust.methods._network import KMEANS_LIMIT
from graphclust.methods.base import by_size, follow
from graphclust.stream import Stream

# Seen on planted streams: parts of one community .5 to .9, two communities .1 to .3; on primary_school: two classes up
# to .5. At 1 no merger would be found, for clusters fit the noise of their window.
ALIKE = 0.5


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
    def grown(self, stream: Stream, rng: np.random.Generator) -> Table:
        """The same with rows for all nodes of ``stream``.

        A new node's vector is the mean of those that it meets; of one that meets new ones alone, a random one of length
        1, as at the start.
        """
        known = len(self.z)
        graph = stream.graph().adjacency[known:, :known]
        z = graph @ self.z.numpy() / np.maximum(graph.sum(axis=1), 1)[:, None]
        anywhere = rng.standard_normal(z.shape)
        anywhere /= np.linalg.norm(anywhere, axis=1, keepdims=True)
        z = np.concatenate((self.z.numpy(), np.where(z.any(1, keepdims=True), z, anywhere).astype(np.float32)))
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


@torch.no_grad()
def _step(
    table: Table, events: Events, batch: Tensor, rules: Rules, optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> Tensor:
    """One step of SGD on the rows of a batch; the sums of the three weighted parts.

    Derivatives are written out, d_x being dL/dx: on so many small tensors autograd would take longer than the sums do.
    """
    h = rules.hist_len
    source = events.node[batch]
    before, exists = events.history(batch, h)
    past = torch.where(exists, events.other[before], 0)
    rows = torch.cat((
        source[:, None], past, events.other[batch][:, None], events.negatives(len(batch), rules.negatives, generator)
    ), 1)
    elapsed = (events.time[batch][:, None] - torch.where(exists, events.time[before], 0)).abs().float()
    g = embedding(rows, table.z)  # (B, R, dim): s, h_1..h_H, t, n_1..n_N
    # every distance and angle that the loss needs is a product of s or some h with another row, (B, 1 + H, R)
    product = g[:, : 1 + h] @ g.mT
    length = torch.linalg.vector_norm(g, dim=2).clamp_min(1e-6)
    squared, scale = length.square(), length[:, :1] * length
    distance = (squared[:, : 1 + h, None] + squared[:, None] - 2 * product).clamp_min(0)
    cos = product[:, 0] / scale

    temporal, d_distance, d_delta = _temporal(distance, table.delta[source], elapsed, exists, rules)
    reconstruction, d_cos = _reconstruction(cos, exists, rules)
    node, d_cross, d_length, d_centres = _node(table, g[:, 0], length[:, :1], source, rules)

    d_product = -2 * d_distance
    d_product[:, 0] += d_cos / scale
    turned = d_cos * cos
    turned[:, 0] = turned.sum(1)
    d_squared = d_distance.sum(1) - turned / (2 * squared)
    d_squared[:, : 1 + h] += d_distance.sum(2)
    d_squared[:, 0] += d_length
    change = _through_products(g, d_product, d_squared, -rules.lr)
    change[:, 0].addmm_(d_cross, table.position(table.centres), alpha=-rules.lr)
    _add_rows(table.z, rows, change)
    _add_rows(table.delta, source, -rules.lr * d_delta)
    table.centres.grad = d_centres
    optimiser.step()
    if rules.kernel == "decay":
        table.delta[source] = table.delta[source].clamp_min(0)
    return torch.stack((temporal, node, reconstruction)).double()


def _temporal(
    distance: Tensor, delta: Tensor, elapsed: Tensor, exists: Tensor, rules: Rules
) -> tuple[Tensor, Tensor, Tensor]:
    """L_tem summed over a batch, and its derivatives by the distances (B, 1 + H, R) and by delta (B, 1)."""
    h, masked, floor = rules.hist_len, rules.attention == "masked", 1e-6 if rules.balance == "code" else 0.0
    rate = elapsed if rules.kernel == "growth" else -elapsed
    to_past, to_source, to_history = distance[:, 0, 1 : 1 + h], distance[:, 0, 1 + h :], distance[:, 1:, 1 + h :]
    attention, kernel = history_attention(to_past, exists, masked), torch.exp(delta * rate)
    ahead = intensity(to_source, to_history, attention, kernel)
    d_ahead = temporal_slopes(ahead, floor)
    weight = attention * kernel
    d_log = -weight * (to_history * d_ahead[:, None]).sum(2)  # by log of the weight
    share = attention if masked else torch.softmax(-to_past, 1)
    d_distance = torch.zeros_like(distance)
    d_distance[:, 0, 1 : 1 + h] = share * d_log.sum(1, keepdim=True) - d_log
    d_distance[:, 0, 1 + h :] = -d_ahead
    d_distance[:, 1:, 1 + h :] = -weight[:, :, None] * d_ahead[:, None]
    return temporal_loss(ahead, floor).sum(), d_distance, (rate * d_log).sum(1, keepdim=True)


def _reconstruction(cos: Tensor, exists: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """w_batch L_batch, and its derivative by the angles (B, R) of s with each row; with itself: 0."""
    h = rules.hist_len
    seen = exists if rules.attention == "masked" else torch.ones_like(exists)
    angles = cos[:, 1 + h], cos[:, 1 : 1 + h] * exists, seen, cos[:, 2 + h :]
    d_target, d_history, d_negatives = reconstruction_slopes(*angles)
    d_cos = torch.cat((torch.zeros_like(cos[:, :1]), d_history * exists, d_target[:, None], d_negatives), 1)
    return rules.batch_weight * reconstruction_norms(*angles), rules.batch_weight * d_cos


def _node(
    table: Table, z: Tensor, length: Tensor, source: Tensor, rules: Rules
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w_node L_node of a batch, and its derivatives by z_s mu_j (B, K), by |z_s|^2 (B,) and by the centres; mu_j are
    the positions of the centres.

    dKL / d||u_s - mu_j||^2 = kernel_sj (p_sj - q_sj) / bandwidth (DEC eq. 4).
    """
    centres, code = table.position(table.centres), rules.balance == "code"
    weight = rules.node_weight * (1 / len(z) if code else 1)
    norm = length if table.cosine else torch.ones_like(length)
    inner = z @ centres.T / norm
    squared = (length / norm).square() + centres.square().sum(1) - 2 * inner
    kernel = 1 / (1 + squared.clamp_min(0) / table.bandwidth)
    q = kernel / kernel.sum(1, keepdim=True)
    p = target_distribution(table.soft_at(embedding(source, table.anchor)))
    pull = weight / table.bandwidth * kernel * (p - q)
    d_cross = -2 * pull / norm
    d_centres = d_cross.T @ z
    if table.cosine:
        d_length = (pull * inner).sum(1) / length[:, 0].square()
        d_centres -= (d_centres * centres).sum(1, keepdim=True) * centres
        d_centres /= torch.linalg.vector_norm(table.centres, dim=1, keepdim=True).clamp_min(1e-12)
    else:
        d_length = pull.sum(1)
        d_centres += 2 * pull.sum(0)[:, None] * centres
    if not code:
        d_centres /= q.sum(0).clamp_min(1)[:, None]
    return weight * len(z) * kl_divergence(p, q), d_cross, d_length, d_centres


def _through_products(g: Tensor, product: Tensor, squared: Tensor, factor: float) -> Tensor:
    """``factor`` dL/dG from the derivatives P by G_a G^T, (B, A, R), and S by |G|^2, (B, R): (P + P^T + 2 diag S) G.

    Through every distance and angle on its own it would be an operation over (B, R, dim) each; this is one product.
    """
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


def fuse(labels: np.ndarray, graphs: list[sp.csr_array]) -> np.ndarray:
    """Make one of the clusters that no graph tells apart, those most alike first; the larger one keeps its id.

    Two clusters are as alike as w_ab / sqrt(w_aa w_bb), w_ab being the weight of the edges between their nodes: 1 for
    two parts of one community, whatever their sizes and the degrees of their nodes. They are one if they are ``ALIKE``
    in every graph. (Modularity, which compares with all other clusters, would join small ones that are far apart.)

    Parameters
    ----------
    labels : (n,), -1 for nodes that do not count
    graphs : (n, n) each, symmetric
    """
    labels = labels.copy()
    while True:
        alike = np.min([_alike(labels, graph) for graph in graphs], axis=0)
        a, b = np.unravel_index(alike.argmax(), alike.shape)
        if alike[a, b] < ALIKE:
            return labels
        if (labels == a).sum() < (labels == b).sum():
            a, b = b, a
        labels[labels == b] = a


def _alike(labels: np.ndarray, graph: sp.csr_array) -> np.ndarray:
    """How alike each two clusters are, (K, K); 0 where one has no edge inside, and on the diagonal."""
    nodes = np.flatnonzero(labels >= 0)
    member = sp.csr_array((np.ones(len(nodes)), (labels[nodes], nodes)), shape=(labels.max() + 1, len(labels)))
    weight = (member @ graph @ member.T).toarray()
    inside = np.sqrt(np.outer(weight.diagonal(), weight.diagonal()))
    np.fill_diagonal(weight, 0)
    return np.divide(weight, inside, out=np.zeros_like(weight), where=inside > 0)
