"""What a server does about clients that poison or send what cannot be used."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Robust(BaseModel):
    """How models are averaged inside a group, and which clients are left out; by default the plain mean of everyone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """Largest share of attackers expected: of a group's weight that the trimmed mean drops at each end, and of the
    clients that may be left out as suspects."""
    average: Literal["mean", "trimmed_mean", "median"] = "mean"
    """Of the updates in a group, coordinate by coordinate, weighted as the algorithm weighs them."""
    clip: Annotated[float, Field(gt=0)] | Literal["median"] | None = None
    """Longest update: a length, or the median of the lengths in the group; longer ones are scaled down to it."""
    exclude: bool = False
    """Suspects (see :mod:`fedclust.suspects` and ``probation``) are not asked again; False: they are reported only."""
    probation: Annotated[int, Field(ge=0)] = 0
    """Rounds before all others, of everybody, in which nothing is learned but who sends updates that point against the
    others' (see :mod:`fedclust.probation`). 5 are plenty."""
    alarm: Annotated[float, Field(gt=0)] = 3.5
    """Modified z-score from which a client is suspected; 3.5: Iglewicz and Hoaglin, 1993, ISBN 9780873892476."""
    unusable_rounds: Annotated[int, Field(ge=1)] = 5
    """A client whose first so many replies could none of them be used is not asked again."""

    @property
    def plain(self) -> bool:
        """True when groups are averaged by the mean as it is."""
        return self.average == "mean" and self.clip is None


PLAIN = Robust()
