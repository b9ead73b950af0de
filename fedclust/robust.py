"""What a server does about clients that poison: its settings, a score of every client in a round, and the alarm."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Robust(BaseModel):
    """How models are averaged inside a group, and which clients are left out; by default the plain mean of everyone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    average: Literal["mean", "trimmed_mean", "median"] = "mean"
    """Of the updates in a group, coordinate by coordinate, weighted as the algorithm weighs them."""
    trim: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """Share of a group's weight that the trimmed mean drops at each end: the largest share of attackers expected."""
    clip: Annotated[float, Field(gt=0)] | Literal["median"] | None = None
    """Longest update: a length, or the median of the lengths in the group; longer ones are scaled down to it."""

    @property
    def plain(self) -> bool:
        """True when groups are averaged by the mean as it is."""
        return self.average == "mean" and self.clip is None


PLAIN = Robust()
