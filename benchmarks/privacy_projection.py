"""Cost of the projection in ``dp_sdp`` by size, constraint and certified error.

    python benchmarks/privacy_projection.py [--n 200 1000] [--errors 0.1 1] [--models 0 1] [--nonnegative]

Y = s (A - tau J) of stochastic block models, s = 1 / (p - q). CPU seconds of one thread, a process a projection; the
peak memory is that of the whole process, with Python and its libraries. Prints a markdown table; with
``--nonnegative`` that of the version with X >= 0, which is far slower.
"""

from __future__ import annotations

import argparse
import sys
import time

import pandas as pd
from fresh import measure, tell
from scipy.linalg import eigvalsh

from graphclust.coerce import as_graph
from graphclust.data.generators import sbm
from graphclust.privacy.projection import project

MODELS = [(2, 0.3, 0.1), (4, 0.2, 0.05)]
SIZES = [200, 500, 1000, 2000]


def one(n: int, k: int, p: float, q: float, nonnegative: bool, error: float) -> None:
    """One projection, told to the parent process."""
    y = as_graph(sbm(n=n, k=k, p_in=p, p_out=q, seed=0)).adjacency.toarray().astype(float)
    y = (y - y.sum() / (n * (n - 1))) / (p - q)
    start = time.process_time()
    found = project(y, nonnegative=nonnegative, error=error)
    result = {"cpu": time.process_time() - start, "eigs": found.iterations, "certified": found.error}
    tell({**result, "rank": int((eigvalsh(found.x) > 1e-6).sum())})


def main() -> None:
    """Print one row a model, size and error."""
    if sys.argv[1:2] == ["one"]:
        n, k, p, q, nonnegative, error = sys.argv[2:]
        return one(int(n), int(k), float(p), float(q), nonnegative == "True", float(error))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=SIZES)
    parser.add_argument("--errors", type=float, nargs="+", default=[0.1])
    parser.add_argument("--models", type=int, nargs="+", default=[0, 1], help=f"which of {MODELS}")
    parser.add_argument("--nonnegative", action="store_true")
    options = parser.parse_args()
    rows = []
    for n in options.n:
        for k, p, q in (MODELS[i] for i in options.models):
            for error in options.errors:
                found = measure(n, k, p, q, options.nonnegative, error)
                case = {"n": n, "k": k, "p": p, "q": q, "X >= 0": options.nonnegative, "error asked": error}
                rows.append({**case, **found})
                print(rows[-1], file=sys.stderr, flush=True)
    table = pd.DataFrame(rows).rename(columns={"cpu": "CPU s", "eigs": "eigendecompositions", "memory": "peak MB"})
    print(table.to_markdown(index=False, floatfmt=".3g"))


if __name__ == "__main__":
    main()
