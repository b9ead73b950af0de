"""Noise on one client's report; what it rests on is said in :mod:`fedclust.wire_privacy`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fedclust.algorithms.base import Delivery, Report
from fedclust.models import Params
from fedclust.privacy import BOUNDED, HISTOGRAMS
from graphclust.graph import InputError
from graphclust.privacy.sampling import Uniform

# what floating point may add to a norm that was clipped
MARGIN = 1 + 1e-9


def noised(report: Report, delivery: Delivery, clip: float, multiplier: float, uniform: Uniform) -> Report:
    """The report of a cohort of one with noise on all of it.

    Of several models that were sent, of which one was trained, noise hides which: the update is one of all models,
    zero in the others, ``group`` a one-hot vector, and after the noise the model of its largest entry is sent.

    Parameters
    ----------
    report : models (1, k', ...) and arrays (1, ...)
    delivery : models (1, k, ...) that were sent; k' is k or 1
    clip : largest L2 norm of the joint update
    multiplier : sigma over the sensitivity of everything together
    uniform : source of the noise

    Raises
    ------
    InputError
        Arrays without a bound, or models that are not as they were sent.
    """
    odd = sorted({*report.arrays} - {*BOUNDED})
    if odd:
        raise InputError(f"the array {odd[0]!r} of the report has no bound that noise could be measured by; take "
                         "privacy.clip out, or an algorithm without it")
    sent, k = _joint(delivery.models), _count(delivery.models)
    several = 1 == _count(report.models) < k
    parts: dict[str, np.ndarray] = {}
    if report.models:
        choice = _choice(report, delivery) if several else 0
        parts["update"] = _clipped(_update(report.models, delivery.models, choice if several else None), clip)
        if several:
            parts["group"] = np.eye(k)[choice]
    parts |= {name: _shares(t[0]) for name, t in report.arrays.items() if name != "group"}
    if not parts:
        return report
    scale = {name: 1.0 if name == "update" else math.sqrt(2) * clip for name in parts}
    values = np.concatenate([scale[name] * part for name, part in parts.items()])
    out = _noisy(values, 2 * clip * math.sqrt(len(parts)) * MARGIN, multiplier, uniform)
    cuts = np.cumsum([len(part) for part in parts.values()])[:-1]
    found = {name: part / scale[name] for name, part in zip(parts, np.split(out, cuts), strict=True)}
    arrays: dict[str, Tensor] = {}
    for name, t in report.arrays.items():
        if name == "group":
            arrays[name] = torch.full_like(t, int(found[name].argmax()) if several else 0)
        else:
            arrays[name] = torch.from_numpy(_simplex(found[name])).to(t).view_as(t)
    if not report.models:
        return Report({}, arrays)
    moved = torch.from_numpy(sent + found["update"].reshape(k, -1))
    chosen = moved[[int(found["group"].argmax())]] if several else moved
    return Report(_apart(chosen, report.models), arrays)


def with_noised_counts(report: Report, multiplier: float, uniform: Uniform) -> Report:
    """The report with noise on its label counts alone, which one sample replaced moves by at most sqrt 2."""
    arrays = dict(report.arrays)
    for name in (n for n in HISTOGRAMS if n in arrays):
        t = arrays[name]
        out = _noisy(t.double().flatten().cpu().numpy(), math.sqrt(2) * MARGIN, multiplier, uniform).clip(0)
        out = out if out.sum() > 0 else np.ones_like(out)
        arrays[name] = torch.from_numpy(out).to(t).view_as(t)
    return Report(report.models, arrays)


def _noisy(values: np.ndarray, sensitivity: float, multiplier: float, uniform: Uniform) -> np.ndarray:
    from graphclust.privacy.mechanisms import grid_width, noisy  # scipy is long to import, and most do without

    return noisy(values, grid_width(sensitivity, len(values), multiplier), uniform)


def _count(models: Params) -> int:
    return next(iter(models.values())).shape[1] if models else 0


def _joint(models: Params) -> np.ndarray:
    """Models (1, k, ...) as one matrix (k, P), parameters in the order of their names; (0, 0) without any."""
    if not models:
        return np.zeros((0, 0))
    return torch.cat([models[name][0].flatten(1).double() for name in sorted(models)], dim=1).cpu().numpy()


def _apart(matrix: Tensor, like: Params) -> Params:
    """The inverse of :func:`_joint`, shapes and types as of ``like``."""
    found, at = {}, 0
    for name in sorted(like):
        size = like[name][0, 0].numel()
        found[name] = matrix[:, at : at + size].reshape(like[name].shape).to(like[name])
        at += size
    return {name: found[name] for name in like}


def _update(trained: Params, given: Params, choice: int | None) -> np.ndarray:
    """theta_i - theta of all models that were sent (k P,), zero in those that were not trained."""
    fits = trained.keys() == given.keys() and all(t.is_floating_point() for t in trained.values())
    if not fits or (choice is None and _count(trained) != _count(given)):
        raise InputError("the models of the report are not those that were sent: no update can be measured; take "
                         "privacy.clip out, or an algorithm that trains what it is sent")
    new, old = _joint(trained), _joint(given)
    if choice is None:
        return (new - old).ravel()
    update = np.zeros_like(old)
    update[choice] = new[0] - old[choice]
    return update.ravel()


def _choice(report: Report, delivery: Delivery) -> int:
    """Which of the models that were sent was trained: as the report says, or the nearest."""
    if "group" in report.arrays:
        return int(report.arrays["group"][0])
    return int(np.linalg.norm(_joint(delivery.models) - _joint(report.models), axis=1).argmin())


def _clipped(update: np.ndarray, clip: float) -> np.ndarray:
    """u min(1, clip / |u|); zero for an update that is not finite."""
    length = np.linalg.norm(update)
    if not np.isfinite(length):
        return np.zeros_like(update)
    return update * min(1.0, clip / length) if length > 0 else update


def _shares(values: Tensor) -> np.ndarray:
    """Counts or weights as shares of their sum (c,), whatever they are."""
    return _simplex(np.nan_to_num(values.double().flatten().cpu().numpy(), posinf=0, neginf=0))


def _simplex(values: np.ndarray) -> np.ndarray:
    positive = values.clip(0)
    return positive / positive.sum() if positive.sum() > 0 else np.full(len(values), 1 / len(values))
