"""FedCollab's search against all set partitions of small federations."""

from collections.abc import Iterator

import numpy as np
import pytest

from fedclust.algorithms._coalitions import find_coalitions, objective


def set_partitions(n: int) -> Iterator[list[int]]:
    """Every partition of n clients once, as restricted growth strings."""
    def grow(labels: list[int], used: int) -> Iterator[list[int]]:
        if len(labels) == n:
            yield labels
            return
        for k in range(used + 1):
            yield from grow([*labels, k], max(used, k + 1))

    yield from grow([], 0)


PARTITIONS = np.array(list(set_partitions(8)))
# for every partition the coalition sizes |S|, and who is with whom
TOGETHER = PARTITIONS[:, :, None] == PARTITIONS[:, None, :]


def lowest(d: np.ndarray, n: np.ndarray, c: float) -> float:
    """min L over all partitions, by the definition."""
    n_s = TOGETHER @ n.astype(float)
    return float((c / np.sqrt(n_s) + np.einsum("pij,j,ij->pi", TOGETHER, n, d) / n_s).sum(1).min())


def test_bell_number():
    assert len(PARTITIONS) == 4140 == len(np.unique(PARTITIONS, axis=0))


@pytest.mark.parametrize("kind", ["uniform", "unequal sizes", "planted"])
def test_search_reaches_the_exact_optimum_on_30_of_30(kind):
    reached, singletons_or_one = 0, 0
    for seed in range(30):
        rng = np.random.default_rng([seed, len(kind)])
        d = np.triu(rng.random((8, 8)), 1)
        n = rng.integers(10, 500, 8)
        if kind == "unequal sizes":
            n = np.exp(rng.uniform(2, 8, 8)).astype(int)
        if kind == "planted":
            group = rng.integers(3, size=8)
            d = np.where(group[:, None] == group, 0.3 * d, 0.3 + 0.7 * d) * np.triu(np.ones((8, 8)), 1)
        d = d + d.T
        c = float(np.sqrt(n.mean()) * rng.uniform(0.2, 1.0))
        labels = find_coalitions(d, n, c, np.random.default_rng(0))
        best = lowest(d, n, c)
        assert objective(d, n, labels, c) >= best - 1e-9
        reached += objective(d, n, labels, c) <= best + 1e-9
        singletons_or_one += len(np.unique(labels)) in (1, 8)
    assert reached == 30
    assert singletons_or_one < 20, "the instances are too easy to tell anything"
