"""Federations with a name and a known truth."""

from __future__ import annotations

from typing import Any

from fedclust.data.concept import ConceptShift
from fedclust.data.deal import Deal
from fedclust.data.draw import Bootstrap, Draw, LabelShift
from fedclust.data.feature import Corruption, FeatureShift
from fedclust.data.spec import FederationSpec, Unseen
from graphclust.graph import InputError


def digits_3shift(n_clients: int = 30, A: float = 3.0, noise: float = 0.05, seed: int = 0) -> FederationSpec:
    """Three concepts, Dirichlet labels (A = total concentration) and 40 % corrupted clients, all independent."""
    kinds = ("noise", 0.25), ("contrast", 0.4), ("blur", 0.6), ("rotate", 20.0)
    variants = (Corruption(), *(Corruption(kind=k, amount=a) for k, a in kinds))
    return FederationSpec(
        source="digits",
        n_clients=n_clients,
        partition=Draw(labels=LabelShift(concentration=A), bootstrap=Bootstrap(noise=noise)),
        concept=ConceptShift(maps=("identity", "reverse", "next")),
        feature=FeatureShift(variants=variants, deal=Deal(how="dealt", shares=(0.6, 0.1, 0.1, 0.1, 0.1))),
        unseen=Unseen(features=(0, 1, 2)),
        seed=seed,
    )


_SCENARIOS = {"digits-3shift": digits_3shift}


def scenario_names() -> list[str]:
    """The scenarios' names."""
    return list(_SCENARIOS)


def scenario(name: str, **overrides: Any) -> FederationSpec:
    """The federation of that name, with some of its settings changed."""
    if name not in _SCENARIOS:
        raise InputError(f"unknown scenario {name!r}; known: {', '.join(_SCENARIOS)}")
    return _SCENARIOS[name](**overrides)
