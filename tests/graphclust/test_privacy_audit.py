"""The audit: its bounds against brute force, methods that are right, and bugs that were planted."""

import json
import math
from itertools import islice, product

import numpy as np
import pytest
import typer
from scipy.stats import binomtest
from typer.testing import CliRunner

from graphclust.graph import InputError
from graphclust.methods import get_method, method_names
from graphclust.privacy.audit import audit
from graphclust.privacy.audit.bounds import (
    canary_bound,
    canary_p_value,
    clopper_pearson,
    gaussian_shift,
    log_ratio,
    two_sample_bound,
)
from graphclust.privacy.audit.canary import canaries
from graphclust.privacy.audit.likelihood import count, noise, scale
from graphclust.privacy.audit.pairs import FAMILIES, pairs
from graphclust.privacy.audit.replay import replay
from graphclust.privacy.audit.sensitivity import claim_of, fuzz
from graphclust.privacy.audit_cli import audit as command
from graphclust.privacy.sampling import seeded_uniform
from tests.graphclust import privacy_mutants as bugs

PRIVATE = [m for m in method_names() if get_method(m).private]
RIGHT = {"dp_sdp": {"delta": 1e-9, "scale": 1.0}, "dp_gaussian": {"delta": 1e-9}, "dp_rr": {}}


def private(method, bug=None, epsilon=1.0, **params):
    """The method with a bug, at epsilon 1 and delta 1e-9."""
    cls = get_method(method)
    return (bugs.planted(bug, cls) if bug else cls)(2, epsilon=epsilon, **{**RIGHT[method], **params})


def quick(model, n=12, **settings):
    """The findings by name, with seeded noise and at a confidence of 0.999."""
    settings = {"pairs": 9, "trials": 100, "fits": 2, "confidence": 0.999, **settings}
    return {f.audit: f for f in audit(model, n, random_state=np.random.default_rng(7), **settings)}


def test_clopper_pearson_is_scipys():
    for hits in (0, 3, 10):
        low, high = clopper_pearson(np.array([hits]), 10, 0.02)
        assert low[0] == pytest.approx(binomtest(hits, 10, alternative="greater").proportion_ci(0.98).low)
        assert high[0] == pytest.approx(binomtest(hits, 10, alternative="less").proportion_ci(0.98).high)


def test_canary_p_value_by_enumeration():
    q = math.e / (1 + math.e)
    chance = np.zeros(6)
    for right in product((0, 1), repeat=5):
        chance[sum(right)] += np.prod([q if r else 1 - q for r in right])
    assert canary_p_value(9, 5, 4, 1.0, 0) == pytest.approx(chance[4:].sum())
    slack = max(chance[4 - i : 4].sum() / i for i in range(1, 5))
    assert canary_p_value(9, 5, 4, 1.0, 1e-3) == pytest.approx(chance[4:].sum() + 2 * 9 * 1e-3 * slack)


def test_canary_bound_inverts_the_p_value():
    q = 0.05 ** (1 / 100)  # all right: q^100 = alpha
    assert canary_bound(100, 100, 100, 0, 0.05) == pytest.approx(math.log(q / (1 - q)))
    assert canary_bound(100, 100, 50, 0, 0.05) == 0 == canary_bound(100, 0, 0, 0, 0.05)
    with_delta = canary_bound(100, 100, 90, 1e-5, 0.05)
    assert 0 < with_delta < canary_bound(100, 100, 90, 0, 0.05)
    assert canary_p_value(100, 100, 90, with_delta, 1e-5) == pytest.approx(0.05)


def test_bounds_hold_as_often_as_they_say():
    rng, alpha, mu, epsilon = np.random.default_rng(0), 0.2, 0.5, 1.0
    wrong = np.zeros(2)
    flip = 1 / (1 + math.e**epsilon)
    for _ in range(200):
        bits = rng.random((2, 400)) < np.array([[flip], [1 - flip]])
        wrong[0] += two_sample_bound(*bits.astype(float), alpha, log_ratio(0)) > epsilon
        normal = rng.normal(size=(2, 400)) + np.array([[0], [mu]])
        wrong[1] += two_sample_bound(*normal, alpha, gaussian_shift) > mu
    assert (wrong / 200 <= alpha).all()
    bits = rng.random((2, 20000)) < np.array([[flip], [1 - flip]])
    assert 0.9 < two_sample_bound(*bits.astype(float), 0.01, log_ratio(0)) <= 1
    assert 0.35 < two_sample_bound(*rng.normal([[0], [mu]], size=(2, 20000)), 0.01, gaussian_shift) <= mu


def test_log_ratio_needs_more_than_delta():
    one, two = np.zeros(1000), np.r_[np.ones(100), np.zeros(400), np.ones(100), np.zeros(400)]
    assert two_sample_bound(one, two, 0.01, log_ratio(0.0)) > 2
    assert two_sample_bound(one, two, 0.01, log_ratio(0.3)) == 0


def test_pairs_differ_in_their_edge_alone():
    seen = set()
    for pair in islice(pairs(13, 2.0, np.random.default_rng(0)), 27):
        change = np.argwhere(pair.one.adjacency.toarray() != pair.two.adjacency.toarray())
        assert sorted(map(tuple, change)) == sorted([pair.edge, pair.edge[::-1]])
        assert set(pair.one.adjacency.data) <= {2.0} and pair.one.n == 13
        seen.add(pair.family)
    assert seen == set(FAMILIES)


@pytest.mark.parametrize("method", PRIVATE)
def test_right_methods_pass_and_nothing_is_kept(method):
    model = private(method)
    found = quick(model)
    assert not [f for f in found.values() if f.violation]
    assert all(f.lower_bound is None or f.lower_bound <= f.claim for f in found.values())
    assert found["noise scale"].lower_bound > 0.8 * found["noise scale"].claim
    assert not hasattr(model, "labels_") and model.get_params() == private(method).get_params()


def attempts(model, n=8):
    """Each attempt on its own, by name, with seeded noise."""
    rng = np.random.default_rng(7)
    uniform = seeded_uniform(rng)
    return {
        "sensitivity": lambda: fuzz(model, n, 18, rng)[0],
        "replay": lambda: replay(model, n, 3, rng),
        "noise scale": lambda: scale(model, fuzz(model, n, 9, rng)[1], 40, 1e-6, uniform=uniform),
        "likelihood ratio": lambda: noise(model, fuzz(model, n, 9, rng)[1], 160, 1e-6, uniform=uniform)[0],
        "edge count": lambda: count(model, next(pairs(n, 1.0, rng)), 60, 1e-6, random_state=rng),
    }


PLANTED = [
    (bugs.ThirdOfSigma, "noise scale"), (bugs.Unmirrored, "noise scale"), (bugs.HalfOfSensitivity, "sensitivity"),
    (bugs.ObservedSensitivity, "sensitivity"), (bugs.SecondLook, "sensitivity"), (bugs.ExactDensity, "replay"),
    (bugs.ExactDensity, "edge count"), (bugs.Polished, "replay"), (bugs.ConstantSeed, "likelihood ratio"),
]
# a flipped bit has no sensitivity and no diagonal; its two halves have a test of their own
OF_MATRICES = (bugs.Unmirrored, bugs.HalfOfSensitivity, bugs.SecondLook)


@pytest.mark.parametrize(("method", "bug", "caught_by"), [
    (method, bug, by) for method in ("dp_rr", "dp_gaussian", "dp_sdp") for bug, by in PLANTED
    if method != "dp_rr" or bug not in OF_MATRICES
])
def test_planted_bugs_are_caught(method, bug, caught_by):
    finding = attempts(private(method, bug))[caught_by]()
    assert finding.verdict == "VIOLATION"
    assert not attempts(private(method))[caught_by]().violation


def test_uncut_weights_are_caught():
    model, wrong = private("dp_gaussian", weight_bound=2.0), private("dp_gaussian", bugs.UncutWeights, weight_bound=2.0)
    rng = np.random.default_rng(0)
    assert not fuzz(model, 12, 18, rng)[0].violation
    finding = fuzz(wrong, 12, 18, rng)[0]
    assert finding.violation and "edge count" not in finding.detail and finding.lower_bound > 2.5


def test_half_mirrored_flips_are_caught_by_the_likelihood_ratio():
    rng = np.random.default_rng(3)
    wrong = private("dp_rr", bugs.Unmirrored, density=0.2)
    moved = fuzz(wrong, 4, 9, rng)[1]
    found = noise(wrong, moved, 600, 0.05, uniform=seeded_uniform(rng))
    assert found[0].violation and found[0].claim == pytest.approx(1, abs=1e-5)


def test_the_gaussian_shift_sees_a_third_of_sigma_where_the_plain_ratio_does_not():
    rng = np.random.default_rng(4)
    wrong = private("dp_gaussian", bugs.ThirdOfSigma, epsilon=4.0)
    moved = fuzz(wrong, 4, 9, rng)[1]
    ratio, shift = noise(wrong, moved, 600, 0.05, uniform=seeded_uniform(rng))
    assert shift.violation and not ratio.violation


def test_polished_labels_give_their_canaries_away():
    rng = np.random.default_rng(5)
    for bug, caught in ((None, False), (bugs.Polished, True)):
        _, labels = canaries(private("dp_rr", bug, epsilon=2.0), 60, 16, 1e-3, rng, random_state=rng)
        assert labels.violation == caught


def test_claims_of_events_and_a_given_density():
    model = private("dp_gaussian", density=0.1)
    rng = np.random.default_rng(0)
    finding, moved = fuzz(model, 10, 9, rng)
    assert finding.claim == claim_of(moved.event, 1e-9) == pytest.approx(1, abs=1e-6)
    assert moved.density == 0.1 and moved.ratio == pytest.approx(1, abs=1e-5)
    assert claim_of(moved.event, 1e-9, 0.5) < 0.5 and claim_of(moved.event, 1e-9, 0) == 0
    assert count(model, moved.pair, 10, 0.1) is None


@pytest.mark.parametrize("settings", [{"n": 7}, {"pairs": 0}, {"trials": 9}, {"fits": 0}, {"confidence": 1.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        audit(private("dp_rr"), **settings)


def test_command(monkeypatch):
    app = typer.Typer()
    app.command()(command)
    small = ["-n", "10", "--pairs", "9", "--trials", "100", "--fits", "1", "--json"]
    result = CliRunner().invoke(app, ["dp_rr", *small, "--set", "count_share=0.1"])
    document = json.loads(result.stdout)
    assert result.exit_code == 0 and document["violation"] is False
    assert document["parameters"]["count_share"] == 0.1 and len(document["findings"]) == 7
    monkeypatch.setattr("graphclust.methods.get_method", lambda name: bugs.planted(bugs.Polished, get_method(name)))
    result = CliRunner().invoke(app, ["dp_rr", *small[:-1]])
    assert result.exit_code == 1 and "VIOLATION" in result.stdout
    monkeypatch.undo()
    for wrong in (["leiden"], ["dp_rr", "--set", "scale=2"], ["dp_rr", "--epsilon", "-1"]):
        assert isinstance(CliRunner().invoke(app, [*wrong, *small]).exception, InputError)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(("s", "flips"), [
    (1.0, 18), (5.0, 5), *(pytest.param(s, 171, marks=pytest.mark.slow) for s in (1.0, 2.0, 5.0))])
def test_projection_never_moves_by_more_than_its_bound(s, flips, nonnegative):
    model = private("dp_sdp", scale=s, nonnegative=nonnegative)
    finding, moved = fuzz(model, 30, flips, np.random.default_rng(flips))
    assert not finding.violation, finding.detail
    assert "fail" not in finding.detail and 0.4 < moved.ratio <= 1
