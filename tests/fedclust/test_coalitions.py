"""FedCollab's objective, the gains of its moves, and the search."""

import numpy as np
import pytest

from fedclust.algorithms._coalitions import (
    Partition,
    c_curve,
    find_coalitions,
    first_come,
    most_stable,
    objective,
)

# Mean divergences between four groups of five clients, as published for two data sets (arXiv 2306.06508).
LABEL_SHIFT = [[.006, .157, 1, 1], [.157, .027, .998, .998], [1, .998, .129, .286], [1, .998, .286, .157]]
CONCEPT_SHIFT = [[.017, .088, .274, .292], [.088, .014, .286, .248], [.274, .286, .085, .139], [.292, .248, .139, .027]]


def in_blocks(means) -> np.ndarray:
    group = np.repeat(np.arange(4), 5)
    d = np.array(means)[group][:, group]
    np.fill_diagonal(d, 0)
    return d


def random_instance(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng(seed)
    d = np.triu(rng.random((n, n)), 1)
    return d + d.T, rng.integers(10, 500, n), float(rng.uniform(1, 10))


@pytest.mark.parametrize(("means", "small", "large", "c", "together", "alone", "all_in_one"), [
    (LABEL_SHIFT, 14, 2100, 10, 11.5614, 28.9083, 12.2242),
    (CONCEPT_SHIFT, 120, 2500, 8, 4.0679, 8.9030, 4.2596),
])
def test_published_block_means_give_coalitions_of_5_5_and_10(means, small, large, c, together, alone, all_in_one):
    d, n = in_blocks(means), np.repeat([large, small], 10)
    for seed in range(3):
        labels = find_coalitions(d, n, c, np.random.default_rng(seed))
        assert labels.tolist() == [0] * 5 + [1] * 5 + [2] * 10
        assert round(objective(d, n, labels, c), 4) == together
    assert round(objective(d, n, np.arange(20), c), 4) == alone
    assert round(objective(d, n, np.zeros(20, dtype=int), c), 4) == all_in_one


def test_objective_by_hand():
    d = np.array([[0, 0.5, 0.2], [0.5, 0, 0.3], [0.2, 0.3, 0]])
    # clients 0 and 2 together: n_S = 4 + 12 = 16; client 1 alone with n = 9
    want = 2 * 6 / 4 + 6 / 3 + (12 / 16) * 0.2 + (4 / 16) * 0.2
    assert objective(d, np.array([4, 9, 12]), np.array([0, 1, 0]), 6.0) == pytest.approx(want)


@pytest.mark.parametrize(("n", "c"), [(100, 4.0), (37, 1.5)])
def test_two_equal_clients_merge_just_below_the_closed_form(n, c):
    limit = 2 * c / np.sqrt(n) * (1 - 1 / np.sqrt(2))
    for factor, coalitions in ((0.999, 1), (1.001, 2)):
        d = np.array([[0, limit * factor], [limit * factor, 0]])
        assert len(np.unique(find_coalitions(d, np.array([n, n]), c, np.random.default_rng(0)))) == coalitions


@pytest.mark.parametrize("seed", range(5))
def test_predicted_gains_are_the_measured_changes(seed):
    d, n, c = random_instance(seed)
    labels = np.random.default_rng(seed).integers(5, size=12)
    before = objective(d, n, labels, c)
    start = Partition(d, n, c, labels)
    assert start.cost.sum() == pytest.approx(before)

    def measured(change) -> float:
        partition = Partition(d, n, c, labels)
        change(partition)
        after = objective(d, n, partition.labels, c)
        assert partition.cost.sum() == pytest.approx(after)  # what is kept up to date agrees with the definition
        return before - after

    for i in range(12):
        gains = start.move_gains(i)
        assert gains[labels[i]] == 0
        for to in range(12):
            assert gains[to] == pytest.approx(measured(lambda p, i=i, to=to: p.move(i, to)), abs=1e-9)
    swaps, merges = start.swap_gains(), start.merge_gains()
    for i in range(12):
        for j in range(12):
            assert swaps[i, j] == pytest.approx(measured(lambda p, i=i, j=j: p.swap(i, j)), abs=1e-9)
            if i != j and i < 5 and j < 5:
                assert merges[i, j] == pytest.approx(measured(lambda p, i=i, j=j: p.merge(i, j)), abs=1e-9)


def test_extreme_prices():
    d, n, _ = random_instance(0)
    rng = np.random.default_rng(0)
    assert find_coalitions(d, n, 0.0, rng).tolist() == list(range(12))
    assert find_coalitions(d, n, 1e4, rng).tolist() == [0] * 12
    assert find_coalitions(np.zeros((1, 1)), np.array([5]), 3.0, rng).tolist() == [0]


def test_permuting_the_clients_permutes_the_coalitions():
    d, n = in_blocks(CONCEPT_SHIFT), np.repeat([2500, 120], 10)
    labels = find_coalitions(d, n, 8, np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(20)
    permuted = find_coalitions(d[order][:, order], n[order], 8, np.random.default_rng(0))
    assert (permuted == first_come(labels[order])).all()


def test_curve_falls_with_c_and_its_longest_stretch_is_taken():
    d, n = in_blocks(CONCEPT_SHIFT), np.repeat([2500, 120], 10)
    cs = np.geomspace(0.5, 20, 20)
    partitions = c_curve(d, n, cs, np.random.default_rng(0))
    counts = partitions.max(axis=1) + 1
    assert (np.diff(counts) <= 1).all() and counts[0] > 4 and counts[-1] == 1
    toy = np.array([[0, 1, 2], [0, 1, 1], [0, 1, 1], [0, 1, 1], [0, 0, 0]])
    assert most_stable(np.array([1.0, 2, 4, 8, 16]), toy) == pytest.approx(4)
