"""The auto-encoder that SDCN, SCGC and PamC share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from graphclust.encoders.mlp import MLP


class Autoencoder(nn.Module):
    """Encoder d -> hidden -> latent and its mirror image (SDCN, arXiv 2002.01633, section 3.2).

    Parameters
    ----------
    n_features : d
    hidden : widths of the hidden layers; (500, 500, 2000) in the papers
    latent_dim : width of the latent; 10 in the papers
    generator : source of the initial weights
    """

    def __init__(
        self,
        n_features: int,
        hidden: Sequence[int] = (500, 500, 2000),
        latent_dim: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = (n_features, *hidden, latent_dim)
        self.encoder = MLP(sizes, generator)
        self.decoder = MLP(sizes[::-1], generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent (n, latent_dim) and reconstruction (n, d)."""
        z = self.encoder(x)
        return z, self.decoder(z)
