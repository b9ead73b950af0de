"""FL+HC: federated averaging, then one hierarchical clustering of the clients' updates."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fedclust.algorithms._linkage import Distance, Linkage, cut_at_distance, cut_into, distances, in_order, merges
from fedclust.algorithms._one_shot import OneShot


class FLHC(OneShot):
    """n_1 rounds of FedAvg; agglomerative clustering of Delta_i = theta_i - theta; FedAvg in every cluster.

    This is algorithm 1. The published thresholds hold for one model and one step size; without one the tree is cut into
    ``n_groups``. Deviation: newcomers, which the paper leaves open, join the nearest centroid.
    """

    source: ClassVar[str] = "Briggs, Fan and Andras, IJCNN 2020, arXiv 2004.11791"

    warmup: Annotated[int, Field(ge=0)] = 10
    """n_1; the authors try 1, 3, 5 and 10."""
    distance: Distance = "euclidean"
    linkage: Linkage = "ward"
    n_groups: Annotated[int, Field(ge=1)] = 3
    """K, as long as no ``threshold`` is given."""
    threshold: Annotated[float, Field(gt=0)] | None = None
    """Largest height of a merge."""

    @model_validator(mode="after")
    def _fitting(self) -> FLHC:
        if self.linkage == "ward" and self.distance != "euclidean":
            raise ValueError(f"linkage ward needs distance euclidean, not {self.distance}; take complete or average")
        return self

    def groups_of(self, vectors: Tensor) -> Tensor:
        """Clusters of the tree below the threshold, or K of them."""
        if len(vectors) == 1:
            return torch.zeros(1, dtype=torch.long)
        tree = merges(distances(vectors, self.distance), self.linkage)
        if self.threshold is not None:
            return in_order(cut_at_distance(tree, self.threshold))
        return in_order(cut_into(tree, self.n_groups))
