"""Averages inside a group that single clients cannot move at will."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import trim_mean

from fedclust.aggregate import clipped, group_means, robust_average, trimmed_mean, weighted_median
from fedclust.algorithms import algorithm_names, make_algorithm
from fedclust.algorithms.base import Reports, models
from fedclust.config import FederationConfig
from fedclust.data.spec import FederationSpec
from fedclust.robust import PLAIN, Robust
from tests.fedclust.loop import TRAINING, Loop, concepts

EQUAL = torch.ones(5)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_trimmed_mean_by_hand():
    assert trimmed_mean(column(1, 2, 3, 4, 1000), EQUAL, 0.2).item() == pytest.approx(3), "1 and 1000 are dropped"
    # .3 of 5 clients is one and a half at each end: half of 2, 3, half of 4
    assert trimmed_mean(column(1, 2, 4, 8, 1000), EQUAL, 0.3).item() == pytest.approx((0.5 * 2 + 4 + 0.5 * 8) / 2)
    # weights 1, 2, 1: of 4 in all .8 go at each end, that is .2 of the outer ones stays
    got = trimmed_mean(column(0, 10, 100), torch.tensor([1.0, 2.0, 1.0]), 0.2).item()
    assert got == pytest.approx((0.2 * 0 + 2 * 10 + 0.2 * 100) / 2.4)


def test_trimmed_mean_trims_every_coordinate_by_itself():
    values = torch.tensor([[0.0, 9.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [-50.0, 4.0]])
    torch.testing.assert_close(trimmed_mean(values, EQUAL, 0.2).float(), torch.tensor([1.0, 3.0]))


@pytest.mark.parametrize("m", [5, 10, 20])
def test_trimmed_mean_of_equal_weights_is_that_of_scipy(m):
    values = torch.randn(m, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(m))
    expected = trim_mean(values.numpy(), 0.2, axis=0)
    np.testing.assert_allclose(trimmed_mean(values, torch.full((m,), 3.0), 0.2).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 9])
def test_median_of_equal_weights_is_that_of_numpy(m):
    values = torch.randn(m, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(m))
    np.testing.assert_allclose(weighted_median(values, torch.ones(m)).numpy(), np.median(values.numpy(), axis=0))


def test_median_lies_at_half_of_the_weight():
    assert weighted_median(column(1, 2, 3), torch.tensor([1.0, 1.0, 3.0])).item() == 3
    assert weighted_median(column(1, 2, 3), torch.tensor([1.0, 1.0, 2.0])).item() == 2.5, "half is between 2 and 3"


weighted = st.lists(st.tuples(st.integers(-100, 100), st.integers(1, 9)), min_size=1, max_size=9)


@given(weighted, st.floats(0, 0.49))
def test_weight_counts_as_that_many_equal_clients(clients, trim):
    values, n = column(*(float(v) for v, _ in clients)), torch.tensor([w for _, w in clients])
    one_by_one = values.repeat_interleave(n, dim=0)
    assert trimmed_mean(values, n, trim).item() == pytest.approx(
        trimmed_mean(one_by_one, torch.ones(len(one_by_one)), trim).item(), abs=1e-6)
    assert weighted_median(values, n).item() == np.median(one_by_one.numpy())


@given(weighted, st.floats(0, 0.49))
def test_robust_averages_stay_among_the_middle_values(clients, trim):
    values, n = column(*(float(v) for v, _ in clients)), torch.tensor([float(w) for _, w in clients])
    for result in (trimmed_mean(values, n, trim), weighted_median(values, n)):
        assert values.min() - 1e-9 <= result <= values.max() + 1e-9
    mean = (values[:, 0] * n).sum() / n.sum()
    assert trimmed_mean(values, n, 0.0).item() == pytest.approx(mean.item(), abs=1e-6), "nothing trimmed: the mean"


def test_clipping_by_hand():
    updates = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [1e30, 0.0]], dtype=torch.float64)
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(clipped(updates, torch.tensor(1.0)), expected)


def test_clipping_to_the_median_length():
    updates = torch.tensor([[1.0, 0.0], [0.0, 2.0], [400.0, 300.0]], dtype=torch.float64)
    got = robust_average(updates, torch.ones(3), Robust(clip="median"))
    torch.testing.assert_close(got, torch.tensor([(1 + 1.6) / 3, (2 + 1.2) / 3], dtype=torch.float64))


def sent(n=10, k=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    models = {"w": torch.randn(n, 3, 2, generator=g), "b": torch.randn(n, 2, generator=g)}
    previous = {"w": torch.randn(k, 3, 2, generator=g), "b": torch.randn(k, 2, generator=g),
                "steps": torch.tensor([4, 5][:k])}
    weights = torch.zeros(n, k)
    weights[: n // 2, 0] = 1
    weights[n // 2 :, 1] = 2
    return {**models, "steps": torch.zeros(n, dtype=torch.long)}, weights, previous


@pytest.mark.parametrize("robust", [Robust(average="trimmed_mean"), Robust(average="median"), Robust(clip="median"),
                                    Robust(average="trimmed_mean", clip=0.5)])
def test_the_order_of_the_clients_does_not_matter_and_an_empty_group_keeps_its_model(robust):
    models, weights, previous = sent()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    a = group_means(models, weights, previous, robust)
    b = group_means({name: t[order] for name, t in models.items()}, weights[order], previous, robust)
    for name in ("w", "b"):
        torch.testing.assert_close(a[name], b[name])
    assert a["steps"].tolist() == [4, 5], "counters are not averaged"
    kept = group_means(models, weights * torch.tensor([1.0, 0.0]), previous, robust)
    assert torch.equal(kept["w"][1], previous["w"][1]) and torch.equal(kept["w"][0], a["w"][0])


@pytest.mark.parametrize("robust", [Robust(average="trimmed_mean", share=0.0), Robust(clip=1e6)])
def test_nothing_trimmed_or_clipped_is_the_mean(robust):
    models, weights, previous = sent()
    plain, got = group_means(models, weights, previous), group_means(models, weights, previous, robust)
    for name in ("w", "b"):
        torch.testing.assert_close(got[name], plain[name], atol=1e-6, rtol=1e-6)


def test_one_model_for_every_group_is_averaged_with_its_own_weights():
    g = torch.Generator().manual_seed(3)
    each, previous = torch.randn(6, 2, 4, generator=g), torch.zeros(2, 4)
    omega = torch.rand(6, 2, generator=g)
    got = group_means({"w": each}, omega, {"w": previous}, Robust(average="median"))["w"]
    for k in range(2):
        torch.testing.assert_close(got[k], weighted_median(each[:, k].double(), omega[:, k]).float())


def test_a_group_too_small_to_trim_is_its_mean():
    values = torch.tensor([[2.0], [6.0]], dtype=torch.float64)
    assert trimmed_mean(values[:1], torch.ones(1), 0.4).item() == 2
    assert trimmed_mean(values, torch.ones(2), 0.4).item() == pytest.approx(4)
    assert weighted_median(values, torch.ones(2)).item() == 4


# Local averages nothing
AVERAGING = [name for name in algorithm_names() if name != "local"]
SETTINGS = {"oracle": {"true_groups": [0, 1, 0, 1, 0, 1]}, "flhc": {"warmup": 1}, "hierarchical": {"warmup": 1},
            "ifca": {"n_groups": 2}, "fesem": {"n_groups": 2}, "fedem": {"n_groups": 2, "restarts": 1},
            "fedrc": {"n_groups": 2, "restarts": 1}, "cfl": {"first_split": 1}, "community": {"warmup": 1},
            "fedcollab": {"divergence": {"rounds": 2}}}


@pytest.mark.parametrize("name", AVERAGING)
def test_every_algorithm_that_averages_takes_the_robust_average(name):
    """A public bound of nearly nothing on every update: no group's model may move."""
    loop = Loop(make_algorithm(name, SETTINGS.get(name, {}), TRAINING), concepts())
    while loop.round < 0:
        loop.step()
    before = models(loop.state)

    def still(reports: Reports) -> Reports:
        reports.robust = Robust(clip=1e-9)
        return reports

    after = models(loop.step(spoil=still))
    for key, t in before.items():
        torch.testing.assert_close(after[key], t, atol=1e-6, rtol=0)
    moved = models(loop.step())
    assert any(not torch.allclose(moved[key], t[: len(moved[key])], atol=1e-4) for key, t in after.items())


def test_the_default_is_the_mean():
    assert PLAIN.plain and Reports(torch.zeros(1), torch.ones(1), {}, {}).robust is PLAIN
    assert not Robust(average="median").plain and not Robust(clip=1.0).plain


@pytest.mark.parametrize(("key", "value", "why"), [
    ("share", 0.5, "less than 0.5"), ("share", -0.1, "greater than or equal to 0"), ("clip", 0.0, "greater than 0"),
    ("clip", "mean", "'median'"), ("average", "krum", "'trimmed_mean'"), ("trim", 0.1, "Extra inputs"),
    ("unusable_rounds", 0, "greater than or equal to 1"),
])
def test_settings_that_cannot_be_are_refused(key, value, why):
    with pytest.raises(ValidationError, match=why):
        FederationConfig(algorithm="fedavg", federation=FederationSpec(), robust={key: value})


def test_an_unknown_attack_is_refused():
    with pytest.raises(ValidationError, match="label_flip"):
        FederationConfig(algorithm="fedavg", federation=FederationSpec(), attack={"kind": "backdoor"})


def test_settings_at_their_defaults_leave_the_name_of_a_run_alone():
    config = FederationConfig(algorithm="fedavg", federation=FederationSpec())
    same = config.model_copy(update={"robust": Robust(average="mean")})
    other = config.model_copy(update={"robust": Robust(average="median")})
    assert config.fingerprint() == same.fingerprint() != other.fingerprint()
