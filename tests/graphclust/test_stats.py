"""Statistics over runs, against hand-computed values, scipy and enumeration."""

from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from graphclust.runs.stats import _friedman, aggregate, compare, counts, holm, mean_ranks, paired_test
from graphclust.runs.tables import higher_is_better


def runs(**methods):
    """A frame of runs on data set "d": one list of NMI values per method, None for a failed run."""
    rows = [
        {"data": data, "method": m.partition("__")[0], "seed": seed, "nmi": v, "vi": None if v is None else -v,
         "status": "failed" if v is None else "finished"}
        for m, values in methods.items() for data in [m.partition("__")[2] or "d"] for seed, v in enumerate(values)
    ]
    return pd.DataFrame(rows).astype({"nmi": float, "vi": float})


def test_a_failed_run_is_counted_never_averaged():
    df = runs(a=[0.1, None, 0.3, None, 0.8], b=[None, None])
    table = aggregate(df, ["nmi"])
    assert tuple(table.loc[("d", "a"), "nmi"]) == pytest.approx((0.4, np.std([0.1, 0.3, 0.8], ddof=1), 3))
    assert np.isnan(table.loc[("d", "b"), ("nmi", "mean")])
    assert counts(df).loc[("d", "a")].tolist() == [3, 5] and counts(df).loc[("d", "b")].tolist() == [0, 2]


def test_one_run_has_no_spread():
    table = aggregate(runs(a=[0.25]), ["nmi"])
    assert table.loc[("d", "a"), ("nmi", "mean")] == 0.25 and np.isnan(table.loc[("d", "a"), ("nmi", "std")])


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    adjusted = holm(np.array([0.01, np.nan, 0.02]))
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.02]) and np.isnan(adjusted[1])
    assert holm(np.array([])).size == 0


def test_signed_rank_p_by_enumeration():
    d = np.array([0.11, -0.02, 0.07, 0.05, 0.03, 0.09, 0.01])
    ranks = scipy_stats.rankdata(abs(d))
    sums = np.array([ranks[np.array(signs)].sum() for signs in product([False, True], repeat=len(d))])
    low = min(ranks[d > 0].sum(), ranks[d < 0].sum())
    p, test = paired_test(d)
    assert test == "Wilcoxon" and p == pytest.approx(2 * (sums <= low).mean())


def test_no_test_claims_what_its_pairs_cannot_give():
    for n in (0, 1, 2, 3):
        p, why = paired_test(np.linspace(1, 1.1, n))
        assert np.isnan(p) and f"({n})" in why
    d = np.array([0.1, 0.12, 0.11, 0.13, 0.09])
    assert paired_test(d) == (pytest.approx(scipy_stats.ttest_rel(d, np.zeros(5)).pvalue), "t")
    assert paired_test(np.linspace(1, 1.1, 6))[0] == pytest.approx(2 / 2**6)  # the smallest p of six pairs
    varied = 1 + np.arange(9) / 100
    assert [paired_test(varied[:n], among=10)[1] for n in (5, 8, 9)] == ["t", "t", "Wilcoxon"]
    assert 10 * paired_test(varied, among=10)[0] < 0.05, "the smallest p of nine pairs survives ten tests"
    assert paired_test(np.full(10, 0.2))[1] == "does not vary"
    assert paired_test(np.zeros(10))[1] == "identical"


def test_compare_orders_pairs_and_adjusts_for_all_of_them():
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.02, 10)
    df = runs(low=base - 0.2, high=base + rng.normal(0.2, 0.01, 10), mid=base + rng.normal(0, 0.03, 10))
    out = compare(df, "nmi", True)
    assert list(zip(out["better"], out["worse"], strict=True)) == [("high", "mid"), ("high", "low"), ("mid", "low")]
    assert (out["difference"] > 0).all() and out["significant"].all() and (out["n"] == 10).all()
    assert out["p_holm"].to_numpy() == pytest.approx(holm(out["p"].to_numpy()))
    assert compare(df, "vi", False)["better"].tolist() == ["high", "high", "mid"]  # lower is better


def test_another_seed_does_not_hide_a_difference():
    rng = np.random.default_rng(0)
    base = {m: v + rng.normal(0, 0.01, 10) for m, v in {"a": 0.2, "b": 0.4, "c": 0.6, "d": 0.8, "e": 1.0}.items()}
    for n in range(4, 11):
        assert compare(runs(**{m: v[:n] for m, v in base.items()}), "nmi", True)["significant"].all(), n


def test_compare_uses_the_seeds_that_both_finished():
    df = runs(a=[0.9, 0.1, 0.1, 0.1, 0.1], b=[None, 0.2, 0.3, 0.25, 0.22])
    out = compare(df, "nmi", True).iloc[0]
    assert out["n"] == 4 and out["better"] == "b" and out["difference"] == pytest.approx(0.1425)
    nothing_in_common = compare(runs(a=[None, 0.2], b=[0.1, None]), "nmi", True)
    assert len(nothing_in_common) == 0
    assert len(compare(runs(a=[None]), "nmi", True)) == 0


def test_equal_methods_are_rarely_told_apart():
    rng = np.random.default_rng(1)
    false_alarms = sum(
        compare(runs(**{m: rng.normal(size=n) for m in "abcd"}), "nmi", True)["significant"].any()
        for n in (5, 8) for _ in range(60)
    )
    assert false_alarms <= 14  # 5 % of 120 expected at most, 14 in fewer than 1 of 100 cases


def test_mean_ranks_leave_out_methods_without_a_result():
    df = pd.concat([
        runs(a__x=[0.5], b__x=[0.4], c__x=[0.4]), runs(a__y=[0.9], b__y=[0.1], c__y=[None]),
    ])
    ranks = mean_ranks(df, "nmi", True)
    assert ranks.mean.to_dict() == {"a": 1.0, "b": 2.0}
    assert ranks.left_out == ["c"] and ranks.data == ["x", "y"]
    tied = mean_ranks(df[df["data"] == "x"], "nmi", True)
    assert tied.mean.to_dict() == {"a": 1.0, "b": 2.5, "c": 2.5} and tied.p is None


def test_friedman_p_by_enumeration():
    ranks = np.array([[1, 2, 3], [1, 3, 2], [1, 2, 3], [2, 1, 3]], dtype=float)
    observed = ranks.sum(axis=0).var()
    rows = [list(permutations(row)) for row in ranks]
    as_far = [np.sum(table, axis=0).var() >= observed - 1e-12 for table in product(*rows)]
    assert _friedman(ranks) == pytest.approx(np.mean(as_far), abs=0.02)
    assert _friedman(ranks[:2]) > 0.05  # two data sets cannot show anything
    many = np.tile([1.0, 2.0, 3.0, 4.0], (10, 1))
    assert _friedman(many) < 0.001


def test_directions():
    assert higher_is_better("nmi") and higher_is_better("oracle_acc")
    assert not any(map(higher_is_better, ("vi", "conductance_max", "seconds", "memory_mb")))
