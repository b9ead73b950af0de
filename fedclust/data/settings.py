"""What the declarations of a federation have in common: strict settings, and random streams keyed by names."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen set of settings that refuses unknown keys and survives JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def stream(seed: int, *keys: str | int) -> np.random.Generator:
    """The random stream that belongs to ``(seed, *keys)``, whatever else is drawn anywhere.

    A client's draws are keyed by its id and their purpose, so they depend neither on the other clients nor on the order
    in which clients are built.
    """
    digest = hashlib.sha256(json.dumps([seed, *keys]).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32).tolist())
