"""What an audit says: one row for each attempt to refute a method's claim."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from graphclust.methods._private import PrivateClusterer
from graphclust.privacy.ledger import Event
from graphclust.privacy.mechanisms import count_scale, private_count
from graphclust.privacy.sampling import Uniform


@dataclass(frozen=True)
class Finding:
    """One attempt.

    Attributes
    ----------
    audit : name of the attempt
    claim : the epsilon that the method states for what was attacked, at ``delta``
    delta : the delta of both epsilons
    lower_bound : an epsilon that was shown to be spent; None where the attempt shows none
    confidence : of ``lower_bound``: with at most 1 - confidence it is too high by chance; None: no chance is involved
    trials : pairs, runs or canaries that were tried
    violation : the claim is refuted
    detail : in words
    """

    audit: str
    claim: float
    delta: float
    lower_bound: float | None
    confidence: float | None
    trials: int
    violation: bool
    detail: str

    @property
    def verdict(self) -> str:
        """``pass`` (not refuted: no proof of privacy) or ``VIOLATION``."""
        return "VIOLATION" if self.violation else "pass"

    def as_dict(self) -> dict[str, Any]:
        """The attributes and the verdict, for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def delta_claimed(model: PrivateClusterer) -> float:
    """The delta of a method; 0 for a pure one."""
    return float(getattr(model, "delta", None) or 0.0)


def weight_of(model: PrivateClusterer) -> float:
    """The weight to give every edge of an audit: far above a public bound, so that a forgotten cut shows."""
    bound = getattr(model, "weight_bound", None)
    return 1.0 if bound is None else 3.0 * float(bound)


def events_before(model: PrivateClusterer, uniform: Uniform) -> list[Event]:
    """The events that stand in the ledger when the method calibrates its look at the edges."""
    if model.density is not None:
        return []
    return [private_count(0, count_scale(float(model.count_share) * float(model.epsilon)), uniform)[1]]
