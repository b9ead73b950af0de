"""Which variant (concept, feature shift, class support, size...) each client gets."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedclust.data.settings import Settings, stream
from graphclust.graph import InputError

_LARGEST_DECK = 100


class Deal(Settings):
    """How the variants of a shift go to the clients, numbered 0, 1, ... in the order of their ids.

    Parameters
    ----------
    how : "cycle": client i gets variant i mod k; "blocks": consecutive clients share a variant; "dealt": from shuffled
        decks that hold the variants in the given shares, one card a client, so that shares are exact over every whole
        deck and a client keeps its card when clients are added
    shares : one positive number a variant, in any unit (clients or fractions); None: equal shares. "cycle" takes none
    """

    how: Literal["cycle", "blocks", "dealt"] = "cycle"
    shares: tuple[Annotated[float, Field(gt=0)], ...] | None = None


def deal(rule: Deal, n_variants: int, n_clients: int, seed: int, purpose: str) -> list[int]:
    """The variant of each of ``n_clients`` clients.

    Parameters
    ----------
    purpose : names the deal; two deals of one federation are independent

    Raises
    ------
    InputError
        Shares that are not one a variant, shares with "cycle", fewer clients than blocks.
    """
    if rule.shares is not None and len(rule.shares) != n_variants:
        raise InputError(
            f"{purpose}: {len(rule.shares)} shares for {n_variants} variants; give one share a variant, or none"
        )
    shares = np.full(n_variants, 1 / n_variants) if rule.shares is None else np.array(rule.shares) / sum(rule.shares)
    if rule.how == "cycle":
        if rule.shares is not None:
            raise InputError(f"{purpose}: shares = {rule.shares} with how = 'cycle'; 'blocks' and 'dealt' take shares")
        return [i % n_variants for i in range(n_clients)]
    if rule.how == "blocks":
        if n_clients < n_variants:
            raise InputError(
                f"{purpose}: {n_clients} clients for {n_variants} blocks; raise n_clients or drop variants"
            )
        return np.repeat(np.arange(n_variants), apportion(shares, n_clients)).tolist()
    deck = np.repeat(np.arange(n_variants), _deck(shares))
    n_decks = -(-n_clients // len(deck))
    cards = [stream(seed, "deal", purpose, b).permutation(deck) for b in range(n_decks)]
    return np.concatenate(cards)[:n_clients].tolist()


def apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Integers (k,) that sum to ``total`` in the given shares (summing to 1): largest remainders, first come first."""
    exact = np.asarray(shares) * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def _deck(shares: np.ndarray) -> np.ndarray:
    """The smallest deck in which every variant has a whole number of cards, or the nearest one of 100 cards."""
    for size in range(len(shares), _LARGEST_DECK):
        counts = shares * size
        if np.allclose(counts, np.round(counts), atol=1e-6):
            return np.round(counts).astype(np.int64)
    return apportion(shares, _LARGEST_DECK)
