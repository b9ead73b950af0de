"""Concept shift: the same picture carries another label, P(y|x) differs between clients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedclust.data.deal import Deal
from fedclust.data.settings import Settings, stream
from graphclust.graph import InputError


class ConceptShift(Settings):
    """Label maps and which client gets which.

    Parameters
    ----------
    maps : each a permutation of 0..C-1 written out, or steps joined by ">" and applied from left to right:
        "identity"; "reverse" (C-1-y); "reverse_first:m", "reverse_last:m" (only the first or last m labels);
        "next" or "next:m" ((y+m) mod C); "partial:m" (m labels chosen by the seed trade places, none keeps its own;
        the others stay)
    deal : how the maps go to the clients
    """

    maps: tuple[str | tuple[int, ...], ...] = ("identity",)
    deal: Deal = Deal()


def label_map(rule: str | tuple[int, ...], n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """The new label of every label, shape (C,): a permutation of 0..C-1.

    Raises
    ------
    InputError
        No permutation, an unknown step, a number of labels outside 1..C.
    """
    if not isinstance(rule, str):
        if sorted(rule) != list(range(n_classes)):
            raise InputError(
                f"the concept map {rule} is no permutation of 0..{n_classes - 1}; give each of these labels once"
            )
        return np.asarray(rule, dtype=np.int64)
    y = np.arange(n_classes)
    for step in rule.split(">"):
        y = _step(step.strip(), n_classes, rng)[y]
    return y


def label_maps(shift: ConceptShift, n_classes: int, seed: int) -> list[np.ndarray]:
    """All maps of a shift; the random ones are drawn for their place in the list."""
    return [label_map(rule, n_classes, stream(seed, "concept map", k)) for k, rule in enumerate(shift.maps)]


def _step(step: str, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    name, _, number = step.partition(":")
    if name not in _STEPS:
        raise InputError(f"unknown concept map {step!r}; known: {', '.join(_STEPS)}, joined by '>', or C integers")
    default = 1 if name == "next" else n_classes
    if number and not number.isdigit():
        raise InputError(f"the concept map {step!r} needs a whole number after ':', as in '{name}:4'")
    m = int(number) if number else default
    if not 1 <= m <= n_classes or (name == "partial" and m < 2):
        raise InputError(f"the concept map {step!r}: {m} labels of {n_classes}; give {2 if name == 'partial' else 1}"
                         f"..{n_classes}")
    return _STEPS[name](np.arange(n_classes), m, rng)


def _reverse_first(y: np.ndarray, m: int, _: np.random.Generator) -> np.ndarray:
    return np.concatenate((y[:m][::-1], y[m:]))


def _reverse_last(y: np.ndarray, m: int, _: np.random.Generator) -> np.ndarray:
    return np.concatenate((y[: len(y) - m], y[len(y) - m:][::-1]))


def _partial(y: np.ndarray, m: int, rng: np.random.Generator) -> np.ndarray:
    chosen = rng.choice(len(y), m, replace=False)
    moved = y.copy()
    moved[chosen] = np.roll(chosen, 1)  # one cycle through the chosen labels: none can keep its own
    return moved


_STEPS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "identity": lambda y, m, _: y,
    "reverse": lambda y, m, _: y[::-1],
    "reverse_first": _reverse_first,
    "reverse_last": _reverse_last,
    "next": lambda y, m, _: (y + m) % len(y),
    "partial": _partial,
}
