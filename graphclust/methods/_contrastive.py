"""SCGC, SCGC* and PamC but for their contrast: L = beta KL(P || Q) + alpha contrast (+ reconstruction)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from graphclust.encoders import Autoencoder
from graphclust.graph import Graph, InputError
from graphclust.losses import Pairs, kl_divergence, target_distribution
from graphclust.methods._autoencoder import AutoencoderClusterer
from graphclust.methods._blocks import BlockSampler
from graphclust.methods._consensus import consensus_labels
from graphclust.methods._features import Features, FeatureTransform
from graphclust.methods._network import ClusterNetwork, batches, dense_rows, whole_input
from graphclust.methods._trained import load_autoencoder
from graphclust.monitor import Monitor
from graphclust.propagation import influence
from graphclust.training import Checkpoints, CollapseGuard, Epoch, Phase, Settled, StopRule, train

# Above this many nodes batch_size=None means BATCH: the activations of one pass over all would take gigabytes.
FULL_BATCH_LIMIT = 50_000
BATCH = 4096
# Neighbours drawn for each node of a mini-batch.
FAN_OUT = 5
# Up to this many nodes the sum over all pairs of the neighbour contrast is exact; above, SAMPLED nodes stand for all.
EXACT_LIMIT = 20_000
SAMPLED = 4096


class ContrastiveClusterer(AutoencoderClusterer):
    """The shared part of SCGC, SCGC* and PamC.

    The defaults are one setting for all data, this project's own. No fit sees labels, but the setting was chosen by
    comparing results on labelled data sets, never per data set. The papers' methods, with their settings per data set,
    are in ``configs/graph/<method>/paper.yaml``; below, "paper:" is what SCGC, SCGC* and PamC have in common.

    Each epoch makes one forward pass: the target P is computed from that pass's own Q, detached. (The public code
    makes a second pass with the same weights for it; without dropout that gives the same P.) In mini-batches the
    cluster frequencies in P come from a pass without gradient over all nodes at the start of the epoch.

    Parameters
    ----------
    n_clusters : int
    epochs : int, default 100
        At most: most fits settle before, and those that do not begin to drift. Paper: 200, all of them.
    pretrain_epochs : int, default 30
        Epochs of reconstruction before, in batches of 256, with Adam at 1e-3.
    lr : float, default 1e-3
        Step size of Adam after the pre-training.
    alpha : float or "auto"
        Weight of the contrast; paper: per data set. "auto": 1 for PamC, whose contrast pushes K meta nodes apart; 0.1
        for SCGC and SCGC*, whose contrast pushes every node from all others and would outweigh KL(P || Q).
    beta : float, default 1
        Weight of KL(P || Q); paper: per data set.
    tau : float, default 1
        Inverse temperature of the contrast; paper: per data set.
    order : int, default 1
        r, steps of the influence; paper: per data set.
    influence : {"auto", "power", "cumulative", "ppr"}
        P^r, P + ... + P^r, or personalised PageRank truncated after r steps; P = D^-1 (A + I). "auto": what the
        method's paper uses, "power" for SCGC, "cumulative" for SCGC* and PamC.
    hidden : sequence of int, default (256, 256)
        Widths of the encoder's hidden layers; paper: (500, 500, 2000).
    latent_dim : int, default 10
    networks : int, default 1
        Networks trained side by side from different initial weights and one starting partition, whose soft assignments
        are averaged; paper: 1.
    batch_size : int or None
        Nodes a step; None: all of them up to 50,000 nodes, 4096 above. With a batch, five neighbours are drawn per
        node from the influence matrix.
    start : {"consensus", "kmeans"}
        Where the centres come from: :func:`graphclust.methods._consensus.consensus_labels` on the transformed
        features, or k-means (20 starts) on z; paper: "kmeans".
    stop : {"settled", "last"}
        Training ends once fewer than ``tol`` of the nodes changed cluster over ten epochs, or after the last epoch;
        paper: "last".
    tol : float, default 0.005
        Share of the nodes, for ``stop="settled"``.
    collapse_guard : float in [0, 1), default 0.5
        Training ends, at the weights before, when the effective number of clusters, exp(entropy of the sizes), falls
        below this share of what it was at the start. 0: off, as in the papers.
    weighting : {"auto", "none", "l2", "tfidf"}
        Of the features: none (paper); rows to length 1; tf-idf, then rows to length 1; "auto": "tfidf" for a bag of
        words, else "l2".
    n_components : int or None, default 256
        Truncated SVD of the features to that many columns, if they have more. None (paper): no.
    center : bool, default True
        Subtract the column means; paper: no.
    smoothing : int or "auto"
        Steps of D^-1/2 (A + I) D^-1/2 applied to the features, which the encoder gets and the decoder must return;
        paper: 0. "auto": as many as :func:`graphclust.methods._smoothing.smoothing_steps` finds for the graph.
    scale : bool, default True
        Divide the features by their root mean square; paper: no.
    geometry : {"cosine", "euclidean"}
        Where clusters are compact: z / ||z||, as the contrast sees it, or z (paper).
    bandwidth : float or "auto"
        Squared distance at which the Student-t kernel has fallen to one half; paper: 1. "auto": the mean squared
        distance of the nodes to their centre at the start, so that the balance of the losses follows the scale of z.
    encoder : str or None
        Folder of an auto-encoder that was trained elsewhere, as a federation of fedclust leaves it: it takes the place
        of the pre-training, and its own widths and preparation of the features that of ``hidden``, ``latent_dim``,
        ``weighting``, ``n_components``, ``center``, ``smoothing`` and ``scale``. With ``epochs=0`` it is used as it is.
    device : {"auto", "cpu", "cuda"}
    random_state : int, Generator or None
    """

    _influence: ClassVar[str] = "cumulative"
    """What ``influence="auto"`` means."""
    _alpha: ClassVar[float]
    """What ``alpha="auto"`` means."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **AutoencoderClusterer._parameter_constraints,
        "epochs": [Interval(Integral, 0, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "beta": [Interval(Real, 0, None, closed="left")],
        "tau": [Interval(Real, 0, None, closed="neither")],
        "order": [Interval(Integral, 1, None, closed="left")],
        "influence": [StrOptions({"auto", "power", "cumulative", "ppr"})],
        "networks": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left"), None],
        "start": [StrOptions({"kmeans", "consensus"})],
        "stop": [StrOptions({"last", "settled"})],
        "tol": [Interval(Real, 0, 1, closed="neither")],
        "encoder": [str, None],
        "collapse_guard": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        n_clusters: int | None = None,
        *,
        epochs: int = 100,
        pretrain_epochs: int = 30,
        lr: float = 1e-3,
        alpha: float | str = "auto",
        beta: float = 1.0,
        tau: float = 1.0,
        order: int = 1,
        influence: str = "auto",
        hidden: tuple[int, ...] = (256, 256),
        latent_dim: int = 10,
        networks: int = 1,
        batch_size: int | None = None,
        start: str = "consensus",
        stop: str = "settled",
        tol: float = 0.005,
        collapse_guard: float = 0.5,
        weighting: str = "auto",
        n_components: int | None = 256,
        center: bool = True,
        smoothing: int | str = "auto",
        scale: bool = True,
        geometry: str = "cosine",
        bandwidth: float | str = "auto",
        encoder: str | None = None,
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.epochs = epochs
        self.pretrain_epochs = pretrain_epochs
        self.lr = lr
        self.alpha = alpha
        self.beta = beta
        self.tau = tau
        self.order = order
        self.influence = influence
        self.hidden = hidden
        self.latent_dim = latent_dim
        self.networks = networks
        self.batch_size = batch_size
        self.start = start
        self.stop = stop
        self.tol = tol
        self.collapse_guard = collapse_guard
        self.weighting = weighting
        self.n_components = n_components
        self.center = center
        self.smoothing = smoothing
        self.scale = scale
        self.geometry = geometry
        self.bandwidth = bandwidth
        self.encoder = encoder
        self.device = device
        self.random_state = random_state

    def _check(self, graph: Graph) -> None:
        super()._check(graph)
        if self.encoder is not None and self.networks != 1:
            raise InputError(f"networks = {self.networks} with an encoder: all would be the same one; set networks = 1")

    def _held(self) -> tuple[Autoencoder, FeatureTransform] | None:
        return None if self.encoder is None else load_autoencoder(self.encoder)

    @abstractmethod
    def _contrast(self, z: Tensor, pairs: Pairs, labels: Tensor, columns: Tensor | None, population: int) -> Tensor:
        """The contrast of a block: z (m, latent) anchors first, pairs (a, m), labels (a,), columns a sample of ids."""

    def _refine(
        self, graph: Graph, x: Features, generator: torch.Generator, monitor: Monitor, checkpoints: Checkpoints
    ) -> tuple[list[dict[str, float]], dict[str, Any]]:
        kind = self._influence if self.influence == "auto" else self.influence
        # fused: one pass over the weights instead of one per arithmetic operation
        optimiser = torch.optim.Adam(self._ensemble.parameters(), lr=self.lr, fused=True)
        size = self.batch_size or (graph.n if graph.n <= FULL_BATCH_LIMIT else BATCH)
        make = self._whole_epoch if size >= graph.n else self._batch_epoch
        # the matrix has no name here: a whole epoch keeps its own copy of it only
        epoch = make(x, influence(graph.adjacency, self.order, kind), size, optimiser, generator)
        phase = Phase("training", self.epochs, self._ensemble, optimiser, generator, epoch)
        rules: list[StopRule] = [CollapseGuard(self.collapse_guard)] if self.collapse_guard else []
        if self.stop == "settled":
            rules.append(Settled(self.tol))
        train(phase, monitor, checkpoints, rules)
        return phase.history, {"epochs": len(phase.history), "stopped": phase.stopped or "last"}

    def _start(self, graph: Graph, zs: list[Tensor], seed: int) -> np.ndarray:
        if self.start == "kmeans":
            return super()._start(graph, zs, seed)
        features = self._transform.uncentred(graph)
        return consensus_labels(graph, features, self.n_clusters, seed).astype(np.int64)

    def _losses(
        self, network: ClusterNetwork, z: Tensor, x: Tensor | None, pairs: Pairs, frequencies: Tensor | None,
        columns: Tensor | None, n: int,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted parts of the loss on a block, and the soft assignment of its anchors, (a, K)."""
        a = pairs.shape[0]
        alpha = self._alpha if isinstance(self.alpha, str) else self.alpha
        q = network.assign(z[:a])
        fixed = q.detach()
        parts = {
            "kl": self.beta * kl_divergence(target_distribution(q, frequencies), q),
            "contrast": alpha * self._contrast(z, pairs, fixed.argmax(1), columns, n),
        }
        if network.decoder is not None and x is not None:
            parts["reconstruction"] = F.mse_loss(network.decoder.lean(z[:a]), x)
        return parts, fixed

    def _whole_epoch(
        self, x: Features, gamma: Any, size: int, optimiser: torch.optim.Optimizer, generator: torch.Generator
    ) -> Callable[[], Epoch]:
        n = x.shape[0]
        inputs = whole_input(x, self.device_)
        target = dense_rows(x, slice(None), self.device_) if self._reconstructs else None
        pairs = Pairs.from_scipy(gamma, self.device_)

        def epoch() -> Epoch:
            columns = None
            if n > EXACT_LIMIT:
                columns = torch.randperm(n, generator=generator)[:SAMPLED].to(self.device_)
            total: dict[str, float] = {}
            found = []
            for network in self._ensemble:
                optimiser.zero_grad()
                parts, q = self._losses(network, network.encoder.lean(inputs), target, pairs, None, columns, n)
                found.append(q)
                _add(total, _step(parts, optimiser), 1 / len(self._ensemble))
            return Epoch(total, torch.stack(found).mean(0).argmax(1))

        return epoch

    def _batch_epoch(
        self, x: Features, gamma: Any, size: int, optimiser: torch.optim.Optimizer, generator: torch.Generator
    ) -> Callable[[], Epoch]:
        n = x.shape[0]
        sampler = BlockSampler(gamma, FAN_OUT)

        def epoch() -> Epoch:
            with torch.no_grad():
                zs = self._ensemble.encode(x, self.device_)
                labels = self._ensemble.assign(zs).argmax(1)
                frequencies = [network.assign(z).sum(0) for network, z in zip(self._ensemble, zs, strict=True)]
            rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
            total: dict[str, float] = {}
            for seeds in batches(n, size, generator):
                nodes, sampled = sampler.block(seeds, rng)
                rows = dense_rows(x, nodes, self.device_)
                pairs = Pairs.from_scipy(sampled, self.device_)
                columns = torch.arange(len(seeds), device=self.device_)
                for network, frequency in zip(self._ensemble, frequencies, strict=True):
                    optimiser.zero_grad()
                    parts, _ = self._losses(
                        network, network.encoder.lean(rows), rows[: len(seeds)], pairs, frequency, columns, n
                    )
                    _add(total, _step(parts, optimiser), len(seeds) / (n * len(self._ensemble)))
            return Epoch(total, labels)

        return epoch


def _step(parts: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[str, float]:
    loss = torch.stack(list(parts.values())).sum()
    loss.backward()
    optimiser.step()
    return {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}}


def _add(total: dict[str, float], values: dict[str, float], share: float) -> None:
    for name, value in values.items():
        total[name] = total.get(name, 0.0) + share * value
