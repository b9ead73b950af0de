"""Exact noise and its accounting, against closed probabilities and dp-accounting."""

import math
from fractions import Fraction

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, norm

from graphclust.graph import InputError
from graphclust.privacy.accountant import TAIL, delta_of, discreteness, epsilon_of, gaussian_multiplier
from graphclust.privacy.sampling import (
    SCALE,
    bernoulli_exp,
    discrete_gaussian,
    discrete_laplace,
    flips,
    os_uniform,
    seeded_uniform,
)

# one test in a thousand of a right sampler would fail by chance; the seeded ones are settled for good
ALPHA = 1e-3


def uniform(seed=0):
    return seeded_uniform(np.random.default_rng(seed))


def fits(drawn, pmf, reach):
    """A chi-square test of integers against probabilities on -reach..reach, the rest in one bin."""
    values = np.arange(-reach, reach + 1)
    expected = np.append(pmf(values), 0)
    expected[-1] = 1 - expected.sum()
    counts = np.append([(drawn == v).sum() for v in values], (np.abs(drawn) > reach).sum())
    return chisquare(counts, expected / expected.sum() * len(drawn)).pvalue > ALPHA


@pytest.mark.parametrize("high", [1, 2, 3, 200, 70_000, 2**40 + 3])
def test_system_entropy_is_uniform_within_its_bounds(high):
    drawn = os_uniform(high, 4000)
    assert drawn.dtype == np.int64 and drawn.shape == (4000,)
    assert drawn.min() >= 0 and drawn.max() < high
    if high > 1:
        assert abs(drawn.mean() / (high - 1) - 0.5) < 6 * 0.58 / math.sqrt(4000)  # 6 sigma: one in 10^9
        assert not (os_uniform(high, 4000) == drawn).all()


@pytest.mark.parametrize(("numerator", "denominator"), [(0, 7), (1, 3), (1, 1), (5, 2), (9, 3)])
def test_bernoulli_exp(numerator, denominator):
    kept = bernoulli_exp(np.full(40_000, numerator), denominator, uniform())
    p = math.exp(-numerator / denominator)
    assert abs(kept.mean() - p) <= 4 * math.sqrt(p * (1 - p) / 40_000)


@pytest.mark.parametrize("scale", [1, 3, 20])
def test_discrete_laplace(scale):
    tilt = math.exp(-1 / scale)
    drawn = discrete_laplace(scale, 40_000, uniform())
    assert drawn.shape == (40_000,)
    assert fits(drawn, lambda x: (1 - tilt) / (1 + tilt) * tilt ** np.abs(x), 2 * scale)


@pytest.mark.parametrize("sigma", [1, 4])
def test_discrete_gaussian(sigma):
    weights = np.exp(-(np.arange(-60, 61) ** 2) / (2 * sigma**2))
    drawn = discrete_gaussian(sigma, 40_000, uniform())
    assert fits(drawn, lambda x: np.exp(-(x**2) / (2 * sigma**2)) / weights.sum(), 2 * sigma)


def test_the_widest_gaussian_has_the_moments_of_one():
    drawn = discrete_gaussian(SCALE, 200_000, os_uniform) / SCALE
    assert abs(drawn.mean()) < 6 / math.sqrt(200_000)
    assert abs(drawn.var() - 1) < 6 * math.sqrt(2 / 200_000)
    assert abs((drawn**4).mean() - 3) < 6 * math.sqrt(96 / 200_000)
    assert abs((np.abs(drawn) > 2).mean() - 2 * norm.sf(2)) < 6 * math.sqrt(0.05 / 200_000)


def test_a_sigma_that_integers_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="sigma"):
        discrete_gaussian(SCALE + 1, 1, os_uniform)


@pytest.mark.parametrize("epsilon", [Fraction(1, 2), Fraction(1), Fraction(3)])
def test_flips(epsilon):
    p = 1 / (1 + math.exp(epsilon))
    assert abs(flips(epsilon, 40_000, uniform()).mean() - p) <= 4 * math.sqrt(p * (1 - p) / 40_000)


def test_a_seed_decides_and_the_system_does_not_repeat():
    assert (discrete_gaussian(99, 50, uniform(3)) == discrete_gaussian(99, 50, uniform(3))).all()
    assert not (discrete_gaussian(99, 50, os_uniform) == discrete_gaussian(99, 50, os_uniform)).all()


@pytest.mark.parametrize(("epsilon", "multiplier"), [(0.5, 8.06), (1, 4.22), (2, 2.23), (4, 1.19), (8, 0.65)])
def test_analytic_gaussian_multipliers(epsilon, multiplier):
    assert gaussian_multiplier(epsilon, 1e-6) == pytest.approx(multiplier, abs=0.006)


@pytest.mark.parametrize("multiplier", [0.7, 2.0, 4.2247])
@pytest.mark.parametrize("scales", [(), (10,), (10, 3)])
def test_composition_agrees_with_dp_accounting(multiplier, scales):
    reference = pld.from_gaussian_mechanism(multiplier)
    for scale in scales:
        reference = reference.compose(pld.from_discrete_laplace_mechanism(1 / scale))
    ours = epsilon_of(1e-6, 1 / multiplier, [1 / s for s in scales])
    # its grid of losses rounds up: never below ours by more than the solver's own tolerance
    assert ours == pytest.approx(reference.get_epsilon_for_delta(1e-6), abs=2e-3)


def test_a_two_point_loss_alone_is_pure():
    assert delta_of(1.0, 0, [1.0]) == 0
    assert epsilon_of(0, 0, [0.25, 0.5]) == 0.75
    # P(loss = a) (1 - e^(epsilon - a)) with P(loss = a) = e^a / (1 + e^a)
    assert delta_of(0.5, 0, [1.0]) == pytest.approx(math.e / (1 + math.e) * (1 - math.exp(-0.5)))


@settings(max_examples=40)
@given(st.floats(0.2, 8), st.sampled_from([1e-9, 1e-6, 1e-3]), st.sampled_from([(), (0.05,), (0.1, 0.05)]))
def test_the_multiplier_inverts_delta_and_falls_with_epsilon(epsilon, delta, losses):
    c = gaussian_multiplier(epsilon, delta, losses)
    assert delta_of(epsilon, 1 / c, losses) <= delta
    assert delta_of(epsilon, 1.01 / c, losses) > delta
    assert gaussian_multiplier(epsilon + 0.5, delta, losses) < c


def test_a_count_that_takes_all_is_refused():
    with pytest.raises(InputError, match="count_share"):
        gaussian_multiplier(0.1, 1e-6, [0.5])


@pytest.mark.parametrize("sigma", [20, 200])
def test_discreteness_bounds_the_ratio_to_a_rounded_gaussian(sigma):
    """Each probability, exactly, for one coordinate: the bound holds, and is not idle by orders of magnitude."""
    j = np.arange(int(-TAIL * sigma / 2), int(TAIL * sigma / 2) + 1)  # beyond, differences of Phi lose their digits
    exact = np.exp(-(j**2) / (2 * sigma**2))
    exact /= np.exp(-(np.arange(-40 * sigma, 40 * sigma) ** 2) / (2 * sigma**2)).sum()
    rounded = np.where(j > 0, norm.sf((j - 0.5) / sigma) - norm.sf((j + 0.5) / sigma),
                       norm.cdf((j + 0.5) / sigma) - norm.cdf((j - 0.5) / sigma))
    worst = np.abs(np.log(rounded / exact)).max()
    zeta, tail = discreteness(1, sigma)
    assert zeta / 40 < worst <= zeta
    assert 0 < tail < 1e-30
    assert discreteness(100, sigma)[0] == pytest.approx(100 * zeta)
