"""The declaration of a federation, and the federation that it declares."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from fedclust.data.client import Federation
from fedclust.data.concept import ConceptShift
from fedclust.data.draw import Draw
from fedclust.data.feature import FeatureShift
from fedclust.data.settings import Settings


class Unseen(Settings):
    """Clients that never train: one for each concept and listed feature variant, with equally many samples a class.

    Parameters
    ----------
    support : labelled samples that a newcomer may choose its group with
    test : samples it is tested on
    features : positions among the feature shift's variants
    """

    support: PositiveInt = 270
    test: PositiveInt = 270
    features: tuple[NonNegativeInt, ...] = (0,)


class FederationSpec(Settings):
    """Everything that decides what every client holds; the same spec gives the same tensors everywhere.

    Parameters
    ----------
    source : where the samples come from
    n_clients : clients that train; their ids are client-0000, client-0001, ...
    partition : how the samples go to the clients
    concept, feature : shifts, dealt independently of each other
    unseen : newcomers; None: none
    seed : of everything random
    """

    source: str = "digits"
    n_clients: Annotated[PositiveInt, Field(le=10_000)] = 30
    partition: Draw = Draw()
    concept: ConceptShift = ConceptShift()
    feature: FeatureShift = FeatureShift()
    unseen: Unseen | None = None
    seed: NonNegativeInt = 0


def build_federation(spec: FederationSpec) -> Federation:
    """Build every client that ``spec`` declares; deterministic, no global randomness.

    Raises
    ------
    InputError
        Settings that do not fit the source; a client without samples, by its id.
    """
    from fedclust.data.build import build_drawn

    return build_drawn(spec)
