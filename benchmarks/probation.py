"""Probation against sign flips: who is missed and who accused, on many federations and draws of attackers.

    python benchmarks/probation.py --scenarios digits-3shift minority-groups --seeds 7 8

What clients answer on probation does not depend on each other, and a flip of its sign turns an update's cosines round.
So the honest updates of a federation are taken once, and attackers drawn ``--draws`` times for every share: the floor
of share N clients. "Silent" are draws in which nobody was named, for too many were against the others.
"""

from __future__ import annotations

import argparse
import logging

import torch
from torch import Tensor

from fedclust.algorithms.base import Reports, models
from fedclust.config import FederationConfig
from fedclust.data.build import build_federation
from fedclust.models import Model
from fedclust.probation import PHASE, begun, judged, verdict
from fedclust.robust import Robust
from fedclust.task import Cohort, stream
from simulations.setups import load_setup


def cosines(ref: str, seed: int, rounds: int) -> Tensor:
    """Equation 1 of :mod:`fedclust.probation`, (N, N), of a federation in which all are honest."""
    setup = load_setup(ref, seed)
    config = FederationConfig(algorithm="fedavg", federation=setup.federation, seed=seed, **setup.config)
    federation = build_federation(setup.federation)
    clients = [federation.pending(i).make() for i in range(len(federation.clients))]
    model = Model(config.model, federation.input_shape, federation.n_classes)
    n, state = len(clients), {"weights": torch.ones(len(clients), 1)}
    cohort = Cohort(clients, model, seed=seed, round=0)
    for r in range(-rounds, 0):
        state = begun({**state, "round": torch.tensor(r)}, model, seed)
        sent = {name: t.expand(n, 1, *t.shape[1:]) for name, t in models(state, PHASE).items()}
        trained = cohort.begin(r, {}).train(sent, config.training)
        state = judged(state, Reports(torch.arange(n), torch.ones(n), trained, {}, PHASE))
    return state["probation_cosines"] / rounds


def tally(honest: Tensor, share: float, robust: Robust, draws: int, seed: int) -> list[int]:
    """Attackers, of them missed, honest clients, of them accused, silent: sums over the draws."""
    n, rng, sums = len(honest), stream(seed, "draws", share), [0] * 5
    for _ in range(draws):
        attacks = torch.zeros(n, dtype=torch.bool)
        attacks[torch.randperm(n, generator=rng)[: int(share * n)]] = True
        sign = 1 - 2 * attacks.float()
        state = {"probation_cosines": honest * sign[:, None] * sign, "probation_rounds": torch.ones(n, n)}
        named = torch.zeros(n, dtype=torch.bool)
        named[[int(i) for i in verdict(state, [str(i) for i in range(n)], robust)[1]]] = True
        each = (attacks, attacks & ~named, ~attacks, ~attacks & named)
        sums = [a + b for a, b in zip(sums, [*(int(of.sum()) for of in each), int(not named.any())], strict=True)]
    return sums


def main() -> None:
    """One row a scenario and share, over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[7, 8])
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.1, 0.2, 0.3])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=40)
    args = parser.parse_args()
    logging.getLogger("fedclust.probation").setLevel(logging.ERROR)  # silence is counted here
    print("| scenario | attackers | missed | accused | silent |\n|---|---|---|---|---|")
    for ref in args.scenarios:
        found = [(cosines(ref, seed, args.rounds), seed) for seed in args.seeds]
        for share in args.shares:
            draws = args.draws if share else 1
            rows = [tally(honest, share, Robust(exclude=True), draws, seed) for honest, seed in found]
            bad, missed, good, accused, silent = (sum(of) for of in zip(*rows, strict=True))
            quiet = f"{silent} of {draws * len(rows)}" if share else "–"
            print(f"| `{ref}` | {share:.0%} | {missed} of {bad} | {accused} of {good:,} | {quiet} |")


if __name__ == "__main__":
    main()
