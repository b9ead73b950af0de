"""Who is better than whom, and how sure that is: the report's tables over paired tests and ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from graphclust.runs.layout import Cell, Table, spread
from graphclust.runs.stats import ALPHA, aggregate, best_first, compare, finished, mean_ranks

Direction = Callable[[str], bool]
"""Whether the larger value of a metric is the better one."""


def best_table(df: pd.DataFrame, headings: Mapping[str, str], higher: Direction, *, place: str = "data") -> Table:
    """Which method is best by which metric on each data set, and how sure that is.

    Parameters
    ----------
    df : frame of runs
    headings : of the metrics to show
    higher : direction of a metric
    place : heading of the first column
    """
    shown = [m for m in headings if m in df and finished(df)[m].notna().any()]
    rows = []
    for data in df["data"].unique():
        runs = df[df["data"] == data]
        rows.append([Cell(data), *(Cell(_best(runs, metric, higher(metric))) for metric in shown)])
    return Table("Best method", [place, *(headings[m] for m in shown)], rows)


def _best(runs: pd.DataFrame, metric: str, higher: bool) -> str:
    """``leiden 0.586 ± 0.002, ahead of 3 of 4 others``."""
    table = aggregate(runs, [metric]).droplevel("data")
    order = best_first(table[(metric, "mean")], higher)
    if order.empty:
        return "–"
    top = order.index[0]
    text = f"{top}\n{spread(*table.loc[top, [(metric, 'mean'), (metric, 'std')]])}"
    pairs = compare(runs, metric, higher)
    pairs = pairs[(pairs["better"] == top) | (pairs["worse"] == top)]
    if len(order) == 1:
        return f"{text}\nno other method has a result"
    if not pairs["p"].notna().any():
        reasons = ", ".join(dict.fromkeys(pairs["test"])) or "no common seed"
        return f"{text}\nnot tested: {reasons}"
    ahead = int((pairs["significant"] & (pairs["better"] == top)).sum())
    if not ahead:
        return f"{text}\nnot shown to differ from any other"
    return f"{text}\nahead of {ahead} of {len(order) - 1} others at p < {ALPHA}"


@dataclass(frozen=True)
class RankTable:
    """Mean ranks over the data sets, with the sentence on how sure they are."""

    table: Table
    sentence: str


def rank_table(df: pd.DataFrame, metric: str, heading: str, higher: bool) -> RankTable | None:
    """Mean ranks over the data sets; None when there are fewer than two data sets or two methods to rank."""
    if metric not in df:
        return None
    ranks = mean_ranks(df, metric, higher)
    if ranks.p is None:
        return None
    verdict = "the methods differ" if ranks.p < ALPHA else "the ranks do not show that the methods differ"
    over = f"Ranks by {heading} over {', '.join(ranks.data)}"
    sentence = f"{over}; Friedman test (permutations) p = {ranks.p:.3f}: {verdict}."
    if ranks.left_out:
        sentence += f" Left out, without a finished run on some data set: {', '.join(ranks.left_out)}."
    rows = [[Cell(str(m)), Cell(f"{v:.2f}")] for m, v in ranks.mean.items()]
    return RankTable(Table("Mean ranks", ["method", "mean rank (1 is best)"], rows), sentence)


@dataclass(frozen=True)
class Comparison:
    """Every two methods on one data set: the best one against the others, and all pairs."""

    top: str
    pairs: Table
    all_pairs: Table


def comparison(df: pd.DataFrame, metric: str, higher: bool) -> Comparison | None:
    """Paired tests over the runs of one data set; None when no two methods have a seed in common."""
    pairs = compare(df, metric, higher) if metric in df else pd.DataFrame()
    if not len(pairs):
        return None
    top = pairs["better"].iloc[0]
    against = pairs[(pairs["better"] == top) | (pairs["worse"] == top)]
    return Comparison(top, pair_table(against), pair_table(pairs))


def pair_table(pairs: pd.DataFrame) -> Table:
    """Rows of :func:`graphclust.runs.stats.compare`."""
    rows = []
    for r in pairs.itertuples():
        tested = not np.isnan(r.p)
        verdict = ("yes" if r.significant else "not shown") if tested else f"not tested: {r.test}"
        rows.append([Cell(r.better), Cell(r.worse), Cell(f"{r.difference:+.3f}"), Cell(str(r.n)),
                     Cell(r.test if tested else "–"), Cell(_p(r.p)), Cell(_p(r.p_holm)), Cell(verdict)])
    columns = ["better", "worse", "difference", "pairs", "test", "p", "p (Holm)", "different?"]
    return Table("Paired comparison", columns, rows)


def _p(p: float) -> str:
    return "–" if np.isnan(p) else ("< 0.001" if p < 0.001 else f"{p:.3f}")
