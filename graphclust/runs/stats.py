"""Statistics over finished runs: means over seeds, paired comparisons, ranks over data sets.

All functions take a frame with one row per run: columns ``data`` (what it ran on), ``method`` (what ran: the row's name
in tables), ``seed``, ``status`` and one per metric. A run that did not finish has no value: it is counted, never
averaged. ``higher``: whether the larger value of the metric is the better one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

ALPHA = 0.05
# Three seeds cannot show a difference by any test worth the name.
T_FROM = 4
PERMUTATIONS = 10_000


def finished(df: pd.DataFrame) -> pd.DataFrame:
    """The finished runs."""
    return df[df["status"] == "finished"]


def counts(df: pd.DataFrame) -> pd.DataFrame:
    """Columns ``finished`` and ``total``, one row per (data, method), in order of appearance."""
    done = (df["status"] == "finished").groupby([df["data"], df["method"]], sort=False)
    return pd.DataFrame({"finished": done.sum().astype(int), "total": done.size()})


def aggregate(df: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Mean, std (ddof 1, NaN for one run) and n of the finished runs.

    One row per (data, method) of ``df``, also where nothing finished (NaN, n = 0); columns (column, statistic).
    """
    table = finished(df).groupby(["data", "method"], sort=False)[columns].agg(["mean", "std", "count"])
    return table.reindex(counts(df).index).rename(columns={"count": "n"}, level=1)


def best_first(values: pd.Series, higher: bool) -> pd.Series:
    """``values`` sorted from best to worst, without the missing ones."""
    return values.dropna().sort_values(ascending=not higher, kind="stable")


def paired_test(differences: np.ndarray, among: int = 1) -> tuple[float, str]:
    """Two-sided p-value of "no difference" for paired differences, and the test behind it.

    Wilcoxon's signed-rank test where the smallest p that n pairs can give, 2 / 2^n, stays below ``ALPHA`` when it is
    adjusted for the ``among`` tests made: from 6 pairs on for one test, from 9 for ten; below, more seeds would hide
    what fewer show. Else a paired t-test (assumes normal differences), from 4 pairs on. NaN, with the reason, for
    fewer, and when all differences are the same: runs that do not vary are not a sample.
    """
    d = np.asarray(differences, dtype=float)
    if len(d) < T_FROM:
        return float("nan"), f"too few pairs ({len(d)})"
    if np.ptp(d) <= 1e-9:
        return float("nan"), "identical" if abs(d[0]) <= 1e-9 else "does not vary"
    if among * 2.0 ** (1 - len(d)) >= ALPHA:
        return float(stats.ttest_1samp(d, 0.0).pvalue), "t"
    return float(stats.wilcoxon(d).pvalue), "Wilcoxon"


def holm(p: np.ndarray) -> np.ndarray:
    """P-values adjusted for their number (Holm 1979, doi:10.2307/4615733); NaN stays and does not count."""
    p = np.asarray(p, dtype=float)
    out, tested = np.full(p.shape, np.nan), np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return out


def compare(df: pd.DataFrame, metric: str, higher: bool) -> pd.DataFrame:
    """Every two methods on every data set, over the seeds that both finished.

    Returns
    -------
    DataFrame with columns ``data``, ``better``, ``worse`` (by the mean over the common seeds), ``n`` (pairs),
    ``difference`` (better - worse, mean), ``p``, ``test``, ``p_holm`` (adjusted over all pairs of the data set, so
    that it holds for the best method although that was picked after the fact) and ``significant``.
    """
    blocks = []
    for data, runs in finished(df).groupby("data", sort=False):
        wide = runs.pivot_table(index="seed", columns="method", values=metric, sort=False)
        order = best_first(wide.mean(), higher).index
        rows, every_two = [], list(combinations(order, 2))
        for a, b in every_two:
            d = (wide[a] - wide[b]).dropna().to_numpy()
            if len(d):
                if (d.mean() < 0) == higher:  # seeds that only one finished can turn the order
                    a, b, d = b, a, -d
                rows.append((data, a, b, len(d), d.mean(), *paired_test(d, len(every_two))))
        block = pd.DataFrame(rows, columns=["data", "better", "worse", "n", "difference", "p", "test"])
        block["p_holm"] = holm(block["p"].to_numpy())
        blocks.append(block)
    columns = ["data", "better", "worse", "n", "difference", "p", "test", "p_holm"]
    out = pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame(columns=columns)
    out["significant"] = out["p_holm"] < ALPHA
    return out


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of methods over data sets.

    Attributes
    ----------
    mean : Series, mean rank per method (1 is best), best first
    data : the data sets ranked over
    left_out : methods without a finished run on some data set
    p : Friedman test of "all methods rank alike"; None with fewer than two data sets or methods
    """

    mean: pd.Series
    data: list[str]
    left_out: list[str]
    p: float | None


def mean_ranks(df: pd.DataFrame, metric: str, higher: bool) -> Ranks:
    """Rank the methods by their mean on each data set and average (Demsar 2006, JMLR 7:1-30, section 3.2).

    The p-value of Friedman's statistic is that of random permutations of the ranks within each data set, because the
    chi-square approximation does not hold for the handful of data sets that a benchmark has.
    """
    means = finished(df).pivot_table(index="data", columns="method", values=metric, sort=False)
    complete = means.dropna(axis=1)
    left_out = [m for m in counts(df).index.unique("method") if m not in complete.columns]
    ranks = complete.rank(axis=1, ascending=not higher)
    p = None
    if min(ranks.shape, default=0) > 1:
        p = _friedman(ranks.to_numpy())
    return Ranks(ranks.mean().sort_values(kind="stable"), list(ranks.index), left_out, p)


def _friedman(ranks: np.ndarray) -> float:
    """Monte Carlo p-value for ranks of shape (data sets, methods); the draw is fixed, so a report is reproducible."""
    rng = np.random.default_rng(0)
    # for fixed ties Friedman's chi-square grows with the spread of the rank sums, and with nothing else
    observed = ranks.sum(axis=0).var()
    shuffled = rng.permuted(np.broadcast_to(ranks, (PERMUTATIONS, *ranks.shape)), axis=2)
    as_far = (shuffled.sum(axis=1).var(axis=1) >= observed - 1e-12).sum()
    return float((as_far + 1) / (PERMUTATIONS + 1))
