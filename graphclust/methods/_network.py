"""Encoder, cluster centres and, where a method reconstructs, decoder: what the deep methods train."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from graphclust.encoders import MLP, Autoencoder
from graphclust.encoders.sparse import SparseInput
from graphclust.losses import soft_assignment
from graphclust.methods._features import Features
from graphclust.training import Epoch

# Rows encoded at a time outside of training.
CHUNK = 1024
# k-means looks at no more nodes than this, drawn uniformly.
KMEANS_LIMIT = 100_000


class ClusterNetwork(nn.Module):
    """z = encoder(x), u = z or z / ||z||, q = Student t of u against the centres.

    Parameters
    ----------
    encoder, decoder : the decoder is None where the method does not reconstruct
    n_clusters : K
    cosine : u = z / ||z||, and the centres likewise
    """

    def __init__(self, encoder: MLP, decoder: MLP | None, n_clusters: int, cosine: bool) -> None:
        super().__init__()
        self.encoder, self.decoder, self.cosine = encoder, decoder, cosine
        self.centres = nn.Parameter(torch.zeros(n_clusters, encoder.layers[-1].out_features))
        self.register_buffer("bandwidth", torch.ones(()))

    def position(self, z: Tensor) -> Tensor:
        """u, where the clusters are compact, shape (n, latent)."""
        return F.normalize(z, dim=1) if self.cosine else z

    def assign(self, z: Tensor) -> Tensor:
        """q, shape (n, K)."""
        return soft_assignment(self.position(z), self.position(self.centres), self.bandwidth)

    @torch.no_grad()
    def start(self, z: Tensor, labels: Tensor, adapt_bandwidth: bool) -> None:
        """Set the centres to the cluster means of u, and the bandwidth to the mean squared distance to the own one.

        A cluster without nodes gets the node that lies farthest from its centre, the next one the second, ...
        """
        u = self.position(z)
        sums = torch.zeros_like(self.centres).index_add_(0, labels, u)
        sizes = torch.bincount(labels, minlength=len(sums))
        centres = self.position(sums / sizes.clamp_min(1)[:, None])
        squared = (u - centres[labels]).square().sum(1)
        empty = torch.nonzero(sizes == 0).ravel()
        centres[empty] = u[squared.argsort(descending=True, stable=True)[: len(empty)]]
        self.centres.copy_(centres)
        if adapt_bandwidth and squared.mean() > 0:
            self.bandwidth.copy_(squared.mean())


class Ensemble(nn.Module):
    """R networks whose columns mean the same clusters; their mean q is the assignment.

    Averaging takes away what only the random initial weights decided (as deep ensembles do for class probabilities,
    Lakshminarayanan et al. 2017, arXiv 1612.01474). No columns need matching: all start from one partition.

    Parameters
    ----------
    networks : R of them, R >= 1
    """

    def __init__(self, networks: Iterable[ClusterNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def __iter__(self) -> Iterator[ClusterNetwork]:
        return iter(self.networks)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.networks)

    def encode(self, x: Features, device: torch.device) -> list[Tensor]:
        """z of all rows of ``x`` without gradient, (n, latent) for each network."""
        return [encode(network.encoder, x, device) for network in self]

    def position(self, zs: Sequence[Tensor]) -> Tensor:
        """All u side by side, shape (n, R latent), such that squared distances are means over the networks."""
        return torch.cat([network.position(z) for network, z in zip(self, zs, strict=True)], 1) / math.sqrt(len(zs))

    def assign(self, zs: Sequence[Tensor]) -> Tensor:
        """Mean q, shape (n, K)."""
        return torch.stack([network.assign(z) for network, z in zip(self, zs, strict=True)]).mean(0)


def kmeans_labels(u: np.ndarray, n_clusters: int, seed: int, n_init: int) -> np.ndarray:
    """Lloyd's k-means on (n, d); above 100,000 nodes fitted on a uniform sample."""
    fit, limit = u, max(KMEANS_LIMIT, 20 * n_clusters)
    if len(u) > limit:
        fit = u[np.random.default_rng(seed).choice(len(u), limit, replace=False)]
    return KMeans(n_clusters, n_init=n_init, random_state=seed).fit(fit).predict(u)


def encode(encoder: MLP, x: Features, device: torch.device) -> Tensor:
    """z of all rows of ``x`` without gradient, in chunks, shape (n, latent), on ``device``."""
    with torch.no_grad():
        return torch.cat([encoder(dense_rows(x, slice(i, i + CHUNK), device)) for i in range(0, x.shape[0], CHUNK)])


def dense_rows(x: Features, rows: slice | np.ndarray, device: torch.device) -> Tensor:
    """Some rows of the features as a dense tensor on ``device``."""
    picked = x[rows]
    picked = picked.toarray() if sp.issparse(picked) else np.ascontiguousarray(picked)
    # as_tensor would share memory with the user's array
    return torch.tensor(picked, dtype=torch.float32, device=device)


def whole_input(x: Features, device: torch.device) -> Tensor | SparseInput:
    """All features on ``device``, sparse if they are; on the CPU a view, which nothing may write to."""
    return SparseInput(x, device) if sp.issparse(x) else torch.as_tensor(x, device=device)


def batches(n: int, size: int, generator: torch.Generator) -> Iterator[np.ndarray]:
    """A random partition of 0..n-1 into batches of ``size``, the last one smaller."""
    for batch in torch.randperm(n, generator=generator).split(size):
        yield batch.numpy()


def reconstruction_epoch(
    autoencoders: Sequence[Autoencoder], x: Features, size: int, device: torch.device,
    optimiser: torch.optim.Optimizer, generator: torch.Generator,
) -> Callable[[], Epoch]:
    """One pass of pre-training: mean squared reconstruction error over shuffled batches (SDCN, data/pretrain.py)."""

    def epoch() -> Epoch:
        total = 0.0
        for autoencoder in autoencoders:
            for rows in batches(x.shape[0], size, generator):
                batch = dense_rows(x, rows, device)
                # the others have no gradient, and Adam leaves them alone
                optimiser.zero_grad()
                loss = F.mse_loss(autoencoder(batch)[1], batch)
                loss.backward()
                optimiser.step()
                total += loss.item() * len(rows)
        return Epoch({"reconstruction": total / (x.shape[0] * len(autoencoders))})

    return epoch
