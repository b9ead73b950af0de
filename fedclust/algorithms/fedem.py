"""FedEM: every client's data are a mixture of K distributions that all clients share."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from fedclust.algorithms._mixture import Mixture
from fedclust.algorithms.base import Delivery
from fedclust.task import Cohort


class FedEM(Mixture):
    """gamma_ijk = softmax_k(ln pi_ik - l_ijk); pi_ik = mean_j gamma_ijk; theta_k <- sum_i (n_i / n) theta_ik.

    This is algorithm 1; a client predicts with sum_k pi_ik softmax(theta_k(x)). Deviations: the mean goes over the
    round's replies (the authors' code averages all clients even when only some have trained); pruning, off by default,
    is not in the paper.
    """

    source: ClassVar[str] = "Marfoq et al., NeurIPS 2021, arXiv 2108.10252"
    hard: ClassVar[bool] = False

    aggregation: Literal["omega", "n"] = "n"
    """Weight of client i in the mean of model k: n_i as in the paper, or n_i pi_ik."""

    def costs(self, cohort: Cohort, delivery: Delivery) -> Tensor:
        """Cross-entropies l_ijk."""
        return cohort.losses(delivery.models)
