"""Feature shift: the same label, another look; P(x) differs between clients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import model_validator

from fedclust.data.deal import Deal
from fedclust.data.settings import Settings
from graphclust.graph import InputError

Kind = Literal["clean", "noise", "contrast", "blur", "rotate", "brightness", "invert"]
_ON_IMAGES = ("blur", "rotate")


class Corruption(Settings):
    """One change of the features, on training and test samples alike.

    Parameters
    ----------
    kind : "clean" (none); "noise" (Gaussian, standard deviation ``amount``); "contrast" (distance from the sample's
        mean times ``amount``); "blur" (Gaussian, standard deviation ``amount`` pixels); "rotate" (by ``amount``
        degrees); "brightness" (``amount`` added); "invert" (1 - x)
    amount : see kind; ignored by "clean" and "invert"
    """

    kind: Kind = "clean"
    amount: float = 0.0

    @model_validator(mode="after")
    def _check(self) -> Corruption:
        if not math.isfinite(self.amount) or (self.kind in ("noise", "contrast", "blur") and self.amount < 0):
            raise InputError(f"{self.kind}: amount = {self.amount}; it must be finite and >= 0")
        return self

    @property
    def name(self) -> str:
        """Kind and amount, as tables and ids show them."""
        return self.kind if self.kind in ("clean", "invert") else f"{self.kind}{self.amount:g}"


class FeatureShift(Settings):
    """Corruptions and which client gets which.

    Parameters
    ----------
    variants : the first is usually Corruption(kind="clean")
    deal : how they go to the clients
    """

    variants: tuple[Corruption, ...] = (Corruption(),)
    deal: Deal = Deal()


def corrupt(x: np.ndarray, corruption: Corruption, rng: np.random.Generator) -> np.ndarray:
    """Apply ``corruption`` to samples ``x``, (n, channels, height, width) in [0, 1] or (n, d) of any range.

    Images are clipped to [0, 1] afterwards.

    Raises
    ------
    InputError
        Blur or rotation of samples that are no images.
    """
    check_shape(corruption, x.shape[1:])
    changed = _KINDS[corruption.kind](x, corruption.amount, rng).astype(np.float32, copy=False)
    return np.clip(changed, 0, 1) if x.ndim == 4 else changed


def check_shape(corruption: Corruption, shape: tuple[int, ...]) -> None:
    """InputError for blur or rotation of samples of a ``shape`` that is no image's (channels, height, width)."""
    if len(shape) != 3 and corruption.kind in _ON_IMAGES:
        raise InputError(
            f"the feature shift {corruption.kind!r} needs images and the samples have shape {shape}; "
            "use noise or contrast, or a source of images"
        )


def translate(x: np.ndarray, most: int, rng: np.random.Generator, *, vertical: bool) -> np.ndarray:
    """Move each image of ``x`` (n, c, h, w) by -most..most pixels sideways, and up or down too if ``vertical``.

    What comes in is black.
    """
    n, _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (most, most), (most, most)))
    right = rng.integers(0, 2 * most + 1, (n, 1, 1))[:, 0, 0]
    down = rng.integers(0, 2 * most + 1, (n, 1, 1))[:, 0, 0] if vertical else np.full(n, most)
    return sliding_window_view(padded, (h, w), axis=(2, 3))[np.arange(n), :, down, right]


def _contrast(x: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    mean = x.mean(axis=tuple(range(1, x.ndim)), keepdims=True)
    return mean + amount * (x - mean)


def _blur(x: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    from scipy import ndimage  # long to import, and only some federations need it

    return ndimage.gaussian_filter(x, (0, 0, amount, amount))


def _rotate(x: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    from scipy import ndimage

    return ndimage.rotate(x, amount, axes=(2, 3), reshape=False, order=1)


_KINDS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "clean": lambda x, a, rng: x,
    "noise": lambda x, a, rng: x + rng.normal(0, a, x.shape),
    "contrast": _contrast,
    "blur": _blur,
    "rotate": _rotate,
    "brightness": lambda x, a, rng: x + a,
    "invert": lambda x, a, rng: 1 - x,
}
