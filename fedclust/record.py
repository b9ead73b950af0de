"""What came of one federation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field

from fedclust.config import FederationConfig
from fedclust.evaluation import evaluate, poisoning
from fedclust.outcome import outcome
from fedclust.state import FederationResult
from fedclust.suspects import excluded
from fedclust.wire_privacy import WireLedger, ledger
from graphclust.runs.base import Record, finite
from graphclust.runs.store import RunDir

# those that can change a result
PACKAGES = ("graphclust", "torch", "flwr", "numpy", "scipy", "scikit-learn")


class FederationRecord(Record):
    """What came of one algorithm on one federation with one seed; ``metrics`` are those of the last round."""

    config: FederationConfig
    n_clients: int | None = None
    n_unseen: int | None = None
    rounds_done: int = 0
    bytes_up: int | None = None
    """Tensors that all clients sent in all rounds, preparation included; names, headers and evaluation not counted."""
    bytes_down: int | None = None
    seconds_per_round: float | None = None
    left_out: int = 0
    """Replies that were late, failed, not finite or of the wrong shape, and so left out of their round."""

    missing: dict[str, list[int]] = Field(default_factory=dict)
    """The clients of these replies, and the rounds."""
    suspects: dict[str, list[int]] = Field(default_factory=dict)
    """Clients whose updates disagreed with their group's, and the rounds after which they were suspected."""
    excluded: dict[str, str] = Field(default_factory=dict)
    """Clients that were not asked any more, and why."""
    notes: list[str] = Field(default_factory=list)
    """How the engine ran: which one was chosen and why, what it could not do side by side."""
    privacy: WireLedger | None = None
    """What noise at the clients promises, and what not; None without any."""

    def facts(self) -> dict[str, Any]:
        """Columns of the index."""
        c = self.config
        return {"algorithm": c.algorithm, "scenario": c.scenario, "engine": c.engine, "n_clients": self.n_clients,
                "rounds": self.rounds_done, "bytes_up": self.bytes_up, "bytes_down": self.bytes_down,
                "seconds_per_round": self.seconds_per_round}

    def row(self, run_dir: Path | None = None) -> dict[str, Any]:
        """The flat row that ``--json`` prints."""
        c = self.config
        row: dict[str, Any] = {
            "algorithm": c.name, "scenario": c.scenario, "seed": c.seed, "status": self.status,
            "rounds": self.rounds_done, "engine": c.engine, "metrics": finite(self.metrics), "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down, "seconds_per_round": self.seconds_per_round, "left_out": self.left_out,
            "timings": finite(self.timings), "peak_memory_mb": self.peak_memory_mb,
        }
        row |= {"missing": self.missing, "suspects": self.suspects, "excluded": self.excluded,
                "notes": self.notes}
        if self.privacy is not None:
            row["privacy"] = self.privacy.model_dump(mode="json")
        if self.error:
            row["error"] = self.error["message"]
        if run_dir is not None:
            row["run_dir"] = str(run_dir)
        return row


def conclude(
    record: FederationRecord, run_dir: RunDir[FederationRecord], result: FederationResult,
    truth: Mapping[str, Mapping[str, int]], *, deployed: bool = False,
) -> None:
    """Evaluate a finished federation: fill ``record`` in, and write its tables and history into the run's folder.

    ``truth`` is what the scenario planted, as in :class:`fedclust.data.client.Federation`; it is needed here first.
    ``deployed``: on real clients.
    """
    tables, rounds = outcome(result, truth), result.history.rounds
    tables.save(run_dir.path)
    run_dir.write_history(rounds)
    record.n_clients, record.n_unseen = len(result.ids), tables.newcomers["client"].nunique()
    training = [r for r in rounds if r["round"] >= 0]
    record.rounds_done, record.seconds_per_round = len(training), fmean(r["seconds"] for r in training)
    record.bytes_up, record.bytes_down = (sum(r[key] for r in rounds) for key in ("bytes_up", "bytes_down"))
    record.left_out = sum(len(r["failures"]) for r in rounds)
    record.notes = result.notes
    record.missing = result.history.missing()
    for r in rounds:
        for client in r.get("suspects", {}):
            record.suspects.setdefault(client, []).append(r["round"])
    # only noised updates ask for the weights: as lists they take eight times their memory
    weights = result.weights.tolist() if record.config.privacy.clip is not None else []
    record.privacy = ledger(record.config, weights, deployed=deployed)
    record.excluded = excluded(rounds, len(result.ids), record.config.robust)
    record.metrics = {**evaluate(tables.honest), **poisoning(tables, {*record.suspects, *record.excluded})}
