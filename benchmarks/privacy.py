"""What the private mechanisms find, and from which size on which of them is ahead.

    OMP_NUM_THREADS=1 python benchmarks/privacy.py utility [--graphs 5]     SBM n = 800, .3/.1, k = 2, five epsilons
    OMP_NUM_THREADS=1 python benchmarks/privacy.py sparse [--graphs 2]      larger and sparser SBMs, where it is close
    OMP_NUM_THREADS=1 python benchmarks/privacy.py cora [--graphs 2]        epsilon 1: nothing may be found
    python benchmarks/privacy.py crossover                                  the predictor alone

ARI, mean over graphs. Every run is private from end to end (the edge count too, no parameter from the truth), with
seeded noise. Prints markdown tables, a row as soon as it is there.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from scipy.optimize import brentq
from sklearn.metrics import adjusted_rand_score

from graphclust.coerce import as_graph
from graphclust.data import load
from graphclust.methods import get_method
from graphclust.privacy.predictor import gap, spike_ratio, threshold

MECHANISMS: dict[str, tuple[str, dict[str, Any]]] = {
    "dp_rr": ("dp_rr", {}), "dp_sdp": ("dp_sdp", {}), "dp_sdp, X >= 0": ("dp_sdp", {"nonnegative": True}),
    "dp_gaussian": ("dp_gaussian", {}),
}


def cell(reference: str, k: int, label: str, epsilon: float, delta: float, graphs: int) -> tuple[str, float]:
    """Mean ARI with its predicted ratio, as text, and the CPU seconds of a run."""
    name, params = MECHANISMS[label]
    found, clock, ratio = [], time.process_time(), 0.0
    for seed in range(graphs):
        data = load(reference.format(seed=seed))
        more = {} if name == "dp_rr" else {"delta": delta}
        model = get_method(name)(k, epsilon=epsilon, force=True, random_state=seed, **params, **more)
        model.fit(as_graph(data))
        found.append(adjusted_rand_score(data.y.numpy(), model.labels_))
        ratio = model.privacy_.public["predicted_ratio"]
    return f"{np.mean(found):.2f} ({ratio:.1f})", (time.process_time() - clock) / graphs


def table(title: str, reference: str, k: int, epsilons: list[float], delta: float, graphs: int, skip: set[str]) -> None:
    """ARI (predicted signal/noise in brackets) of every mechanism at every epsilon."""
    print(f"\n{title}, delta = {delta:g}, {graphs} graphs\n\n| mechanism | " +
          " | ".join(f"epsilon {e:g}" for e in epsilons) + " | CPU s a run |\n|---|" + "---|" * (len(epsilons) + 1))
    for label in MECHANISMS:
        if label not in skip:
            cells, seconds = zip(*(cell(reference, k, label, e, delta, graphs) for e in epsilons), strict=True)
            print(f"| {label} | {' | '.join(cells)} | {np.mean(seconds):.1f} |", flush=True)


def needed(mechanism: str, n: int, k: int, p: float, q: float, delta: float, nonnegative: bool) -> float:
    """The epsilon at which the predicted ratio reaches the mechanism's threshold; inf: none does."""
    density = p / k + q * (k - 1) / k
    contrast = (p - q) / gap(k, density, 1.0)

    def short(log_epsilon: float) -> float:
        ratio = spike_ratio(mechanism, n, k, float(np.exp(log_epsilon)), delta, density, contrast, nonnegative)
        return ratio - threshold(mechanism, nonnegative)

    return float(np.exp(brentq(short, np.log(0.01), np.log(60)))) if short(np.log(60)) > 0 else np.inf


CASES = [(800, 2, 0.3, 0.1), (2000, 4, 0.2, 0.05), (10_000, 4, 0.05, 0.01), (20_000, 4, 0.03, 0.006),
         (50_000, 4, 0.02, 0.004), (100_000, 4, 0.02, 0.004), (10_000, 2, 0.02, 0.004), (50_000, 2, 0.02, 0.004)]


def crossover() -> None:
    """Epsilon needed by each mechanism, from the predictor, and the size from which dp_sdp needs less than dp_rr."""
    print("\nPredicted epsilon for ARI of about one half, delta = 1e-6\n\n| SBM | " + " | ".join(MECHANISMS)
          + " |\n|---|" + "---|" * len(MECHANISMS))
    for n, k, p, q in CASES:
        values = [needed(m, n, k, p, q, 1e-6, bool(params.get("nonnegative"))) for m, params in MECHANISMS.values()]
        print(f"| n = {n:,}, k = {k}, {p:g}/{q:g} | " + " | ".join(
            f"**{v:.2f}**" if v == min(values) else "never" if np.isinf(v) else f"{v:.2f}" for v in values) + " |")
    print("\nSmallest n at which dp_sdp needs less epsilon than dp_rr, p/q = 5, k = 4\n\n| p - q | dp_sdp | X >= 0 |\n"
          "|---|---|---|")
    for difference in (0.16, 0.08, 0.04, 0.016, 0.008):
        p, q = 1.25 * difference, 0.25 * difference
        sizes = {n: [needed(m, n, 4, p, q, 1e-6, x) for m, x in (("dp_rr", False), ("dp_sdp", False), ("dp_sdp", True))]
                 for n in SIZES}
        ns = [first([values[j] < values[0] for values in sizes.values()]) for j in (1, 2)]
        print(f"| {difference:g} | {ns[0]} | {ns[1]} |")


SIZES = [int(n) for n in np.geomspace(1000, 1e7, 41)]


def first(holds: list[bool]) -> str:
    """The smallest size from which on it holds, or that there is none."""
    last_false = max((i for i, h in enumerate(holds) if not h), default=-1)
    return "none up to 10^7" if last_false == len(SIZES) - 1 else f"{SIZES[last_false + 1]:,}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["utility", "sparse", "cora", "crossover"])
    parser.add_argument("--graphs", type=int, default=None)
    parser.add_argument("--skip", default="", help="mechanisms to leave out, separated by semicolons")
    args = parser.parse_args()
    skip = set(args.skip.split(";"))
    if args.part == "utility":
        table("SBM n = 800, k = 2, p = .3, q = .1", "sbm:n=800,k=2,p_in=0.3,p_out=0.1,seed={seed}", 2,
              [0.5, 1, 2, 4, 8], 1e-6, args.graphs or 5, skip)
    elif args.part == "sparse":
        for n, k, p, q, epsilons in ((2000, 4, 0.2, 0.05, [1, 2, 3, 4]), (2000, 2, 0.1, 0.04, [1, 2, 3, 4]),
                                     (3000, 2, 0.05, 0.01, [1, 2, 3, 4])):
            table(f"SBM n = {n}, k = {k}, p = {p:g}, q = {q:g}", f"sbm:n={n},k={k},p_in={p},p_out={q},seed={{seed}}", k,
                  epsilons, 1e-6, args.graphs or 2, skip)
    elif args.part == "cora":
        table("Cora", "cora", 7, [1], 1e-6, args.graphs or 2, skip)
    else:
        crossover()


if __name__ == "__main__":
    main()
