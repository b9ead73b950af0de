"""The parts of TGC's loss, as functions of distances and angles between the nodes of a sample (arXiv 2305.10738).

A sample is an event: node s meets node t at time tau; h = 1..H are the last nodes that s met before, n = 1..N are drawn
at random. Every function takes B samples side by side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def history_attention(distances: Tensor, mask: Tensor, masked: bool = True) -> Tensor:
    """a_h = softmax_h(-||z_s - z_h||^2), 0 where there is no history, (B, H).

    Parameters
    ----------
    distances : (B, H), ||z_s - z_h||^2
    mask : (B, H) bool, which entries of the history exist
    masked : False: the softmax runs over the missing entries as well, and these keep their share of it, as in the
        public code; there they are node 0
    """
    if not masked:
        return torch.softmax(-distances, 1) * mask
    # a row without any history would be 0/0
    lowest = torch.finfo(distances.dtype).min
    return torch.softmax(torch.where(mask, -distances, lowest), 1) * mask


def intensity(to_source: Tensor, to_history: Tensor, attention: Tensor, kernel: Tensor) -> Tensor:
    """lambda(s, x) = -||z_s - z_x||^2 + sum_h a_h k_h (-||z_h - z_x||^2) (TGC eq. 1-2; HTNE), (B, X).

    Parameters
    ----------
    to_source : (B, X), ||z_s - z_x||^2 for x = t, n_1..n_N
    to_history : (B, H, X), ||z_h - z_x||^2
    attention : (B, H), a
    kernel : (B, H), k_h = exp(-delta_s |tau - tau_h|)
    """
    return -to_source - ((attention * kernel)[:, :, None] * to_history).sum(1)


def temporal_loss(intensities: Tensor, floor: float = 0.0) -> Tensor:
    """-log sigma(lambda(s, t)) - sum_n log sigma(-lambda(s, n)) of each sample (TGC eq. 3), (B,).

    Parameters
    ----------
    intensities : (B, 1 + N), t first
    floor : added to sigma before the logarithm (1e-6 in the public code)
    """
    signed = intensities * _sign(intensities)
    return -(torch.log(torch.sigmoid(signed) + floor) if floor else F.logsigmoid(signed)).sum(1)


def temporal_slopes(intensities: Tensor, floor: float = 0.0) -> Tensor:
    """The derivative of :func:`temporal_loss` by each intensity, (B, 1 + N)."""
    sign = _sign(intensities)
    signed = intensities * sign
    slope = -sign * torch.sigmoid(-signed)
    if floor:
        sigma = torch.sigmoid(signed)
        slope *= sigma / (sigma + floor)
    return slope


def _sign(intensities: Tensor) -> Tensor:
    sign = torch.ones_like(intensities[0])
    sign[1:] = -1
    return sign


def reconstruction_norms(cos_target: Tensor, cos_history: Tensor, mask: Tensor, cos_negatives: Tensor) -> Tensor:
    """||1 - cos(s, t)||_2 + sum_h ||1 - cos(s, h)||_2 + sum_n ||cos(s, n)||_2, norms over the batch (TGC eq. 8).

    Parameters
    ----------
    cos_target : (B,)
    cos_history : (B, H)
    mask : (B, H); a missing entry adds nothing. (In the public code it adds 1: there ``cos_history`` is 0 and this
        mask is all true.)
    cos_negatives : (B, N)
    """
    history = (1 - cos_history) * mask
    return (1 - cos_target).norm() + history.norm(dim=0).sum() + cos_negatives.norm(dim=0).sum()


def reconstruction_slopes(
    cos_target: Tensor, cos_history: Tensor, mask: Tensor, cos_negatives: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivatives of :func:`reconstruction_norms` by the angles, (B,), (B, H) and (B, N); 0 where a norm is 0."""
    return _unit(cos_target - 1), _unit((cos_history - 1) * mask), _unit(cos_negatives)


def _unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=0).clamp_min(torch.finfo(x.dtype).tiny)
