"""How good a federation is: for its clients, for newcomers, against the truth, and against other federations.

Pure functions of arrays and of an :class:`Outcome`. Accuracies are fractions of test samples; a client without test
samples has NaN and is left out of every mean. True groups are used here, after the run, and nowhere before.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedclust.outcome import ALL, Outcome
from graphclust.metrics import evaluate as partition_metrics
from graphclust.metrics.partition import contingency


@dataclass(frozen=True)
class Metric:
    """A metric's heading in tables, its direction, and what it is."""

    heading: str
    higher_is_better: bool
    about: str


METRICS: dict[str, Metric] = {
    "local": Metric("local", True, "test accuracy of the training clients after the last round, mean over clients"),
    "worst_decile": Metric("worst decile", True, "the same over the worst tenth of the clients"),
    "std": Metric("std", False, "standard deviation of the accuracy over the clients (population)"),
    "unseen": Metric("unseen", True, "accuracy of newcomers that chose their group with all their labelled samples"),
    "ari": Metric("ARI", True, "found groups against the true ones, Rand index adjusted for chance"),
    "nmi": Metric("NMI", True, "found groups against the true ones, mutual information over the mean entropy"),
    "ari_feature": Metric("ARI feature", False, "found groups against the feature type, which should not decide them"),
    "conflicting_pairs_merged": Metric("conflicts", False, "pairs of clients of unlike concept that share a group"),
    "ipr": Metric("IPR", True, "share of clients strictly better than alone (Local)"),
    "rsd": Metric("RSD", False, "standard deviation over clients of the gain over Local (population)"),
    "ipr_fedavg": Metric("IPR FedAvg", True, "share of clients strictly better than with one model for all"),
    "rsd_fedavg": Metric("RSD FedAvg", False, "standard deviation over clients of the gain over FedAvg (population)"),
    "nodes_acc": Metric("ACC", True, "nodes of all clients in the right cluster after the best matching with classes"),
    "nodes_nmi": Metric("NMI", True, "common clusters of all nodes against classes, as for groups"),
    "nodes_ari": Metric("ARI nodes", True, "common clusters of all nodes against classes, Rand index as for groups"),
    "nodes_f1": Metric("F1", True, "common clusters of all nodes against classes, F1 after matching (macro)"),
    "own_acc": Metric("own ACC", True, "ACC of every client's own clusters of its nodes, mean over clients"),
    "own_nmi": Metric("own NMI", True, "NMI of every client's own clusters of its nodes, mean over clients"),
    "own_ari": Metric("own ARI", True, "ARI of every client's own clusters of its nodes, mean over clients"),
    "own_f1": Metric("own F1", True, "F1 of every client's own clusters of its nodes, mean over clients"),
    "features_acc": Metric("k-means ACC", True, "ACC of k-means on the prepared features of all nodes"),
    "features_nmi": Metric("k-means NMI", True, "NMI of k-means on the prepared features of all nodes"),
    "features_ari": Metric("k-means ARI", True, "ARI of k-means on the prepared features of all nodes"),
    "features_f1": Metric("k-means F1", True, "F1 of k-means on the prepared features of all nodes"),
    "attackers": Metric("attackers", True, "test accuracy of the clients that poison, which no other metric counts"),
    "caught": Metric("caught", True, "share of the clients that poison that were suspected or left out"),
    "false_alarms": Metric("false alarms", False, "share of the honest clients that were suspected or left out"),
    "n_groups": Metric("groups", False, "groups that hold a client"),
    "groups_of_several": Metric("groups > 1", False, "groups that hold more than one client"),
    "largest_group": Metric("largest", False, "share of the clients in the largest group"),
    "unassigned": Metric("unassigned", False, "share of the clients without a group"),
    "rounds_to_95": Metric("rounds to 95 %", False, "rounds until the mean reaches 95 % of its last value"),
    "rounds_to_local": Metric("rounds to Local", False, "rounds until the mean reaches the last of Local"),
    "rounds_to_fedavg": Metric("rounds to FedAvg", False, "rounds until the mean reaches the last of FedAvg"),
    "best_validation_round": Metric("best round", False, "rounds at which the mean validation accuracy is largest"),
    "best_validation": Metric("best val.", True, "mean test accuracy at that round: not the result, the last round is"),
}


def spread(accuracy: np.ndarray) -> dict[str, float]:
    """Mean, worst decile and population std of accuracies (N,): ``local``, ``worst_decile``, ``std``.

    The worst decile is the mean of the ceil(N / 10) lowest.
    """
    known = np.sort(accuracy[~np.isnan(accuracy)])
    if not len(known):
        return dict.fromkeys(("local", "worst_decile", "std"), math.nan)
    worst = known[: math.ceil(len(known) / 10)]
    return {"local": float(known.mean()), "worst_decile": float(worst.mean()), "std": float(known.std())}


def sizes(found: np.ndarray) -> dict[str, float]:
    """What groups there are, from found (N,) int, -1 for none: counts, and shares of all N clients."""
    counts = np.unique(found[found >= 0], return_counts=True)[1]
    return {
        "n_groups": float(len(counts)), "groups_of_several": float((counts > 1).sum()),
        "largest_group": float(counts.max(initial=0) / len(found)), "unassigned": float((found < 0).mean()),
    }


def recovery(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """``ari``, ``nmi`` and ``conflicting_pairs_merged`` of found against true groups (N,).

    A client without a group (-1) is left out. Conflicting pairs are those of unlike true group; what counts is the
    share of them that is in one found group, NaN when there is no such pair.
    """
    known = found >= 0
    if not known.any():
        return dict.fromkeys(("ari", "nmi", "conflicting_pairs_merged"), math.nan)
    metrics = partition_metrics(found[known], truth[known], names=["ari", "nmi"])
    c = contingency(truth[known], found[known])
    both, together, alike = c.pairs
    conflicting = c.n * (c.n - 1) // 2 - alike
    return {**metrics, "conflicting_pairs_merged": (together - both) / conflicting if conflicting else math.nan}


def gains(accuracy: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """IPR and RSD of accuracies (N,) against the same clients' under a reference (FedCollab, arXiv 2306.06508).

    ``ipr``: share of clients with accuracy > reference, strictly; ``rsd``: population std of accuracy - reference.
    """
    gain = accuracy - reference
    gain = gain[~np.isnan(gain)]
    if not len(gain):
        return {"ipr": math.nan, "rsd": math.nan}
    return {"ipr": float((gain > 0).mean()), "rsd": float(gain.std())}


def mean_curve(accuracy: np.ndarray) -> np.ndarray:
    """Mean over the clients that were asked, of accuracies (R + 1, N); NaN where none was."""
    asked = ~np.isnan(accuracy)
    return np.nansum(accuracy, axis=1) / np.where(asked.any(axis=1), asked.sum(axis=1), math.nan)


def worst_curve(accuracy: np.ndarray) -> np.ndarray:
    """Worst decile of the clients that were asked, of accuracies (R + 1, N)."""
    return np.array([spread(row)["worst_decile"] for row in accuracy])


def rounds_to(curve: np.ndarray, target: float) -> float:
    """Rounds after which ``curve`` (R + 1,) first reaches ``target``; NaN when it never does."""
    reached = np.flatnonzero(curve >= target)
    return float(reached[0]) if len(reached) else math.nan


def best_validation(validation: np.ndarray, accuracy: np.ndarray) -> dict[str, float]:
    """Round of the largest mean validation accuracy, both (R + 1, N), and the mean test accuracy there.

    Of equal rounds the first; NaN without validation samples.
    """
    curve = mean_curve(validation)
    if np.isnan(curve).all():
        return {"best_validation_round": math.nan, "best_validation": math.nan}
    best = int(np.nanargmax(curve))
    return {"best_validation_round": float(best), "best_validation": float(mean_curve(accuracy)[best])}


def newcomer_curve(newcomers: pd.DataFrame) -> pd.DataFrame:
    """How newcomers fare by number of labelled samples.

    Parameters
    ----------
    newcomers : as in :class:`Outcome`; trials of a newcomer that could not be reached (``error``) are left out

    Returns
    -------
    DataFrame indexed by shots, :data:`ALL` last: ``labels_used`` (0 shots: no), ``accuracy`` (mean over the determined
    trials), ``undetermined`` (share of trials), ``agreement`` (share of trials that found the group found with all
    labels; an undetermined trial did not), ``trials``
    """
    reached = newcomers[newcomers["error"].isna()]
    full = reached[reached["shots"] == ALL].set_index("client")["group"]
    trials = pd.DataFrame({
        "shots": reached["shots"], "accuracy": reached["accuracy"], "undetermined": reached["group"] < 0,
        "agreement": (reached["group"] == reached["client"].map(full)) & (reached["group"] >= 0), "trials": 1,
    })
    how = {"accuracy": "mean", "undetermined": "mean", "agreement": "mean", "trials": "sum"}
    table = trials.groupby("shots").agg(how)
    table.insert(0, "labels_used", table.index != 0)
    return table.loc[[*(m for m in table.index if m != ALL), *(m for m in table.index if m == ALL)]]


def evaluate(outcome: Outcome) -> dict[str, float]:
    """Every metric of a run that needs no other run; see :data:`METRICS`.

    ARI and NMI are against the true groups (``group``, or else ``concept``). For m shots ``unseen_<m>`` is the
    newcomers' accuracy, ``unseen_<m>_undetermined`` and ``unseen_<m>_agreement`` as in :func:`newcomer_curve`.
    What needs accuracies is left out where there are none: clients who cluster do not predict.
    """
    truth = outcome.truth
    metrics = {**(spread(outcome.accuracy[-1]) if outcome.predicts else {}), **sizes(outcome.found)}
    true = truth.get("group", truth.get("concept"))
    if true is not None:
        metrics |= recovery(outcome.found, true)
    if "feature" in truth:
        metrics["ari_feature"] = recovery(outcome.found, truth["feature"])["ari"]
    if not outcome.predicts:
        return metrics
    curve = mean_curve(outcome.accuracy)
    metrics["rounds_to_95"] = rounds_to(curve, 0.95 * curve[-1])
    metrics |= best_validation(outcome.validation, outcome.accuracy)
    for shots, row in newcomer_curve(outcome.newcomers).iterrows():
        name = "unseen" if shots == ALL else f"unseen_{shots}"
        metrics |= {name: float(row["accuracy"]), f"{name}_undetermined": float(row["undetermined"])}
        if shots != ALL:
            metrics[f"{name}_agreement"] = float(row["agreement"])
    return metrics


def poisoning(outcome: Outcome, accused: Collection[str]) -> dict[str, float]:
    """``attackers``, ``caught`` and ``false_alarms``; without attackers the last alone.

    Parameters
    ----------
    accused : the clients that were suspected in some round, or left out
    """
    hit = outcome.clients["id"].isin(list(accused)).to_numpy()
    bad = outcome.truth.get("attacker", np.zeros(len(hit))) > 0
    values = {"false_alarms": float(hit[~bad].mean())}
    if bad.any():
        values |= {"caught": float(hit[bad].mean())}
        if outcome.predicts:
            values["attackers"] = spread(outcome.accuracy[-1, bad])["local"]
    return values


def compare(outcome: Outcome, reference: Outcome) -> dict[str, float]:
    """A run against a reference run of the same clients, matched by id.

    ``ipr`` and ``rsd`` as in :func:`gains`; ``rounds_to``: rounds until the mean reaches the reference's last. Nothing
    where clients do not predict.
    """
    if not outcome.predicts:
        return {}
    theirs = outcome.clients["id"].map(reference.clients.set_index("id")["accuracy"]).to_numpy(dtype=float)
    values = gains(outcome.clients["accuracy"].to_numpy(dtype=float), theirs)
    target = spread(reference.accuracy[-1])["local"]
    return {**values, "rounds_to": rounds_to(mean_curve(outcome.accuracy), target)}
