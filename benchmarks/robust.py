"""Clients that poison: what the honest ones lose, with the plain mean and with the robust settings.

    fedclust compare configs/suites/robust-one-concept.yaml --out runs/robust-one-concept
    fedclust compare configs/suites/robust.yaml --out runs/robust
    python benchmarks/robust.py runs/robust-one-concept runs/robust

Test accuracy after the last round, mean over the clients that do not attack; without an attack over the same clients,
so that nobody's leaving changes the mean. Falls, in points: against the plain mean without an attack, and against the
same average without an attack; same seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from fedclust.config import FederationConfig
from fedclust.outcome import Outcome
from fedclust.record import FederationRecord
from fedclust.robust import Robust
from graphclust.runs.store import RunStore


def rows(folder: Path) -> pd.DataFrame:
    """One row a finished run: algorithm, robust, attack, seed, the clients' accuracies, caught, false alarms."""
    out = []
    for d, record in RunStore(folder / "runs", FederationRecord).records():
        held, config = Outcome.load(d.path), record.config
        if held is None:
            continue
        out.append({
            "algorithm": named(config), "robust": variant(config.robust), "attack": config.attack.kind,
            "seed": config.seed, "clients": held.clients.set_index("id")["accuracy"],
            "attackers": set(held.clients["id"][held.truth.get("attacker", np.zeros(len(held.clients))) == 1]),
            "caught": record.metrics.get("caught", np.nan), "false_alarms": record.metrics["false_alarms"],
            "ari": record.metrics.get("ari", np.nan),
        })
    return pd.DataFrame(out)


def named(config: FederationConfig) -> str:
    """The algorithm, with its number of starts where that is not its own."""
    starts = config.settings.get("restarts")
    given = starts is None or starts == config.make().__class__.model_fields["restarts"].default
    return config.algorithm if given else f"{config.algorithm}, {starts} starts"


def variant(robust: Robust) -> str:
    """What the suites call a robust setting."""
    if robust.plain:
        return "plain"
    if robust.probation:
        return "probation"
    return "clipped" if robust.average == "mean" else "trimmed"


def table(runs: pd.DataFrame) -> str:
    """The table in markdown, mean ± sample deviation over the seeds."""
    attackers = runs[runs["attack"] != "none"].groupby(["algorithm", "seed"])["attackers"].first()
    runs = runs[[key in attackers.index for key in zip(runs["algorithm"], runs["seed"], strict=True)]].copy()
    runs["honest"] = [r.clients.drop(list(attackers[r.algorithm, r.seed])).mean() for r in runs.itertuples()]
    calm = runs[runs["attack"] == "none"].set_index(["algorithm", "robust", "seed"])["honest"]
    for name, other in (("fall", ["plain"] * len(runs)), ("fall_same", runs["robust"])):
        start = [calm.get(key, np.nan) for key in zip(runs["algorithm"], other, runs["seed"], strict=True)]
        runs[name] = 100 * (np.array(start) - runs["honest"])
    lines = ["| algorithm | average | attack | honest clients | fall | by seed | fall, same average | caught | false "
             "alarms | ARI |", "|---|---|---|---|---|---|---|---|---|---|"]
    places = {"plain": 0, "clipped": 1, "trimmed": 2, "probation": 3, "none": 0, "label_flip": 1, "sign_flip": 2}
    runs = runs.sort_values(["algorithm", "robust", "attack"],
                            key=lambda c: c if c.name == "algorithm" else c.map(places))
    for (algorithm, robust, attack), g in runs.groupby(["algorithm", "robust", "attack"], sort=False):
        g = g.sort_values("seed")
        name, _, starts = str(algorithm).partition(",")
        cells = [f"`{name}`" + (f",{starts}" if starts else ""), robust, str(attack).replace("_", " "),
                 f"{g['honest'].mean():.3f} ± {g['honest'].std():.3f}", f"{g['fall'].mean():.1f}",
                 ", ".join(f"{v:.1f}" for v in g["fall"]), f"{g['fall_same'].mean():.1f}",
                 "–" if g["caught"].isna().all() else f"{g['caught'].mean():.0%}", f"{g['false_alarms'].mean():.1%}",
                 "–" if g["ari"].isna().all() else f"{g['ari'].mean():.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Read the runs, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="--out folders of fedclust compare")
    print(table(pd.concat([rows(folder) for folder in parser.parse_args().folders], ignore_index=True)))


if __name__ == "__main__":
    main()
