"""Events, budgets and predictions: what a private run says it spends."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from graphclust.graph import InputError
from graphclust.privacy.accountant import delta_of
from graphclust.privacy.ledger import NODE_DP, afford, charge, create_budget, read_budget, settle
from graphclust.privacy.mechanisms import (
    add_gaussian,
    count_scale,
    flip_event,
    flip_pairs,
    gaussian_event,
    private_count,
    spent,
)
from graphclust.privacy.predictor import THRESHOLDS, gap, predict, recommend, spike_ratio
from graphclust.privacy.sampling import SCALE, os_uniform, seeded_uniform


def uniform(seed=0):
    return seeded_uniform(np.random.default_rng(seed))


def test_a_count_costs_the_inverse_of_its_scale():
    assert (count_scale(0.05), count_scale(0.3), count_scale(7)) == (20, 4, 1)
    drawn = [private_count(100, 20, uniform(s))[0] for s in range(300)]
    assert abs(np.mean(drawn) - 100) < 6 * 20 * math.sqrt(2 / 300)
    event = private_count(100, 20, os_uniform)[1]
    assert (event.loss, event.sensitivity, event.scale, event.mu) == (0.05, 1, 20, None)


def test_gaussian_noise_is_symmetric_keeps_the_diagonal_and_has_its_sigma():
    event = gaussian_event("matrix", 300, 2.0, 1.0, 1e-6, ())
    matrix = np.full((300, 300), 0.25)
    np.fill_diagonal(matrix, 7)
    noisy = add_gaussian(matrix, event, os_uniform)
    assert (noisy == noisy.T).all() and (np.diagonal(noisy) == 7).all()
    noise = (noisy - matrix)[np.triu_indices(300, 1)]
    assert noise.std() == pytest.approx(event.scale, rel=6 / math.sqrt(2 * len(noise)))
    # every release lies on the grid, whatever the answer was: no bit of it shows in the low digits
    steps = noisy[np.triu_indices(300, 1)] / event.details["grid"]
    assert np.abs(steps - np.rint(steps)).max() < 1e-3


def test_the_gaussian_event_pays_for_rounding_and_discreteness():
    event = gaussian_event("matrix", 2000, 3.0, 1.0, 1e-6, (0.05,))
    grid = event.details["grid"]
    assert event.scale == pytest.approx(SCALE * grid)
    assert event.sensitivity == pytest.approx(3 + grid * math.sqrt(2000 * 1999 / 2))
    assert event.mu == pytest.approx(event.sensitivity / event.scale)
    assert 0 < event.details["discreteness_epsilon"] < 1e-6
    assert delta_of(1.0 - event.details["discreteness_epsilon"], event.mu, [0.05]) < 1e-6
    assert delta_of(1.0, event.mu * 1.001, [0.05]) > 1e-6, "more noise than the budget asks for"


def test_flips_keep_the_shape_of_a_graph():
    adjacency = np.zeros((60, 60))
    adjacency[:30, :30] = 1
    np.fill_diagonal(adjacency, 0)
    exact, event = flip_event(2.0)
    noisy = flip_pairs(adjacency, exact, uniform())
    assert set(np.unique(noisy)) == {0.0, 1.0} and (noisy == noisy.T).all() and not np.diagonal(noisy).any()
    upper = np.triu_indices(60, 1)
    changed = (noisy != adjacency)[upper].mean()
    assert event.scale == pytest.approx(1 / (1 + math.exp(2)))
    assert abs(changed - event.scale) < 4 * math.sqrt(event.scale / len(upper[0]))


def test_what_events_spend():
    count = private_count(0, 20, os_uniform)[1]
    assert spent([], 1.0, 0.0) == (0.0, 0.0)
    assert spent([count], 1.0, 0.0) == (0.05, 0.0)
    assert spent([count, flip_event(0.95)[1]], 1.0, 0.0)[0] == pytest.approx(1.0, abs=1e-6)
    assert spent([count, gaussian_event("m", 50, 1, 1.0, 1e-6, (0.05,))], 1.0, 1e-6) == (1.0, 1e-6)
    with pytest.raises(RuntimeError, match="spend more"):
        spent([count, flip_event(1.0)[1]], 1.0, 0.0)
    with pytest.raises(RuntimeError, match="spend more"):
        spent([count, gaussian_event("m", 50, 1, 1.0, 1e-6, ())], 1.0, 1e-6)


def test_a_budget_is_charged_and_refuses_what_exceeds_it(tmp_path):
    file = tmp_path / "budget.json"
    create_budget(file, "g", 0.3, 1e-5)
    for _ in range(3):
        charge(file, "g", "dp_rr", 0.1, 0)  # 0.1 + 0.1 + 0.1 > 0.3 in floating point
    before = file.read_text()
    with pytest.raises(InputError, match=r"epsilon = 0.01.*has epsilon = .* left after 3 runs"):
        charge(file, "g", "dp_rr", 0.01, 0)
    assert file.read_text() == before
    with pytest.raises(InputError, match="is of the graph 'g'"):
        afford(file, "other", 0.0, 0)
    with pytest.raises(InputError, match="exists"):
        create_budget(file, "g", 9, 0)


def test_a_refused_run_is_settled_for_what_it_spent(tmp_path):
    file = tmp_path / "budget.json"
    create_budget(file, "g", 1, 1e-5)
    entry = charge(file, None, "dp_sdp", 0.8, 1e-6)
    settle(file, entry, 0.05, 0)
    assert read_budget(file).left == pytest.approx((0.95, 1e-5))
    settle(file, entry, 5.0, 1)  # never upwards
    assert read_budget(file).left == pytest.approx((0.95, 1e-5))


def test_charges_at_the_same_time_do_not_overdraw(tmp_path):
    file = tmp_path / "budget.json"
    create_budget(file, "g", 1.0, 0)

    def one(_):
        try:
            charge(file, "g", "dp_rr", 0.1, 0)
        except InputError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(25))) == 10
    assert len(read_budget(file).spent) == 10


@pytest.mark.parametrize(("text", "match"), [(None, "does not exist"), ("{", "cannot be read"), ('{"a": 1}', "cannot")])
def test_a_missing_or_damaged_budget_stops_everything(tmp_path, text, match):
    file = tmp_path / "budget.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=match):
        charge(file, "g", "dp_rr", 0.1, 0)


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 0), (-1, 0), (1, 1), (1, -0.1)])
def test_a_senseless_budget_is_refused(tmp_path, epsilon, delta):
    with pytest.raises(InputError, match="epsilon must be > 0"):
        create_budget(tmp_path / "b.json", "g", epsilon, delta)
    assert not (tmp_path / "b.json").exists()


def test_the_gap_of_a_density():
    assert gap(2, 0.2, 0.5) == pytest.approx(0.2)  # p = .3, q = .1
    assert gap(2, 0.9, 1) == pytest.approx(0.2)  # p = 1, q = .8
    assert gap(1, 0.3, 1) == 0


@pytest.mark.parametrize(("mechanism", "n", "k", "p", "q", "epsilon", "reached"), [
    ("dp_rr", 800, 2, 0.3, 0.1, 0.54, 1.5), ("dp_sdp", 800, 2, 0.3, 0.1, 2.1, 2.1),
    ("dp_gaussian", 800, 2, 0.3, 0.1, 2.5, 1.5), ("dp_rr", 2000, 4, 0.2, 0.05, 0.89, 1.5),
    ("dp_sdp", 50_000, 4, 0.02, 0.004, 1.9, 2.1), ("dp_rr", 50_000, 4, 0.02, 0.004, 1.54, 1.5),
])
def test_predictions_agree_with_the_table_of_the_specification(mechanism, n, k, p, q, epsilon, reached):
    density = p / k + q * (k - 1) / k
    contrast = (p - q) / gap(k, density, 1.0)
    assert spike_ratio(mechanism, n, k, epsilon, 1e-6, density, contrast) == pytest.approx(reached, rel=0.04)


def test_recommendations():
    found = recommend(800, 2, 1.0, 1e-6, 0.2)
    assert found[0].mechanism == "dp_rr" and found[0].verdict == "good"
    assert {p.mechanism for p in found} == set(THRESHOLDS)
    cora = recommend(2708, 7, 1.0, 1e-8, 0.00144)
    assert all(p.verdict == "impossible" for p in cora)
    assert predict("dp_rr", 10, 1, 1.0, 0, 0.1).possible
    plain, signed = (predict("dp_sdp", 800, 2, 1.0, 1e-6, 0.2, nonnegative=x) for x in (False, True))
    assert signed.ratio == pytest.approx(math.sqrt(2) * plain.ratio)
    assert signed.ratio / signed.threshold < plain.ratio / plain.threshold, "X >= 0 was measured to find less"


def test_the_reason_against_node_privacy_is_told():
    assert "n - 1 edges" in NODE_DP and json.dumps(NODE_DP)
