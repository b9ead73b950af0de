"""Encoders and auto-encoders, and how they are stored."""

from typing import Any

from graphclust.encoders.autoencoder import Autoencoder
from graphclust.encoders.convnet import ConvNet
from graphclust.encoders.gcn import GCN
from graphclust.encoders.mlp import MLP
from graphclust.encoders.store import load_tensors, save_tensors

__all__ = ["GCN", "MLP", "Autoencoder", "ConvNet", "describe_encoders", "load_tensors", "save_tensors"]


def describe_encoders() -> list[dict[str, Any]]:
    """Name and first line of the description of every encoder, for ``graphclust list encoders``."""
    encoders = (MLP, Autoencoder, ConvNet, GCN)
    return [{"name": c.__name__, "summary": (c.__doc__ or "").partition("\n")[0]} for c in encoders]
