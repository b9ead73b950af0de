"""Which figures the runs of one scenario give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import cosine_similarity

from fedclust.evaluation import mean_curve, newcomer_curve, sizes, worst_curve
from fedclust.outcome import Outcome
from fedclust.report import figures, flows
from fedclust.report.runs import ORACLE, REFERENCES, Run
from graphclust.runs.drawing import Picture

TRUTHS = ("concept", "feature", "label", "size")
"""The planted truths that get a confusion matrix each."""


def pictures(runs: Sequence[Run], order: Sequence[str]) -> list[Picture]:
    """The figures of one scenario, as far as its runs have what they show.

    Parameters
    ----------
    runs : of the scenario
    order : its rows, as in the tables
    """
    done = sorted((run for run in runs if run.outcome is not None), key=lambda run: run.config.seed)
    rows = {m: [run for run in done if run.name == m] for m in order}
    rows = {m: held for m, held in rows.items() if held}
    if not rows:
        return []
    colour = {m: i for i, m in enumerate(order)}
    first = {m: _outcome(held[0]) for m, held in rows.items()}
    predicts = all(o.predicts for o in first.values())
    out = [_rounds(rows, colour)] if predicts else []
    # one group, groups of one and the true groups have nothing to show
    several = {m: o for m, o in first.items() if rows[m][0].config.algorithm != ORACLE
               and sizes(o.found)["n_groups"] > 1 and sizes(o.found)["groups_of_several"] > 0}
    if several and predicts:
        out.append(figures.group_curves({m: (o.accuracy, o.found) for m, o in several.items()}))
    if predicts:
        out.append(_boxes(rows, colour))
    # honest clients are others where others attack
    for ids in dict.fromkeys(tuple(o.clients["id"]) for o in several.values()):
        out += _flows({m: o for m, o in several.items() if tuple(o.clients["id"]) == ids})
    out.append(_traffic(rows, colour))
    shots = {m: [newcomer_curve(_outcome(run).newcomers) for run in held] for m, held in rows.items()}
    shots = {m: held for m, held in shots.items() if any(t["accuracy"].notna().any() for t in held)}
    if shots:
        out.append(figures.shot_curves(shots, colour))
    return out


def _outcome(run: Run) -> Outcome:
    assert run.outcome is not None
    return run.outcome


def _true_groups(o: Outcome) -> tuple[str, np.ndarray] | None:
    """The truth that the groups are to recover, as in :func:`fedclust.evaluation.evaluate`, and what it is called."""
    groups = o.truth.get("group", o.truth.get("concept"))
    if groups is None:
        return None
    return next(name for name in (*TRUTHS, "group") if np.array_equal(o.truth.get(name, []), groups)), groups


def _rounds(rows: dict[str, list[Run]], colour: dict[str, int]) -> Picture:
    def each(of: Callable[[Outcome], np.ndarray]) -> dict[str, list[np.ndarray]]:
        return {m: [of(_outcome(run)) for run in held] for m, held in rows.items()}

    panels = {"mean accuracy": each(lambda o: mean_curve(o.accuracy)),
              "accuracy, worst tenth": each(lambda o: worst_curve(o.accuracy))}
    if all(_true_groups(_outcome(run)) for held in rows.values() for run in held):
        panels["ARI against the true groups"] = each(_recovery_curve)
    return figures.round_curves(panels, colour)


def _recovery_curve(o: Outcome) -> np.ndarray:
    """ARI after every round, NaN before there are groups."""
    found = _true_groups(o)
    assert found is not None
    curve = np.full(len(o.groups), np.nan)
    for t, groups in enumerate(o.groups):
        known = groups >= 0
        if known.any():
            curve[t] = adjusted_rand_score(found[1][known], groups[known])
    return curve


def _boxes(rows: dict[str, list[Run]], colour: dict[str, int]) -> Picture:
    panels = {"accuracy of a client": {
        m: np.concatenate([_outcome(run).accuracy[-1] for run in held]) for m, held in rows.items()}}
    for algorithm, title in zip(REFERENCES, ("Local", "FedAvg"), strict=True):
        references = {run.config.seed: _outcome(run) for held in rows.values() for run in held
                      if run.config.algorithm == algorithm}
        gained = {}
        for m, held in rows.items():
            parts = [_gain(_outcome(run), references[run.config.seed]) for run in held
                     if run.config.algorithm != algorithm and run.config.seed in references]
            if parts:
                gained[m] = np.concatenate(parts)
        if gained:
            panels[f"gain over {title}"] = gained
    return figures.client_boxes(panels, colour)


def _gain(o: Outcome, reference: Outcome) -> np.ndarray:
    theirs = reference.clients.set_index("id")["accuracy"]
    return (o.clients["accuracy"] - o.clients["id"].map(theirs)).to_numpy(dtype=float)


def _flows(runs: dict[str, Outcome]) -> list[Picture]:
    true = _true_groups(next(iter(runs.values())))
    name, truth = true if true else ("", None)
    out = [flows.rivers({m: o.groups for m, o in runs.items()}, truth, name)]
    held = {
        m: [(t, o.found, o.truth[t]) for t in dict.fromkeys((name, *TRUTHS))
            if t in o.truth and len(np.unique(o.truth[t])) > 1]
        for m, o in runs.items()
    }
    if any(held.values()):
        out.append(flows.confusions(held))
    n = len(next(iter(runs.values())).found)
    shown = np.sort(np.random.default_rng(0).permutation(n)[: flows.PAIRED])
    out.append(flows.similarities({m: (_similarity(o, shown), o.found[shown]) for m, o in runs.items()},
                                  None if truth is None else truth[shown]))
    return out


def _similarity(o: Outcome, shown: np.ndarray) -> np.ndarray:
    """As the algorithm computed it, or the cosine of the clients' weights (hard groups: 1 inside, 0 outside)."""
    if o.similarity is not None:
        return o.similarity[np.ix_(shown, shown)]
    return cosine_similarity(np.nan_to_num(o.weights[shown]))


def _traffic(rows: dict[str, list[Run]], colour: dict[str, int]) -> Picture:
    def mean(held: list[Run], way: str) -> float:
        return float(np.mean([getattr(run.record, f"bytes_{way}") or 0 for run in held])) / 1e6

    paths = {}
    for m, held in rows.items():
        o, rounds = _outcome(held[0]), pd.DataFrame(held[0].history)
        spent = (rounds["bytes_up"] + rounds["bytes_down"]).cumsum().to_numpy() / 1e6
        preparation = int((rounds["round"] < 0).sum())
        before = spent[preparation - 1] if preparation else 0.0
        if o.predicts:
            paths[m] = (np.concatenate(([before], spent[preparation:])), mean_curve(o.accuracy))
    return figures.traffic({m: (mean(held, "down"), mean(held, "up")) for m, held in rows.items()}, paths, colour)
