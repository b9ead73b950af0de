"""Each loss against a double loop written from its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from graphclust.losses import (
    Pairs,
    kl_divergence,
    meta_node_contrast,
    neighbour,
    neighbour_contrast,
    neighbour_contrast_of_nodes,
    positive_sum,
    soft_assignment,
    target_distribution,
)
from graphclust.propagation import influence

N, D, K = 9, 4, 3


@pytest.fixture
def z() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(N, D))).requires_grad_()


@pytest.fixture
def gamma() -> sp.csr_array:
    """Cumulative influence on a path of 7 nodes and two isolated ones: asymmetric, with self pairs."""
    a = sp.lil_array((N, N), dtype=np.float32)
    for i in range(6):
        a[i, i + 1] = a[i + 1, i] = 1
    return influence(a.tocsr(), 2, "cumulative")


@pytest.fixture
def pairs(gamma: sp.csr_array) -> Pairs:
    return Pairs.from_scipy(gamma, dtype=np.float64)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def e(z: np.ndarray, i: int, j: int, tau: float) -> float:
    return math.exp(tau * (0.0 if i == j else cosine(z[i], z[j])))


def test_soft_assignment_is_the_student_t_kernel():
    z, mu = torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    # squared distances 0, 9 and 5, 8
    expected = np.array([[1, 1 / 10], [1 / 6, 1 / 9]])
    np.testing.assert_allclose(soft_assignment(z, mu), expected / expected.sum(1, keepdims=True), rtol=1e-6)
    wide = np.array([[1, 1 / 4], [1 / (1 + 5 / 3), 1 / (1 + 8 / 3)]])
    np.testing.assert_allclose(soft_assignment(z, mu, 3.0), wide / wide.sum(1, keepdims=True), rtol=1e-6)


def test_target_by_double_loop_and_without_gradient():
    q = torch.softmax(torch.from_numpy(np.random.default_rng(1).normal(size=(N, K))), 1).requires_grad_()
    p, plain = target_distribution(q), q.detach().numpy()
    assert not p.requires_grad
    f = [sum(plain[i, j] for i in range(N)) for j in range(K)]
    for i in range(N):
        weights = [plain[i, j] ** 2 / f[j] for j in range(K)]
        np.testing.assert_allclose(p[i], np.array(weights) / sum(weights), rtol=1e-12)


def test_target_of_a_batch_takes_the_frequencies_of_all_nodes():
    q = torch.softmax(torch.from_numpy(np.random.default_rng(2).normal(size=(N, K))), 1)
    np.testing.assert_allclose(target_distribution(q[:4], q.sum(0)), target_distribution(q)[:4], rtol=1e-12)


def test_target_survives_an_empty_cluster():
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(target_distribution(q), q)


def test_kl_divergence_by_double_loop():
    rng = np.random.default_rng(3)
    p, q = rng.dirichlet(np.ones(K), N), rng.dirichlet(np.ones(K), N)
    p[0] = [1, 0, 0]
    total = sum(p[i, j] * (math.log(p[i, j]) - math.log(q[i, j])) for i in range(N) for j in range(K) if p[i, j])
    assert kl_divergence(torch.from_numpy(p), torch.from_numpy(q)).item() == pytest.approx(total / N, rel=1e-12)


def test_positive_sum_by_double_loop(z, gamma, pairs):
    dense, plain = gamma.toarray(), z.detach().numpy()
    expected = [sum(dense[i, j] * e(plain, i, j, 0.7) for j in range(N)) for i in range(N)]
    unit = torch.nn.functional.normalize(z, dim=1)
    np.testing.assert_allclose(positive_sum(unit, pairs, 0.7).detach(), expected, rtol=1e-7)


def test_positive_sum_gradient(z, gamma, pairs):
    assert torch.autograd.gradcheck(lambda v: positive_sum(torch.nn.functional.normalize(v, dim=1), pairs, 0.7), (z,))
    block = Pairs.from_scipy(sp.csr_array(gamma[:4]), dtype=np.float64)  # fewer anchors than nodes
    assert torch.autograd.gradcheck(lambda v: positive_sum(torch.nn.functional.normalize(v, dim=1), block, 0.7), (z,))


@pytest.mark.parametrize("block", [2**24, 2 * N])
def test_neighbour_contrast_by_double_loop(z, gamma, pairs, block, monkeypatch):
    monkeypatch.setattr(neighbour, "BLOCK", block)  # all rows at once, and two at a time
    dense, plain, tau = gamma.toarray(), z.detach().numpy(), 1.3
    total = 0.0
    for i in range(N):
        above = sum(dense[i, j] * e(plain, i, j, tau) for j in range(N))
        below = sum(e(plain, i, j, tau) for j in range(N))
        total -= math.log(above / below + 1e-8)
    assert neighbour_contrast(z, pairs, tau).item() == pytest.approx(total / N, rel=1e-7)
    assert torch.autograd.gradcheck(lambda v: neighbour_contrast(v, pairs, tau), (z,))


def test_neighbour_contrast_node_by_node(z, gamma, pairs):
    """The terms by a double loop; their mean and its gradient are those of the sparse loss; padding changes nothing."""
    dense, plain, tau = torch.from_numpy(gamma.toarray()).double(), z.detach().numpy(), 1.3
    found = neighbour_contrast_of_nodes(z, dense, tau)
    for i in range(N):
        above = sum(float(dense[i, j]) * e(plain, i, j, tau) for j in range(N))
        below = sum(e(plain, i, j, tau) for j in range(N))
        assert found[i].item() == pytest.approx(-math.log(above / below + 1e-8), rel=1e-7)
    (gradient,), (expected,) = (torch.autograd.grad(v, z) for v in (found.mean(), neighbour_contrast(z, pairs, tau)))
    torch.testing.assert_close(gradient, expected)
    padded = neighbour_contrast_of_nodes(torch.cat((z, z[:2] + 1)), torch.nn.functional.pad(dense, (0, 2, 0, 2)), tau)
    torch.testing.assert_close(padded[:N], found)
    assert torch.isfinite(padded).all()


def test_neighbour_contrast_with_every_node_sampled_is_exact(z, pairs):
    columns = torch.from_numpy(np.random.default_rng(4).permutation(N))
    exact = neighbour_contrast(z, pairs, 1.3)
    assert neighbour_contrast(z, pairs, 1.3, columns=columns, population=N).item() == pytest.approx(exact.item())


def test_sampled_denominator_is_unbiased(z, pairs):
    """Over all C(9, 3) samples the mean of the estimated denominator is the exact one."""
    from itertools import combinations

    unit = torch.nn.functional.normalize(z.detach(), dim=1)
    positive = positive_sum(unit, pairs, 1.3)
    node = Pairs.from_scipy(sp.csr_array(([1.0], ([0], [0])), shape=(1, N)), dtype=np.float64)  # pos_0 = 1

    def denominator(columns: torch.Tensor | None) -> float:
        loss = neighbour_contrast(z.detach(), node, 1.3, columns=columns, population=N)
        return 1 / (math.exp(-loss.item()) - 1e-8)

    found = [denominator(torch.tensor(c)) for c in combinations(range(N), 3)]
    assert positive.shape == (N,)
    assert np.mean(found) == pytest.approx(denominator(None), rel=1e-9)
    assert np.std(found) > 0.05


def meta_node_by_loops(z: np.ndarray, gamma: np.ndarray, labels: np.ndarray, k: int, tau: float) -> float:
    positive = np.mean([math.log(sum(gamma[i, j] * e(z, i, j, tau) for j in range(len(z)) if gamma[i, j]) + 1e-10)
                        for i in range(len(z))])
    meta = [z[labels == c].sum(axis=0) for c in range(k) if (labels == c).any()]
    negative = np.mean([
        math.log(sum(1.0 if c == d else math.exp(tau * cosine(meta[c], meta[d])) for d in range(len(meta))) + 1e-10)
        for c in range(len(meta))
    ])
    return negative - positive


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 1, 2, 2, 0, 1], [0, 0, 2, 2, 2, 2, 0, 0, 2], [1] * 9, [0] * 9])
def test_meta_node_contrast_by_double_loop(z, gamma, pairs, labels):
    """With all clusters, with an empty one in the middle, and with all but one empty, the last included."""
    expected = meta_node_by_loops(z.detach().numpy(), gamma.toarray(), np.array(labels), K, 0.8)
    c = torch.tensor(labels)
    assert meta_node_contrast(z, pairs, c, K, 0.8).item() == pytest.approx(expected, rel=1e-7)
    assert torch.autograd.gradcheck(lambda v: meta_node_contrast(v, pairs, c, K, 0.8), (z,))


def test_meta_node_contrast_of_singletons_is_the_dense_loss(z, pairs):
    """Every node its own cluster: mean_c is mean_i, neg_c is the dense denominator; only the epsilons differ."""
    singletons = meta_node_contrast(z, pairs, torch.arange(N), N, 1.1)
    assert singletons.item() == pytest.approx(neighbour_contrast(z, pairs, 1.1).item(), abs=1e-6)


def test_zero_rows_and_cancelling_meta_nodes_give_finite_losses_and_gradients(pairs):
    z = torch.zeros((N, D), dtype=torch.float64)
    z[0, 0], z[1, 0] = 1.0, -1.0  # a cluster whose sum is zero; the rest are zero rows
    z.requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    for loss in (meta_node_contrast(z, pairs, labels, K, 1.0), neighbour_contrast(z, pairs, 1.0)):
        (grad,) = torch.autograd.grad(loss, z)
        assert torch.isfinite(loss)
        assert torch.isfinite(grad).all()


def test_no_gradient_reaches_what_is_constant(z, pairs):
    labels = torch.zeros(N, dtype=torch.long)
    meta_node_contrast(z, pairs, labels, 1, 1.0).backward()
    assert z.grad is not None
    assert pairs.weight.grad is None
