"""Encoders and auto-encoders, and how they are stored."""

from graphclust.encoders.autoencoder import Autoencoder
from graphclust.encoders.mlp import MLP
from graphclust.encoders.store import load_tensors, save_tensors

__all__ = ["MLP", "Autoencoder", "load_tensors", "save_tensors"]
