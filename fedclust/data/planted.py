"""Which variant of every shift each client of a federation has: the truth that is kept aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedclust.data.client import ClientData, Federation, Kept, OnDemand, Split
from fedclust.data.concept import label_maps
from fedclust.data.deal import Deal, deal
from fedclust.data.feature import Corruption, check_shape
from graphclust.graph import InputError

if TYPE_CHECKING:
    from fedclust.data.spec import FederationSpec

ORDER = ("concept", "domain", "label", "feature")
"""What the true groups are when a federation does not say: the first of these that varies."""


class Planted:
    """The variants of all clients.

    Parameters
    ----------
    spec : the federation's declaration
    ids : the training clients, sorted
    n_classes : C
    others : further variants by name: how many there are and how they are dealt

    Attributes
    ----------
    counts : number of variants by name
    of : variant by name and client id
    maps : the label map (C,) of every concept
    """

    def __init__(
        self, spec: FederationSpec, ids: list[str], n_classes: int, others: dict[str, tuple[int, Deal]] | None = None
    ) -> None:
        self._spec = spec
        self.maps = label_maps(spec.concept, n_classes, spec.seed)
        rules = {
            "concept": (len(self.maps), spec.concept.deal),
            "feature": (len(spec.feature.variants), spec.feature.deal),
            **(others or {}),
        }
        self.counts = {name: count for name, (count, _) in rules.items()}
        self.of: dict[str, dict[str, int]] = {
            name: dict(zip(ids, deal(rule, count, len(ids), spec.seed, name), strict=True))
            for name, (count, rule) in rules.items()
        }

    def add(self, client: str, **variants: int) -> None:
        """A newcomer and its variants; what is not given is the first."""
        for name in self.of:
            self.of[name][client] = variants.get(name, 0)

    def add_in_turn(self, clients: list[str]) -> None:
        """Newcomers that get the variants in turn, whatever the rule for the training clients."""
        for j, client in enumerate(clients):
            self.add(client, **{name: j % count for name, count in self.counts.items()})

    def check_features(self, shape: tuple[int, ...]) -> None:
        """InputError where a variant that some client has cannot be applied to samples of that shape."""
        for f in set(self.of["feature"].values()):
            check_shape(self._spec.feature.variants[f], shape)

    def corruption(self, client: str) -> Corruption:
        """The client's change of the features."""
        return self._spec.feature.variants[self.of["feature"][client]]

    def labels(self, client: str, y: np.ndarray) -> torch.Tensor:
        """Labels under the client's concept."""
        return torch.from_numpy(self.maps[self.of["concept"][client]][y])

    def federation(
        self, make: Callable[[str], ClientData], clients: Mapping[str, int], unseen: Mapping[str, int], n_classes: int
    ) -> Federation:
        """The federation with its truth: every variant that varies, and "group" when groups are planted.

        Parameters
        ----------
        make : gives the client of an id, by streams of its own
        clients, unseen : how many training samples (a newcomer: support) each will have, by id
        """
        truth = {name: of for name, of in self.of.items() if self.counts[name] > 1}
        by: str | None = self._spec.group_by
        if by is not None and by not in self.of:
            raise InputError(f"group_by = {by!r}; partition {self._spec.partition.kind!r} plants {', '.join(self.of)}")
        by = by or next((name for name in ORDER if self.counts.get(name, 1) > 1), None)
        if by is not None:
            truth |= {by: self.of[by], "group": self.of[by]}
        kept = Kept(make, n_classes)
        known, new = (OnDemand(dict(sorted(part.items())), kept) for part in (clients, unseen))
        return Federation(known, new, n_classes, truth)


def empty(like: Split) -> Split:
    """No samples, of the same shape."""
    return Split(like.x[:0], like.y[:0])
