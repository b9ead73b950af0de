"""Projection onto the correlation matrices with a certified distance to the exact answer.

The heart of ``dp_sdp``: the privacy proof needs the exact minimiser, so what is returned must come with a proved bound
on how far from it a floating-point solver stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import ceil, hypot, sqrt

import numpy as np
from scipy.linalg import LinAlgError, eigh
from scipy.optimize import OptimizeResult, minimize

from graphclust.graph import InputError

Array = np.ndarray

RESTARTS = 20
EVALUATIONS = 500
"""Dual evaluations before L-BFGS starts anew from its last point; twelve to twenty are usual."""
ADMM_STEPS = 50_000
OVER_RELAXATION = 1.9
BALANCING_STEPS, BALANCE_EVERY = 100, 10
"""The penalty follows the residuals early only: ADMM converges for any penalty that stays fixed from some step on."""


@dataclass(frozen=True)
class Projection:
    """A feasible point and its certified distance to the exact projection.

    Attributes
    ----------
    x : ndarray of shape (n, n), float64
        Symmetric, diagonal exactly 1, positive semidefinite up to rounding, entries >= 0 if that was asked.
    error : float
        Proved bound: ``||x - x*||_F <= error``.
    iterations : int
        Eigendecompositions that were computed.
    """

    x: Array
    error: float
    iterations: int


def project(y: Array, *, nonnegative: bool = False, error: float = 0.1) -> Projection:
    """The closest correlation matrix: ``argmin 1/2 ||X - Y||_F^2`` over ``{X psd, X_ii = 1[, X_ij >= 0]}``.

    Without the sign constraint: L-BFGS on the dual of Malick (2004) and Boyd & Xiao (2005). With it, or where L-BFGS
    stalls: ADMM between the psd cone and the box (Boyd et al. 2011, section 3). Both stop at the first step whose
    duality gap proves the error asked, see :func:`certified_error`; nothing is random, the same ``y`` gives the same
    ``x``.

    Parameters
    ----------
    y : ndarray of shape (n, n)
        Symmetric and finite; its diagonal is irrelevant, because that of X is fixed.
    nonnegative : bool, default False
        Also ask ``X_ij >= 0``.
    error : float, default 0.1
        Largest allowed Frobenius distance of the result from the exact projection, > 0.

    Returns
    -------
    Projection

    Raises
    ------
    InputError
        ``y`` is not a finite symmetric matrix, or ``error`` is not a positive number.
    RuntimeError
        The error asked could not be certified within a very generous cap; nothing is returned, because a result with a
        larger error would void the privacy proof.

    References
    ----------
    Malick, "A dual approach to semidefinite least-squares problems", SIAM J. Matrix Anal. Appl. 2004,
    doi:10.1137/S0895479802413856. Boyd & Xiao, "Least-squares covariance matrix adjustment", SIAM J. Matrix Anal. Appl.
    2005, doi:10.1137/040609902. Boyd, Parikh, Chu, Peleato & Eckstein, "Distributed optimization and statistical
    learning via the alternating direction method of multipliers", 2011, doi:10.1561/2200000016.
    """
    y = _checked(y)
    if not (np.isfinite(error) and error > 0):
        raise InputError(f"error is {error!r}; allowed is a finite number > 0, the Frobenius distance to certify")
    iterations = 0
    # L-BFGS is much the faster one, but stalls on a few sparse matrices with a large scale, where ADMM goes on
    points = _admm(y, True) if nonnegative else chain(_dual(y, error), _admm(y, False))
    for point, s in points:
        iterations = point.iterations
        if point.error <= error and _is_psd(s):
            return point
    raise RuntimeError(
        f"no projection with a certified error <= {error} after {iterations} eigendecompositions, n = {len(y)}; "
        "nothing is released. Ask a larger error or scale the matrix down."
    )


def certified_error(x: Array, y: Array, s: Array, norm: float, *, nonnegative: bool = False) -> float:
    """Upper bound on ``||x - x*||_F`` for a feasible ``x`` from one multiplier ``s`` of the psd constraint.

    With S psd and B = {X_ii = 1[, X_ij >= 0]}, let f(X) = 1/2 ||X - Y||^2 - <S, X>, minimised over B at ``box``, the
    projection of Y + S. f is 1-strongly convex and <S, X*> >= 0, hence for the exact projection X* and the feasible X

        1/2 ||X - X*||^2 <= P(X) - P(X*)         strong convexity of the primal P = 1/2 ||. - Y||^2
        1/2 ||box - X*||^2 <= P(X*) - f(box)     strong convexity of f, and f(X*) <= P(X*)

    and the sum of the right-hand sides is the duality gap, which is a sum of terms >= 0, free of cancellation:

        P(X) - f(box) = 1/2 ||X - box||^2 + <S, X> + <Z, X>,  Z = box - Y - S off the diagonal (0 unless X >= 0 binds).

    Write h = ||X - box|| / 2 and g = <S, X> + <Z, X>. By the parallelogram law X* lies in the ball of radius
    sqrt(h^2 + g) about the midpoint of X and box, so ``||X - X*|| <= h + sqrt(h^2 + g)``: never above the usual
    sqrt(2 gap).

    Rounding: ``s`` is one half of a computed eigendecomposition of a matrix of Frobenius norm ``norm``. LAPACK's is the
    exact one of a matrix at distance p(n) u norm with p a modest polynomial (Users' Guide, section 4.7), taken as
    10 n here, and the projection onto the psd cone does not expand; so the stored ``s`` is within ``delta`` of a psd
    matrix, for which the argument above is exact. (That LAPACK's evr left out no eigenvalue is not taken on trust:
    :func:`project` has the smallest eigenvalue of the last ``s`` computed by another routine.) The same ``delta``
    covers the rounding of ``x``, ``box`` and, times
    the norms of the factors, of the inner products.
    """
    box = y + s
    if nonnegative:
        np.maximum(box, 0, out=box)
    np.fill_diagonal(box, 1)
    h = float(np.linalg.norm(x - box)) / 2
    g = float(np.vdot(s, x))
    size = float(np.linalg.norm(x))
    delta = 10 * len(y) * np.finfo(float).eps * (norm + float(np.linalg.norm(y)) + size)
    if nonnegative:
        box -= y
        box -= s
        np.fill_diagonal(box, 0)
        g += float(np.vdot(box, x))
    h, g = h + delta, max(g, 0) + 4 * delta * size
    return h + sqrt(h * h + g) + delta


def _is_psd(s: Array) -> bool:
    """True when no eigenvalue of ``s``, computed without evr, is below zero by more than rounding."""
    return bool(np.linalg.eigvalsh(s)[0] >= -10 * len(s) * np.finfo(float).eps * max(float(np.linalg.norm(s)), 1))


def _checked(y: Array) -> Array:
    """``y`` as float64 with a unit diagonal, or the reason why it is refused."""
    y = np.array(y, dtype=float)
    if y.ndim != 2 or y.shape[0] != y.shape[1] or not y.size:
        raise InputError(f"y has shape {y.shape}; allowed is a square matrix (n, n) with n >= 1")
    if not np.isfinite(y).all():
        raise InputError("y holds nan or infinite entries; allowed are finite numbers")
    if not np.array_equal(y, y.T):
        raise InputError("y is not symmetric; pass (y + y.T) / 2 if the difference is rounding")
    np.fill_diagonal(y, 1)
    return y


def _positive_part(w: Array) -> tuple[Array, Array, Array]:
    """W_+ with its positive eigenvalues and their eigenvectors: few, so only they are computed."""
    try:
        values, vectors = eigh(w, subset_by_value=(0, np.inf), driver="evr", check_finite=False)
    except LinAlgError:
        values, vectors = _all_eigenvectors(w)
        values, vectors = values[values > 0], vectors[:, values > 0]
    return _assembled(values, vectors), values, vectors


def _all_eigenvectors(w: Array) -> tuple[Array, Array]:
    """All of them, by divide and conquer: LAPACK's evr gives up on some matrices with a multiple eigenvalue, and on a
    graph but not on its neighbour, so that failing would give an edge away."""
    return eigh(w, driver="evd", check_finite=False)


def _assembled(values: Array, vectors: Array) -> Array:
    """``V diag(values) V^T``, exactly symmetric: a product of a matrix with its own transpose is."""
    half = vectors * np.sqrt(values)
    return half @ half.T


def _feasible(psd: Array, nonnegative: bool) -> Array:
    """A psd matrix scaled to a unit diagonal and, if asked, mixed with the all-ones matrix until no entry is < 0."""
    d = np.diag(psd)
    scale = np.divide(1, np.sqrt(d), out=np.zeros(len(d)), where=d > np.finfo(float).tiny)
    x = psd * np.outer(scale, scale)
    np.fill_diagonal(x, 1)
    if nonnegative and (lowest := -x.min()) > 0:
        x = np.maximum((x + lowest) / (1 + lowest), 0)
        np.fill_diagonal(x, 1)
    return x


def _start(y: Array) -> tuple[float, Array, Array]:
    """The constant c that is the best ``c 1`` for the dual: trace (Y + c I)_+ = n; and that positive part.

    From zero, L-BFGS spends half of its evaluations on the way here, with hundreds of positive eigenvalues each.
    """
    n = len(y)
    count = min(n, ceil(4 * sqrt(n)))
    while True:
        try:
            values, vectors = eigh(y, subset_by_index=(n - count, n - 1), driver="evr", check_finite=False)
        except LinAlgError:
            count = n
            values, vectors = _all_eigenvectors(y)
        values, vectors = values[::-1], vectors[:, ::-1]
        level = (np.cumsum(values) - n) / np.arange(1, count + 1)  # -c if that many eigenvalues were the positive ones
        rank = int(np.flatnonzero(values > level)[-1]) + 1
        if rank < count or count == n:
            return -float(level[rank - 1]), values[:rank] - level[rank - 1], vectors[:, :rank]
        count = min(n, 2 * count)


def _dual(y: Array, error: float) -> Iterator[tuple[Projection, Array]]:
    """The points of L-BFGS, each with its psd multiplier S, on theta(m) = 1/2 ||(Y + Diag m)_+||_F^2 - 1^T m.

    m has shape (n,). Its gradient is diag (Y + Diag m)_+ - 1: where it is 0, (Y + Diag m)_+ is the answer. At every m
    the psd multiplier of the certificate is S = (Y + Diag m)_-.
    """
    n, count = len(y), 1
    w = y.copy()
    c, values, vectors = _start(y)
    m, plus = np.full(n, c), _assembled(values, vectors)

    def certified() -> tuple[Projection, Array]:
        x, s = _feasible(plus, False), plus - w
        return Projection(x, certified_error(x, y, s, float(np.linalg.norm(w))), count), s

    for _ in range(RESTARTS):
        np.fill_diagonal(w, 1 + m)
        yield certified()
        # Scaled so that the first step is a Newton step for an estimated Hessian diagonal: with all the negative
        # eigenvalues at their mean -mu, it is p^2 + 2 q (1 - p), p = diag V V^T, q = diag V diag(l / (l + mu)) V^T.
        mu = (values.sum() - np.trace(w)) / max(n - len(values), 1)
        squares = vectors**2
        p, q = squares.sum(1), squares @ (values / (values + max(mu, 0)))
        scale = 1 / np.sqrt(np.maximum(p * p + 2 * q * (1 - p), np.finfo(float).eps))
        unit = max(float(np.linalg.norm(scale * (np.diag(plus) - 1))), np.finfo(float).tiny)

        def theta(u: Array, m: Array = m, step: Array = unit * scale, unit: float = unit) -> tuple[float, Array]:
            nonlocal plus, values, vectors, count
            np.fill_diagonal(w, 1 + m + step * u)
            plus, values, vectors = _positive_part(w)
            count += 1
            value = values @ values / 2 - (m + step * u).sum()
            return value / unit**2, step * (np.diag(plus) - 1) / unit**2

        def certify(intermediate_result: OptimizeResult) -> None:
            if certified()[0].error <= error:
                raise StopIteration

        options = {"maxcor": 20, "ftol": 0, "gtol": 0, "maxfun": EVALUATIONS, "maxiter": EVALUATIONS}
        minimize(theta, np.zeros(n), jac=True, method="L-BFGS-B", callback=certify, options=options)
        m = np.diag(w) - 1


def _admm(y: Array, nonnegative: bool) -> Iterator[tuple[Projection, Array]]:
    """The points of ADMM, each with its psd multiplier S, on ``1/2 ||X - Y||^2 + [X in B] + [V psd]``, X = V.

    Boyd et al. 2011, eq. 3.5-3.7. The scaled multiplier U is -(psd part of the last eigendecomposition), so S = -rho
    U certifies without another one.
    """
    c, values, vectors = _start(y)
    v = _assembled(values, vectors)
    s = v - y
    s[np.diag_indices_from(s)] -= c
    rho = 2.5 * max(float(np.linalg.norm(s)), 1) / float(np.linalg.norm(v))
    u = s / -rho
    for step in range(1, ADMM_STEPS + 1):
        x = (y + rho * (v - u)) / (1 + rho)
        if nonnegative:
            np.maximum(x, 0, out=x)
        np.fill_diagonal(x, 1)
        w = OVER_RELAXATION * x + (1 - OVER_RELAXATION) * v + u
        before, v = v, _positive_part(w)[0]
        u = w - v
        primal = float(np.linalg.norm(x - v) / np.linalg.norm(v))
        point = _feasible(v, nonnegative)
        norm = rho * hypot(float(np.linalg.norm(v)), float(np.linalg.norm(u)))
        bound = certified_error(point, y, -rho * u, norm, nonnegative=nonnegative)
        yield Projection(point, bound, step + 1), -rho * u
        if step <= BALANCING_STEPS and step % BALANCE_EVERY == 0:
            dual = float(np.linalg.norm(v - before) / max(np.linalg.norm(u), np.finfo(float).tiny))
            factor = float(np.clip(sqrt(primal / dual), 0.2, 5)) if primal and dual else 1
            if not 1 / 1.5 <= factor <= 1.5:
                rho, u = rho * factor, u / factor
