"""The derivatives that TGC's step writes out, against autograd through the losses they belong to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graphclust.losses.temporal import reconstruction_norms, reconstruction_slopes, temporal_loss, temporal_slopes


@pytest.mark.parametrize("floor", [0.0, 1e-6, 0.3])
def test_slopes_of_the_temporal_loss(floor):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 4)) * 4).requires_grad_()
    temporal_loss(values, floor).sum().backward()
    torch.testing.assert_close(temporal_slopes(values.detach(), floor), values.grad)


def test_far_intensities_have_a_finite_slope():
    far = torch.tensor([[-200.0, 200.0], [200.0, -200.0]])
    torch.testing.assert_close(temporal_slopes(far), torch.tensor([[-1.0, 1.0], [0, 0]]))
    assert temporal_slopes(far, 1e-6).abs().max() < 1e-6


def test_slopes_of_the_reconstruction():
    rng = np.random.default_rng(1)
    angles = [torch.from_numpy(rng.uniform(-1, 1, size)).requires_grad_() for size in (6, (6, 3), (6, 2))]
    mask = torch.arange(3) < torch.tensor([3, 2, 0, 1, 3, 0])[:, None]
    target, history, negatives = angles
    reconstruction_norms(target, history, mask, negatives).backward()
    slopes = reconstruction_slopes(target.detach(), history.detach(), mask, negatives.detach())
    for slope, angle in zip(slopes, angles, strict=True):
        torch.testing.assert_close(slope, angle.grad)


def test_a_norm_of_nothing_has_no_slope():
    none = torch.zeros(4, 2, dtype=torch.bool)
    slopes = reconstruction_slopes(torch.ones(4), torch.rand(4, 2), none, torch.zeros(4, 1))
    assert not any(slope.any() for slope in slopes)
