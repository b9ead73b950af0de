"""FedProx: federated averaging whose clients are held near the model that they were sent."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fedclust.algorithms.base import Delivery, Report
from fedclust.algorithms.fedavg import FedAvg
from fedclust.task import Cohort


class FedProx(FedAvg):
    """Clients minimise l_i(theta) + (mu/2) |theta - theta_t|^2 (equation 2); the server averages as FedAvg does.

    Deviation: every client runs all its epochs and counts with n_i; the paper also lets slow clients stop early, and
    draws clients with probability n_i / n instead of weighing them.
    """

    source: ClassVar[str] = "Li et al., MLSys 2020, arXiv 1812.06127"

    mu: Annotated[float, Field(ge=0)] = 0.01
    """The authors try .001, .01, .1 and 1."""

    def local_step(self, cohort: Cohort, delivery: Delivery) -> Report:
        """Train with the proximal term."""
        return Report(cohort.train(delivery.models, self.training, prox=self.mu))
