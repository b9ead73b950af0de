"""What the runs of both halves have in common: a config that names itself, and the record of what came of it."""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field


class Config(Protocol):
    """Everything that decides the result of one run; a frozen pydantic model."""

    @property
    def seed(self) -> int:
        """Decides every random choice."""

    @property
    def name(self) -> str:
        """The row's name in tables."""

    @property
    def title(self) -> str:
        """The run in words: what, on what, with which seed."""

    @property
    def run_id(self) -> str:
        """Folder name of the run: readable parts and the fingerprint."""

    def fingerprint(self) -> str:
        """Hash of what decides the result."""

    def resolved(self) -> Self:
        """The same config with every default spelled out; InputError for what is unknown."""

    def model_dump(self, *, mode: str = ..., exclude: Any = ...) -> dict[str, Any]:
        """The config as plain data."""


class Record(BaseModel):
    """What came of a run; ``record.json`` in its folder. A half adds its own fields and narrows ``config``."""

    # JSON has no NaN: an undefined metric is the string "NaN" in the file, and a float again when it is read
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    id: str
    status: Literal["running", "finished", "failed"]
    config: Any
    metrics: dict[str, float] = Field(default_factory=dict)
    timings: dict[str, float] = Field(default_factory=dict)
    """Seconds."""
    peak_memory_mb: float | None = None
    device: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    git_commit: str | None = None
    started: str | None = None
    taken_up: bool = False
    """True when the run was interrupted and taken up again: its timings are those of the last part only."""
    error: dict[str, str] | None = None

    def facts(self) -> dict[str, Any]:
        """The half's own columns of the index."""
        return {}

    def values(self) -> dict[str, float]:
        """Every number that the index lists by name."""
        return self.metrics


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: an undefined metric is null."""
    return {k: (v if math.isfinite(v) else None) for k, v in values.items()}
