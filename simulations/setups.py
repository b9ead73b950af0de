"""How each scenario is trained unless told otherwise: model, step sizes, rounds, the number of groups it declares."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedclust.data.spec import FederationSpec
from graphclust.bench import read_model
from graphclust.data.reference import parse_ref
from simulations.scenarios import scenario

_DIGITS = {"rounds": 60, "training": {"epochs": 2, "lr": 0.3, "batch_size": 20, "weight_decay": 5e-4}}
SETUPS: dict[str, dict[str, Any]] = {
    "digits-3shift": {"config": _DIGITS, "settings": {"n_groups": 3}},
}


@dataclass(frozen=True)
class Setup:
    """A federation and its defaults: fields of FederationConfig, settings for the algorithms that have them."""

    federation: FederationSpec
    config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def load_setup(ref: str, seed: int) -> Setup:
    """The setup of a scenario ``NAME``, ``NAME:key=value,...`` or the YAML file of a federation, with ``seed``."""
    if ref.endswith((".yaml", ".yml")):
        return Setup(read_model(Path(ref), FederationSpec).model_copy(update={"seed": seed}))
    name, options = parse_ref(ref)
    return Setup(scenario(name, **{"seed": seed, **options}), **SETUPS.get(name, {}))
