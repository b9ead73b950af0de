"""Concept and feature shifts against values written by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedclust.data.build import build_federation
from fedclust.data.concept import ConceptShift, label_map, label_maps
from fedclust.data.draw import Bootstrap, Draw, LabelShift, label_distribution, vary
from fedclust.data.feature import Corruption, FeatureShift, corrupt, translate
from fedclust.data.settings import stream
from fedclust.data.spec import FederationSpec
from graphclust.graph import InputError


def rng():
    return stream(0, "shifts")


@pytest.mark.parametrize("rule, expected", [
    ("identity", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ("reverse", [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    ("next", [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]),
    ("next:4", [4, 5, 6, 7, 8, 9, 0, 1, 2, 3]),
    ("reverse_first:4", [3, 2, 1, 0, 4, 5, 6, 7, 8, 9]),
    ("reverse_last:3", [0, 1, 2, 3, 4, 5, 6, 9, 8, 7]),
    ("reverse_first:4>reverse", [6, 7, 8, 9, 5, 4, 3, 2, 1, 0]),
    ("reverse > reverse_first:4", [9, 8, 7, 6, 5, 4, 0, 1, 2, 3]),
    ((1, 0, 2, 3, 4, 5, 6, 7, 9, 8), [1, 0, 2, 3, 4, 5, 6, 7, 9, 8]),
])
def test_label_maps_by_hand(rule, expected):
    assert label_map(rule, 10, rng()).tolist() == expected


@given(m=st.integers(2, 10), seed=st.integers(0, 30))
def test_a_partial_permutation_moves_exactly_m_labels(m, seed):
    mapped = label_map(f"partial:{m}", 10, stream(seed, "p"))
    assert sorted(mapped) == list(range(10))
    assert (mapped != np.arange(10)).sum() == m


def test_two_partial_maps_of_one_shift_differ_and_are_the_same_again():
    shift = ConceptShift(maps=("identity", "partial:6", "partial:6"))
    one, two = label_maps(shift, 10, 0), label_maps(shift, 10, 0)
    assert not np.array_equal(one[1], one[2])
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("rule, word", [
    ("revers", "known: identity"), ("reverse_first:11", "11 labels of 10"), ("partial:1", "2..10"),
    ("next:two", "whole number"), ((0, 1, 2), "no permutation"), ((0,) * 10, "no permutation"),
])
def test_bad_label_maps_are_refused(rule, word):
    with pytest.raises(InputError, match=word):
        label_map(rule, 10, rng())


def image():
    x = np.zeros((1, 1, 3, 3), np.float32)
    x[0, 0, 0, 1] = 1.0
    return x


def test_turning_by_a_quarter_moves_the_top_to_the_side():
    turned = corrupt(image(), Corruption(kind="rotate", amount=90), rng())
    assert np.allclose(turned[0, 0], np.rot90(image()[0, 0]), atol=1e-6)


def test_contrast_brightness_and_inversion_by_hand():
    x = np.array([[[[0.0, 0.5], [0.5, 1.0]]]], np.float32)  # mean .5
    contrast = corrupt(x, Corruption(kind="contrast", amount=0.4), rng())
    assert np.allclose(contrast, [[[[0.3, 0.5], [0.5, 0.7]]]])
    assert np.allclose(corrupt(x, Corruption(kind="brightness", amount=0.75), rng()), [[[[0.75, 1], [1, 1]]]])
    assert np.allclose(corrupt(x, Corruption(kind="invert"), rng()), 1 - x)
    assert np.array_equal(corrupt(x, Corruption(), rng()), x)


def test_blur_keeps_the_pictures_apart():
    x = np.zeros((2, 1, 9, 9), np.float32)
    x[0, 0, 4, 4] = 1
    blurred = corrupt(x, Corruption(kind="blur", amount=0.6), rng())
    assert blurred[0].sum() == pytest.approx(1, abs=1e-4)
    assert 0 < blurred[0, 0, 4, 5] < blurred[0, 0, 4, 4] < 1
    assert not blurred[1].any()


def test_noise_has_its_deviation_and_images_stay_in_range():
    x = np.full((200, 1, 8, 8), 0.5, np.float32)
    noisy = corrupt(x, Corruption(kind="noise", amount=0.1), rng())
    assert noisy.std() == pytest.approx(0.1, rel=0.05)
    wide = corrupt(x, Corruption(kind="noise", amount=0.6), rng())
    assert wide.min() == 0 and wide.max() == 1
    vectors = corrupt(np.zeros((500, 4), np.float32), Corruption(kind="noise", amount=2.0), rng())
    assert vectors.min() < -2 and vectors.dtype == np.float32


def test_vectors_cannot_be_turned():
    with pytest.raises(InputError, match=r"rotate.*images"):
        corrupt(np.zeros((5, 4), np.float32), Corruption(kind="rotate", amount=20), rng())


@pytest.mark.parametrize("bad", [{"kind": "noise", "amount": -1}, {"kind": "blur", "amount": float("nan")},
                                 {"kind": "fog"}, {"kind": "noise", "strength": 1}])
def test_bad_corruptions_are_refused(bad):
    with pytest.raises(ValidationError):
        Corruption(**bad)


def test_pictures_move_by_at_most_a_pixel_and_sideways_unless_told():
    x = np.zeros((300, 1, 5, 5), np.float32)
    x[:, 0, 2, 2] = 1
    where = {tuple(p) for p in np.argwhere(translate(x, 1, rng(), vertical=False))[:, 2:]}
    assert where == {(2, 1), (2, 2), (2, 3)}
    both = {tuple(p) for p in np.argwhere(translate(x, 1, rng(), vertical=True))[:, 2:]}
    assert len(both) == 9
    edge = np.zeros((300, 1, 2, 2), np.float32)
    edge[:, :, :, 1] = 1
    assert set(translate(edge, 1, rng(), vertical=False).sum(axis=(1, 2, 3))) == {0.0, 2.0}  # moved out, not around


def test_bootstrap_varies_every_copy():
    same = np.repeat(image(), 50, axis=0)
    varied = vary(same, Bootstrap(), rng())
    assert len(np.unique(varied.reshape(50, -1), axis=0)) == 50
    assert vary(np.ones((3, 4), np.float32), Bootstrap(noise=0.0), rng()).tolist() == np.ones((3, 4)).tolist()


def test_centred_pictures_are_the_same_ones_half_darker(tmp_path):
    spec = FederationSpec(n_clients=2, feature=FeatureShift(variants=(Corruption(kind="contrast", amount=0.4),)))
    plain, centred = (build_federation(spec.model_copy(update={"partition": Draw(centred=c)})) for c in (False, True))
    for a, b in zip(plain.everyone, centred.everyone, strict=True):
        assert torch.equal(a.train.x - 0.5, b.train.x) and torch.equal(a.test.x - 0.5, b.test.x)
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b,label\n" + "1,2,0\n3,4,1\n" * 20)
    with pytest.raises(InputError, match=r"partition\.centred = true .* shape \(2,\)"):
        build_federation(FederationSpec(source=str(rows), n_clients=2, partition=Draw(centred=True)))


def test_label_distributions():
    free, tight = LabelShift(), LabelShift(concentration=1e6)
    w = free.weights(4)[0]
    assert label_distribution(free, w, rng()).tolist() == [0.25] * 4
    assert np.allclose(label_distribution(tight, w, rng()), 0.25, atol=0.01)
    assert LabelShift(concentration=3).total(10) == 3
    assert LabelShift(concentration=0.3, per="per_class").total(10) == pytest.approx(3)


def test_dirichlet_moments_are_those_of_the_total_concentration():
    """Var q_c = w (1 - w) / (A + 1)."""
    labels = LabelShift(concentration=3.0)
    w, generator = labels.weights(10)[0], rng()
    q = np.array([label_distribution(labels, w, generator) for _ in range(4000)])
    assert np.allclose(q.mean(0), 0.1, atol=0.01)
    assert q.var(0).mean() == pytest.approx(0.1 * 0.9 / 4, rel=0.05)


def test_label_groups_never_leave_their_support():
    labels = LabelShift(concentration=2.0, groups=((0.5, 1, 1, 0.5, 0, 0), (0, 0, 0, 0, 1, 1)))
    rows = labels.weights(6)
    assert np.allclose(rows[0], [1 / 6, 1 / 3, 1 / 3, 1 / 6, 0, 0])
    assert not label_distribution(labels, rows[1], rng())[:4].any()
    with pytest.raises(InputError, match="6 class weights"):
        LabelShift(groups=((1, 1),)).weights(6)
