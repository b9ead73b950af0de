"""The runs of a report: each with its row's name, its tables, and what it gains over the reference runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from fedclust.config import FederationConfig
from fedclust.evaluation import compare
from fedclust.events import DROPPED, LATE
from fedclust.outcome import Outcome
from fedclust.record import FederationRecord
from graphclust.runs.layout import distinct_names
from graphclust.runs.store import RunDir

Pairs = Iterable[tuple[RunDir[FederationRecord], FederationRecord]]

# the algorithms that others are held against, and what the comparison's values are called
REFERENCES = {
    "local": {"ipr": "ipr", "rsd": "rsd", "rounds_to": "rounds_to_local"},
    "fedavg": {"ipr": "ipr_fedavg", "rsd": "rsd_fedavg", "rounds_to": "rounds_to_fedavg"},
}
# an upper bound that is told the true groups: in the tables, but best at nothing
ORACLE = "oracle"
# what does not make two rows of one: names, what follows the seed, and what cannot change the result
_ASIDE = {"federation", "scenario", "seed", "label", "timeout"}


@dataclass(frozen=True)
class Run:
    """One run.

    Parameters
    ----------
    data, name : the scenario and the row in tables; unlike settings under one name are told apart
    record : what the run left
    outcome, history : None and empty when it did not finish
    gains : against the reference runs of the same federation and seed, as far as there are any
    """

    data: str
    name: str
    record: FederationRecord
    outcome: Outcome | None
    history: list[dict[str, Any]]
    gains: dict[str, float] = field(default_factory=dict)

    @property
    def config(self) -> FederationConfig:
        """What was run."""
        return self.record.config

    @property
    def values(self) -> dict[str, float]:
        """The record's metrics and the gains."""
        return {**self.record.metrics, **self.gains}

    @property
    def participation(self) -> dict[str, float]:
        """Clients a round, means over the rounds and those of the preparation; nothing without a history.

        ``asked``; ``answered``: with what could be used; ``dropped_out``, ``late``: by simulated events; ``failed``:
        all others.
        """
        rows = []
        for r in self.history:
            reasons = list(r["failures"].values())
            dropped, late = reasons.count(DROPPED), reasons.count(LATE)
            answered = len(r["participants"])
            rows.append({"asked": answered + len(reasons), "answered": answered, "dropped_out": dropped, "late": late,
                         "failed": len(reasons) - dropped - late})
        return pd.DataFrame(rows).mean().to_dict()


def collect(pairs: Pairs) -> list[Run]:
    """The runs of a report, each once, in the order given."""
    unique = list({r.id: (d, r) for d, r in pairs}.values())
    configs = [r.config for _, r in unique]
    places = distinct_names([c.scenario for c in configs], [""] * len(configs), [_federation(c) for c in configs])
    names = distinct_names([c.name for c in configs], places, [_setting(c) for c in configs])
    runs = []
    for (d, r), data, name in zip(unique, places, names, strict=True):
        done = r.status == "finished"
        runs.append(Run(data, name, r, _honest(d) if done else None, d.history() if done else []))
    for run in runs:
        run.gains.update(_gains(run, runs))
    return runs


def _honest(run_dir: RunDir[FederationRecord]) -> Outcome | None:
    """The run's tables without the clients that a simulation let attack."""
    held = Outcome.load(run_dir.path)
    return held.honest if held else None


def _gains(run: Run, runs: list[Run]) -> dict[str, float]:
    """IPR, RSD and rounds against each reference; a run has none against itself."""
    values: dict[str, float] = {}
    for algorithm, names in REFERENCES.items():
        found = _reference(run, runs, algorithm)
        if run.outcome is not None and found is not None and found.outcome is not None and found is not run:
            compared = compare(run.outcome, found.outcome)
            values |= {names[key]: value for key, value in compared.items()}
    return values


def _reference(run: Run, runs: list[Run], algorithm: str) -> Run | None:
    """The finished run of ``algorithm`` on the same federation with the same seed; of several, the one most alike."""
    c = run.config
    found = [
        r for r in runs if r.outcome is not None and r.config.algorithm == algorithm
        and (r.config.federation, r.config.seed) == (c.federation, c.seed)
    ]

    def alike(other: Run) -> int:
        return sum(getattr(other.config, key) == getattr(c, key) for key in ("model", "training", "rounds", "fraction"))

    return max(found, key=alike, default=None)


def _federation(c: FederationConfig) -> dict[str, str]:
    return _flat(c.federation.model_dump(mode="json", exclude={"seed"}))


def _setting(c: FederationConfig) -> dict[str, str]:
    body = c.model_dump(mode="json", exclude=_ASIDE)
    body["settings"].pop("true_groups", None)  # the oracle's follow the seed
    return {key.removeprefix("settings."): value for key, value in _flat(body).items()}


def _flat(body: dict[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in pd.json_normalize(body).iloc[0].items()}
