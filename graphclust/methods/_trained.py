"""An auto-encoder that was trained elsewhere, with the preparation of the features that it was trained on."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from graphclust.encoders import Autoencoder, load_tensors, save_tensors
from graphclust.graph import InputError
from graphclust.methods._features import FeatureTransform

KIND = "autoencoder"


def save_autoencoder(folder: str | Path, weights: dict[str, Tensor], transform: FeatureTransform) -> None:
    """Write the weights of an :class:`graphclust.encoders.Autoencoder`, under its own names, and the transform.

    Parameters
    ----------
    folder : made if need be
    weights : ``encoder.layers.<i>.weight`` (out, in), ``.bias`` (out,), and the decoder's
    transform : fitted
    """
    layers = [t for name, t in weights.items() if name.startswith("encoder.") and name.endswith(".weight")]
    sizes = [layers[0].shape[1], *(len(t) for t in layers)]
    arrays, plain = transform.parts()
    save_tensors(folder, {**weights, **arrays}, {"kind": KIND, "sizes": sizes, "transform": plain})


def load_autoencoder(folder: str | Path) -> tuple[Autoencoder, FeatureTransform]:
    """What :func:`save_autoencoder` wrote; InputError when the folder holds something else."""
    tensors, description = load_tensors(folder)
    if description.get("kind") != KIND:
        raise InputError(f"{folder} holds no auto-encoder; give a folder like model/encoder of a fedclust run")
    d, *hidden, latent = description["sizes"]
    autoencoder = Autoencoder(d, hidden, latent)
    autoencoder.load_state_dict({name: t for name, t in tensors.items() if not name.startswith("transform.")})
    return autoencoder, FeatureTransform.from_parts(tensors, description["transform"])
