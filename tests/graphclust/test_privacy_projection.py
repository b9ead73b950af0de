"""The projection of ``dp_sdp``: right answers, feasible answers, and a certificate that is a bound."""

from __future__ import annotations

import cvxpy
import networkx as nx
import numpy as np
import pytest

from graphclust.graph import InputError
from graphclust.privacy import projection
from graphclust.privacy.projection import certified_error, project

BOTH = pytest.mark.parametrize("nonnegative", [False, True])


def centred(graph: nx.Graph, s: float = 5.0) -> np.ndarray:
    """``s (A - tau J)`` with a unit diagonal, as ``dp_sdp`` makes it."""
    adjacency = nx.to_numpy_array(graph)
    n = len(adjacency)
    y = s * (adjacency - adjacency.sum() / (n * (n - 1)))
    np.fill_diagonal(y, 1)
    return y


def sbm(n: int, s: float = 5.0, seed: int = 0) -> np.ndarray:
    return centred(nx.stochastic_block_model([n // 2, n - n // 2], [[0.3, 0.1], [0.1, 0.3]], seed=seed), s)


def symmetric(n: int, scale: float, seed: int) -> np.ndarray:
    a = np.random.default_rng(seed).normal(scale=scale, size=(n, n))
    return (a + a.T) / 2


GRAPHS = {
    "sbm": nx.stochastic_block_model([20, 20], [[0.5, 0.1], [0.1, 0.5]], seed=1),
    "empty": nx.empty_graph(40),
    "tree": nx.balanced_tree(3, 3),
    "star": nx.star_graph(39),
    "cliques": nx.disjoint_union(nx.complete_graph(20), nx.complete_graph(20)),
}


@BOTH
@pytest.mark.parametrize(("entry", "plain", "signed"), [(0.3, 0.3, 0.3), (7, 1, 1), (-0.4, -0.4, 0), (-9, -1, 0)])
def test_two_by_two_is_a_clipped_entry(entry: float, plain: float, signed: float, nonnegative: bool) -> None:
    """[[1, a], [a, 1]] is psd iff |a| <= 1, so the projection clips; the diagonal of Y plays no part."""
    found = project(np.array([[8.0, entry], [entry, -3.0]]), nonnegative=nonnegative, error=1e-4)
    assert found.x[0, 1] == pytest.approx(signed if nonnegative else plain, abs=1e-4)


@pytest.mark.parametrize(("entry", "expected"), [(-2.0, -0.5), (-0.5, -0.5), (-0.2, -0.2), (3.0, 1.0)])
def test_three_by_three_with_one_value_off_the_diagonal(entry: float, expected: float) -> None:
    """By symmetry X = (1 - a) I + a J, psd iff its eigenvalues 1 + 2 a and 1 - a are >= 0: a in [-1/2, 1]."""
    y = np.full((3, 3), entry)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(project(y, error=1e-3).x[off], expected, atol=1e-3)
    np.testing.assert_allclose(project(y, nonnegative=True, error=1e-3).x[off], max(expected, 0), atol=1e-3)


def test_a_path_of_three_nodes_by_hand() -> None:
    """Y_01 = Y_12 = a, Y_02 = 0: on the boundary det = (1 - X_02)(1 + X_02 - 2 X_01^2) = 0, so X_02 = 2 t^2 - 1 with
    t = X_01, and 2 (t - a)^2 + (2 t^2 - 1)^2 is least where 4 (t - a) + 8 t (2 t^2 - 1) = 0: 4 t^3 - t = a = 1."""
    t = float(np.real(next(r for r in np.roots([4, 0, -1, -1]) if abs(r.imag) < 1e-12)))
    expected = np.array([[1, t, 2 * t * t - 1], [t, 1, t], [2 * t * t - 1, t, 1]])
    y = np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])
    np.testing.assert_allclose(project(y, error=1e-4).x, expected, atol=1e-4)


@BOTH
def test_a_feasible_matrix_is_its_own_projection(nonnegative: bool) -> None:
    factor = np.abs(np.random.default_rng(0).normal(size=(30, 4)))
    factor /= np.linalg.norm(factor, axis=1, keepdims=True)
    y = factor @ factor.T
    found = project((y + y.T) / 2, nonnegative=nonnegative, error=1e-3)
    assert np.linalg.norm(found.x - y) <= found.error <= 1e-3


@BOTH
@pytest.mark.parametrize("name", GRAPHS)
def test_the_result_is_feasible_and_certified(name: str, nonnegative: bool) -> None:
    found = project(centred(GRAPHS[name]), nonnegative=nonnegative)
    assert found.error <= 0.1
    assert (np.diag(found.x) == 1).all() and np.array_equal(found.x, found.x.T)
    assert np.linalg.eigvalsh(found.x)[0] > -1e-10
    assert not nonnegative or found.x.min() >= 0


@BOTH
@pytest.mark.parametrize("name", GRAPHS)
def test_the_certificate_bounds_the_distance_to_a_much_tighter_solution(name: str, nonnegative: bool) -> None:
    y = centred(GRAPHS[name])
    tight = project(y, nonnegative=nonnegative, error=1e-3)
    for error in (10.0, 1.0, 0.1):
        loose = project(y, nonnegative=nonnegative, error=error)
        assert np.linalg.norm(loose.x - tight.x) <= loose.error + tight.error


@BOTH
def test_the_certificate_holds_for_any_feasible_point_and_any_multiplier(nonnegative: bool) -> None:
    """Far from the optimum too: 200 random pairs (X, S) against the tight solution, and against h + sqrt(gap - h^2)
    with the gap P(X) - f(box) computed as the difference it is."""
    y = sbm(16)
    tight = project(y, nonnegative=nonnegative, error=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(200):
        rank = int(rng.integers(1, 16))
        factor = np.abs(rng.normal(size=(16, rank))) if nonnegative else rng.normal(size=(16, rank))
        factor /= np.linalg.norm(factor, axis=1, keepdims=True)
        half = rng.normal(scale=rng.uniform(0, 2), size=(16, rank))
        x, s = factor @ factor.T, half @ half.T
        bound = certified_error(x, y, s, float(np.linalg.norm(s)), nonnegative=nonnegative)
        assert np.linalg.norm(x - tight.x) <= bound + tight.error
        box = np.maximum(y + s, 0) if nonnegative else y + s
        np.fill_diagonal(box, 1)
        gap = np.sum((x - y) ** 2) / 2 - np.sum((box - y) ** 2) / 2 + np.sum(s * box)
        h = np.linalg.norm(x - box) / 2
        assert bound == pytest.approx(h + np.sqrt(gap - h * h), rel=1e-6)


def test_the_certificate_is_attained_where_the_matrix_is_feasible_and_the_multiplier_zero() -> None:
    """Then X* = Y, so the bound can be no smaller than ||X - Y||, and it is not larger either."""
    x, y = np.eye(3), np.full((3, 3), 0.5) + np.eye(3) / 2
    assert certified_error(x, y, np.zeros((3, 3)), 0.0) == pytest.approx(np.sqrt(1.5), abs=1e-10)


@BOTH
def test_firm_non_expansiveness_on_random_pairs(nonnegative: bool) -> None:
    """||dX||^2 <= <dX, dY> for the exact points; each computed dX is off by at most 2 errors."""
    for seed in range(6):
        scale = (0.3, 1.0, 5.0)[seed % 3]
        one, two = symmetric(25, scale, seed), symmetric(25, scale, seed + 100)
        a, b = (project(y, nonnegative=nonnegative, error=1e-3) for y in (one, two))
        dx, dy = a.x - b.x, one - two
        np.fill_diagonal(dy, 0)  # the diagonal of X is constant
        off = a.error + b.error
        assert np.vdot(dx, dx) <= np.vdot(dx, dy) + off * (2 * np.linalg.norm(dx) + np.linalg.norm(dy)) + off**2


@BOTH
@pytest.mark.parametrize("name", GRAPHS)
def test_one_flipped_edge_moves_the_upper_triangle_no_more_than_the_sensitivity(name: str, nonnegative: bool) -> None:
    """Delta = min(s, sqrt(2 s)), with X >= 0 min(s, sqrt(s)), plus sqrt(2) times the solver's error."""
    rng = np.random.default_rng(3)
    graph = GRAPHS[name]
    upper = np.triu_indices(len(graph), 1)
    for s in (0.5, 2.0, 10.0):
        y = s * (nx.to_numpy_array(graph) - 0.1)
        u, v = rng.choice(len(graph), 2, replace=False)
        flipped = y.copy()
        flipped[u, v] = flipped[v, u] = s * 0.9 - (y[u, v] + s * 0.1)  # tau is public: it stays as it was
        change = project(y, nonnegative=nonnegative).x - project(flipped, nonnegative=nonnegative).x
        delta = min(s, np.sqrt(s) if nonnegative else np.sqrt(2 * s))
        assert np.linalg.norm(change[upper]) <= delta + np.sqrt(2) * 0.1


@pytest.mark.parametrize(
    ("n", "nonnegative"), [(200, False), (100, True), pytest.param(200, True, marks=pytest.mark.slow)]
)
def test_agreement_with_a_general_conic_solver(n: int, nonnegative: bool) -> None:
    y = sbm(n)
    x = cvxpy.Variable((n, n), PSD=True)
    constraints = [cvxpy.diag(x) == 1, *([x >= 0] if nonnegative else [])]
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x - y) / 2), constraints)
    problem.solve(solver="SCS", eps_abs=1e-6, eps_rel=1e-6)
    found = project(y, nonnegative=nonnegative, error=5e-3)
    assert np.linalg.norm(found.x - x.value) <= 1e-2


@BOTH
def test_the_same_input_gives_the_same_output(nonnegative: bool) -> None:
    y = sbm(40)
    before = y.copy()
    one, two = (project(y, nonnegative=nonnegative) for _ in range(2))
    assert np.array_equal(one.x, two.x) and one.error == two.error
    assert np.array_equal(y, before)


def test_a_single_node_is_the_matrix_one() -> None:
    assert project(np.array([[5.0]])).x == project(np.array([[5.0]]), nonnegative=True).x == 1


@BOTH
def test_a_cap_that_is_reached_releases_nothing(nonnegative: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "RESTARTS", 1)
    monkeypatch.setattr(projection, "ADMM_STEPS", 3)
    with pytest.raises(RuntimeError, match="nothing is released"):
        project(sbm(30), nonnegative=nonnegative, error=1e-3)


@pytest.mark.parametrize("y", [np.zeros((2, 3)), np.array([[0, 1], [2, 0]]), np.full((2, 2), np.nan), np.zeros((0, 0))])
def test_a_matrix_that_cannot_be_projected_is_refused(y: np.ndarray) -> None:
    with pytest.raises(InputError, match="y "):
        project(y)


@pytest.mark.parametrize("error", [0.0, -1.0, float("nan"), float("inf")])
def test_an_error_that_is_no_bound_is_refused(error: float) -> None:
    with pytest.raises(InputError, match="error is"):
        project(np.eye(3), error=error)


def test_an_eigenvalue_that_lapack_left_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one positive eigenvalue the multiplier is not psd, and no certificate may rest on it."""
    w = sbm(40) - np.eye(40) * 8
    values, vectors = np.linalg.eigh(w)
    values, vectors = values[values > 0], vectors[:, values > 0]
    assert projection._is_psd(projection._assembled(values, vectors) - w)
    assert not projection._is_psd(projection._assembled(values[1:], vectors[:, 1:]) - w)
    monkeypatch.setattr(projection, "_is_psd", lambda s: False)
    monkeypatch.setattr(projection, "RESTARTS", 2)
    monkeypatch.setattr(projection, "ADMM_STEPS", 20)
    with pytest.raises(RuntimeError, match="nothing is released"):
        project(sbm(20), error=1.0)
