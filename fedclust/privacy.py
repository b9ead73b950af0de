"""What clients do to their replies before these leave: the settings, and what they allow.

What the noise is worth is in :mod:`fedclust.wire_privacy`; it is drawn in :mod:`fedclust.noising`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fedclust.algorithms import FederatedAlgorithm
from graphclust.graph import InputError

NO_SECURE_AGGREGATION = (
    "secure_aggregation = true: Flower has secure aggregation in its legacy API only, which these apps do not speak, "
    "so the server sees every client's update; leave it out, and add noise at the clients where that is too much"
)
HISTOGRAMS = ("counts", "labels")
"""Arrays that are label counts."""
BOUNDED = ("weights", "group", *HISTOGRAMS)
"""Arrays that can be brought onto a simplex, so that noise can cover them."""
VACUOUS = 30.0
"""From this epsilon on nothing is promised: e^30 times more probable is no protection."""
MENDS = {
    "likelihood": "restarts=1",
    "losses": "similarity=updates",
    "accuracy": "an algorithm without discriminators, for example hierarchical or community with similarity updates",
}


def _refused(value: bool) -> bool:
    if value:
        raise InputError(NO_SECURE_AGGREGATION)
    return value


SecureAggregation = Annotated[bool, AfterValidator(_refused)]
"""A setting that is there to be refused with the reason."""


class Privacy(BaseModel):
    """What clients do to their replies before these leave; by default nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest L2 norm of a client's joint update; it turns the noise on updates on."""
    noise_multiplier: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of the noise over the sensitivity; or ``epsilon`` is given, and this follows."""
    epsilon: Annotated[float, Field(gt=0, lt=VACUOUS)] | None = None
    """Of all rounds together."""
    delta: Annotated[float, Field(ge=1e-9, lt=1)] = 1e-5
    """Of all rounds together, with either epsilon."""
    label_histogram: Literal["exact", "noised", "dropped"] = "exact"
    """dropped: an algorithm that sends label counts is refused."""
    label_epsilon: Annotated[float, Field(gt=0, lt=VACUOUS)] | None = None
    """Of the label counts of all rounds together."""
    metrics: Literal["dropped", "sent"] = "dropped"
    """With ``clip``, on real clients: accuracies and losses, which no noise covers. A simulation always has them."""
    secure_aggregation: SecureAggregation = False
    """Refused when true."""

    @model_validator(mode="after")
    def _fits_together(self) -> Privacy:
        if self.clip is None and (self.noise_multiplier or self.epsilon):
            raise InputError("privacy.noise_multiplier or privacy.epsilon without privacy.clip: the noise is measured "
                             "by the largest update; give clip too, for example 1.0")
        if self.clip is not None and (self.noise_multiplier is None) == (self.epsilon is None):
            raise InputError("privacy.clip needs noise: give one of noise_multiplier and epsilon, not "
                             f"{'neither' if self.epsilon is None else 'both'}")
        if (self.label_histogram == "noised") != (self.label_epsilon is not None):
            raise InputError(f"privacy.label_histogram = {self.label_histogram!r} with label_epsilon = "
                             f"{self.label_epsilon}: label_epsilon goes with noised, and only with it")
        if self.clip is not None and self.label_histogram == "noised":
            raise InputError("privacy.clip covers the label counts by the same noise as all else; leave "
                             "label_histogram and label_epsilon out")
        return self


def check(privacy: Privacy, algorithm: FederatedAlgorithm, name: str, *, clusters: bool, probation: int) -> None:
    """InputError, before the first round, for what cannot be done under these settings.

    Parameters
    ----------
    privacy : the settings
    algorithm, name : of the federation
    clusters : its clients cluster their nodes
    probation : rounds in which suspects are looked for
    """
    counts = [extra for extra in algorithm.extras if extra in HISTOGRAMS]
    if privacy.label_histogram == "dropped" and counts:
        raise InputError(f"privacy.label_histogram = 'dropped': {name} cannot run without ({', '.join(counts)}): "
                         f"{'fedem is fedrc without them' if 'counts' in counts else 'they are its similarity'}; "
                         "take fedem, community with similarity updates, or label_histogram noised")
    if privacy.clip is None:
        return
    if probation:
        raise InputError(f"robust.probation = {probation} with privacy.clip: whose update points where "
                         "cannot be told under noise that covers the update; leave one of the two out")
    if clusters:
        raise InputError("privacy.clip: clients who cluster their nodes send the embedding of every node in the end, "
                         "which no noise covers; leave clip out, or let the clients classify")
    open_ = [extra for extra in algorithm.extras if extra not in BOUNDED]
    if open_:
        mend = next((MENDS[extra] for extra in open_ if extra in MENDS), "another algorithm")
        raise InputError(f"privacy.clip: {name} also sends {', '.join(open_)}, which has no bound that noise could be "
                         f"measured by, and would leave as it is; take {mend}")
