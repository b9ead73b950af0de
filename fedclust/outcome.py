"""What one federation did, as tables: the part of a run's folder that evaluation and report read."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fedclust.algorithms.base import State
from fedclust.state import FederationResult
from graphclust.atomic import write_atomic
from graphclust.runs.store import save_array

ALL = -1
"""As a number of shots: every labelled sample that the newcomer has."""
NEWCOMER_COLUMNS = ["client", "shots", "draw", "group", "accuracy", "error"]


@dataclass(frozen=True)
class Outcome:
    """What happened, client by client; row t of the arrays is the federation after t of its R training rounds.

    Parameters
    ----------
    clients : one row per training client, sorted by id: ``id``, ``n`` (training samples), ``accuracy``, ``loss``,
        ``accuracy_validation``, ``loss_validation``, ``error``, and ``true_<name>`` for all that the scenario planted
    accuracy, validation : (R + 1, N) test and validation accuracy, NaN for a client that was not asked; the last row is
        the evaluation of everyone
    groups : (R + 1, N) int, the group of each client, -1 for none yet; in the last row the one that it predicts with
    weights : (N, K) the last assignment, rows sum to 1, NaN for none
    newcomers : one row per newcomer and trial: ``client``, ``shots`` (:data:`ALL`: every label that it has), ``draw``,
        ``group`` (-1: undetermined), ``accuracy``, ``error``
    similarity : (N, N) of the clients, where the algorithm computes one
    """

    clients: pd.DataFrame
    accuracy: np.ndarray
    validation: np.ndarray
    groups: np.ndarray
    weights: np.ndarray
    newcomers: pd.DataFrame
    similarity: np.ndarray | None = None

    @property
    def truth(self) -> dict[str, np.ndarray]:
        """The planted groups (N,) of the training clients by name."""
        return {str(c).removeprefix("true_"): self.clients[c].to_numpy() for c in self.clients if c.startswith("true_")}

    @property
    def found(self) -> np.ndarray:
        """The last group (N,) of each client, -1 for none."""
        return self.groups[-1]

    @property
    def honest(self) -> Outcome:
        """The same without the clients that a simulation let attack."""
        if "attacker" not in self.truth:
            return self
        keep = self.truth["attacker"] == 0
        return replace(
            self, clients=self.clients[keep].drop(columns="true_attacker").reset_index(drop=True),
            accuracy=self.accuracy[:, keep], validation=self.validation[:, keep], groups=self.groups[:, keep],
            weights=self.weights[keep], similarity=None if self.similarity is None else self.similarity[keep][:, keep],
        )

    @property
    def predicts(self) -> bool:
        """False when no accuracy was measured at all, as where clients cluster."""
        return not np.isnan(self.accuracy).all()

    def save(self, folder: Path) -> None:
        """Write clients.csv, newcomers.csv and the arrays into ``folder``."""
        for name in ("clients", "newcomers"):
            write_atomic(folder / f"{name}.csv", getattr(self, name).to_csv(index=False))
        for name in ("accuracy", "validation", "similarity", "weights"):
            if getattr(self, name) is not None:
                save_array(folder / f"{name}.npy", getattr(self, name).astype(np.float32))
        save_array(folder / "groups.npy", self.groups.astype(np.int16))

    @classmethod
    def load(cls, folder: Path) -> Outcome | None:
        """What :meth:`save` wrote; None when the run did not get that far."""
        if not (folder / "groups.npy").exists():
            return None
        tables = {name: pd.read_csv(io.StringIO((folder / f"{name}.csv").read_text()), dtype={"id": str, "client": str})
                  for name in ("clients", "newcomers")}
        arrays = {name: np.load(folder / f"{name}.npy") for name in ("accuracy", "validation", "groups", "weights")}
        similarity = folder / "similarity.npy"
        return cls(**tables, **arrays, similarity=np.load(similarity) if similarity.exists() else None)


def outcome(result: FederationResult, truth: Mapping[str, Mapping[str, int]]) -> Outcome:
    """The tables of a finished federation.

    Parameters
    ----------
    result : what the strategy returned
    truth : what the scenario planted: name -> {client id: group}, as in :class:`fedclust.data.client.Federation`
    """
    clients = pd.DataFrame(result.clients).astype({"accuracy": float, "accuracy_validation": float})
    for name, planted in truth.items():
        clients[f"true_{name}"] = clients["id"].map(planted)
    rows = [i for i, r in enumerate(result.history.rounds) if r["round"] >= 0]

    def curve(table: str, last: str) -> np.ndarray:
        held = result.history.tables.get(table)
        before = np.full((len(rows), len(clients)), np.nan) if held is None else held[rows].numpy()
        return np.vstack([before, clients[last].to_numpy()])

    after = result.history.tables["group"][rows].numpy()
    groups = np.vstack([np.full(len(clients), -1), np.nan_to_num(after, nan=-1)]).astype(int)
    last = groups_of(result.weights.numpy())
    groups[-1] = np.where(last < 0, groups[-1], last)
    newcomers = pd.DataFrame(result.unseen, columns=[c for c in NEWCOMER_COLUMNS if c != "group"])
    newcomers["shots"] = newcomers["shots"].fillna(ALL).astype(int)
    newcomers["accuracy"] = newcomers["accuracy"].astype(float)
    newcomers.insert(3, "group", groups_of(result.unseen_weights.numpy()))
    return Outcome(
        clients, curve("before_accuracy", "accuracy"), curve("before_accuracy_validation", "accuracy_validation"),
        groups, result.weights.numpy(), newcomers, _similarity(result.state),
    )


def _similarity(state: State) -> np.ndarray | None:
    """What the algorithm found about pairs of clients: a similarity, or a divergence D in 0..1, of which 1 - D."""
    if "similarity" in state:
        return state["similarity"].numpy()
    return 1 - state["divergence"].numpy() if "divergence" in state else None


def groups_of(weights: np.ndarray) -> np.ndarray:
    """The group with the largest weight, -1 in a row of NaN; weights (n, K) -> (n,) int."""
    return np.where(np.isnan(weights).any(axis=1), -1, np.nan_to_num(weights).argmax(axis=1))
