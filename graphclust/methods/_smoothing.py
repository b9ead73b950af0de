"""How many smoothing steps a graph bears, from the graph alone."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from graphclust.propagation import normalised_adjacency

# A further step must remove at least 15 % of the noise that is left; never more than 10 steps.
KEPT = 0.85
MAX_STEPS = 10
# Random probes: 256 up to 16,384 nodes, fewer above (the estimate averages over nodes too), 4 at least.
PROBES = 256
PROBE_VALUES = 2**22


def smoothing_steps(adjacency: sp.csr_array, kept: float = KEPT, max_steps: int = MAX_STEPS) -> int:
    """The last step of D^-1 (A + I) that still removes at least a share 1 - ``kept`` of independent node noise.

    Features are signal plus noise that is independent between nodes; t steps leave the share
    v(t) = mean_i sum_j (P^t)_ij^2 of its variance. The first steps average over new neighbours and v falls fast; later
    ones mix the same neighbourhoods again and only blur the clusters. The rule, this project's own: the smallest t >= 0
    with v(t + 1) > ``kept`` v(t). v is estimated with fixed random probes, E[(P^t h)_i^2] = sum_j (P^t)_ij^2 for white
    h, so that the answer depends on the graph alone.

    Parameters
    ----------
    adjacency : csr_array of shape (n, n)
    kept : in (0, 1)
    max_steps : upper bound

    Returns
    -------
    int in 0..max_steps
    """
    n = adjacency.shape[0]
    probes = int(np.clip(PROBE_VALUES // n, 4, PROBES))
    h = np.random.default_rng(0).standard_normal((n, probes), dtype=np.float32)
    p = normalised_adjacency(adjacency, "row")
    before = _power(h)
    for step in range(max_steps):
        h = p @ h
        after = _power(h)
        if after > kept * before:
            return step
        before = after
    return max_steps


def _power(h: np.ndarray) -> float:
    return float(np.mean(np.square(h), dtype=np.float64))
