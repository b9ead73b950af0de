"""The pre-trained auto-encoder's latent, clustered by k-means: where SCGC and PamC start from."""

from __future__ import annotations

from typing import Any, ClassVar

from graphclust.methods._autoencoder import AutoencoderClusterer


class AEKMeans(AutoencoderClusterer):
    """The "AE" row of SDCN's tables: auto-encoder trained to reconstruct the features, then k-means on z.

    Ignores the edges unless ``smoothing`` > 0.

    Parameters
    ----------
    n_clusters : int
    pretrain_epochs : int, default 30
    hidden, latent_dim, weighting, n_components, center, smoothing, scale, geometry, device, random_state
        As in :class:`graphclust.methods._contrastive.ContrastiveClusterer`.
    """

    name = "ae_kmeans"
    summary = "k-means on the latent of an auto-encoder"
    source = "Bo et al. 2020 (SDCN), arXiv 2002.01633, section 4.1; Hinton & Salakhutdinov 2006"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        k: v for k, v in AutoencoderClusterer._parameter_constraints.items() if k != "bandwidth"
    }
    bandwidth = 1.0
    networks = 1

    def __init__(
        self,
        n_clusters: int | None = None,
        *,
        pretrain_epochs: int = 30,
        hidden: tuple[int, ...] = (500, 500, 2000),
        latent_dim: int = 10,
        weighting: str = "none",
        n_components: int | None = None,
        center: bool = False,
        smoothing: int = 0,
        scale: bool = False,
        geometry: str = "euclidean",
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.pretrain_epochs = pretrain_epochs
        self.hidden = hidden
        self.latent_dim = latent_dim
        self.weighting = weighting
        self.n_components = n_components
        self.center = center
        self.smoothing = smoothing
        self.scale = scale
        self.geometry = geometry
        self.device = device
        self.random_state = random_state
