"""The federated runs as a frame, and the tables of each scenario."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from fedclust.evaluation import METRICS
from fedclust.report.runs import ORACLE, REFERENCES, Run
from graphclust.runs.layout import Cell, Table, metric_cells, runs_text, significant_digits, spread
from graphclust.runs.stats import aggregate, counts, finished

# the metrics of the main table, and of the comparisons between algorithms
SHOWN = ("local", "worst_decile", "unseen", "nodes_acc", "nodes_nmi", "nodes_ari", "nodes_f1", "own_acc", "own_nmi",
         "ari", "ipr", "rsd")
CONTESTED = {m: METRICS[m].heading for m in ("local", "worst_decile", "unseen", "nodes_acc", "nodes_nmi", "ari")}
NARROW = {"algorithm": "", "worst decile": "worst", "s/round": "s/rd", "groups": "grp"}
BOUNDS = (*REFERENCES, ORACLE)
PARTICIPATION = {"asked": "asked", "answered": "answered", "dropped_out": "dropped out", "late": "late",
                 "failed": "failed"}
NOTE = (
    "Mean ± standard deviation over the finished seeds, after the last round; bold: best mean, the oracle set aside. "
    "Local, FedAvg and the oracle first, the others by their mean client accuracy. local: test accuracy, mean over the "
    "training clients; worst decile: over the worst tenth of them; unseen: of clients that never trained and chose "
    "their group with all their labelled samples. ARI: found against true groups. IPR: share of clients strictly "
    "better than alone; RSD: standard deviation over the clients of the gain over Local; both need a Local run of the "
    "same seed. groups: those that hold a client. MB: tensors sent, both ways, over the whole run. Where clients "
    "cluster their nodes: ACC, NMI, ARI nodes and F1 of clusters common to the nodes of all clients, against the "
    "classes; own: of every client's own clusters, mean over the clients."
)


def frame(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run.

    Columns: ``data`` (scenario) and ``method`` (algorithm) as rows of tables, ``seed``, ``status``, ``algorithm``,
    ``error``, ``id``, ``n_clients``, ``n_unseen``, ``rounds``, ``bytes_up``, ``bytes_down``, ``megabytes``,
    ``seconds_per_round``, ``left_out``, those of :attr:`fedclust.report.runs.Run.participation`, and every metric under
    its name. Absent values are NaN or None.
    """
    rows = []
    for run in runs:
        r = run.record
        sent = None if r.bytes_up is None or r.bytes_down is None else (r.bytes_up + r.bytes_down) / 1e6
        rows.append({
            "data": run.data, "method": run.name, "seed": r.config.seed, "status": r.status,
            "algorithm": r.config.algorithm, "error": r.error["message"] if r.error else None, "id": r.id,
            "n_clients": r.n_clients, "n_unseen": r.n_unseen, "rounds": r.rounds_done, "bytes_up": r.bytes_up,
            "bytes_down": r.bytes_down, "megabytes": sent, "seconds_per_round": r.seconds_per_round,
            "left_out": r.left_out, **run.participation, **run.values,
        })
    df = pd.DataFrame(rows)
    return df.astype(dict.fromkeys(numbers(df), float))


def numbers(df: pd.DataFrame) -> list[str]:
    """The columns of :func:`frame` that are numbers to average."""
    return list(df.columns[df.columns.get_loc("n_clients"):])


def higher_is_better(metric: str) -> bool:
    """Direction of a metric."""
    return METRICS[metric].higher_is_better


def lead(df: pd.DataFrame) -> str:
    """What rows are compared and ranked by: the clients' accuracy, or where they cluster, that of the clusters."""
    return next(iter(_present(df, ("local", "nodes_acc"))), "local")


def contest(df: pd.DataFrame) -> pd.DataFrame:
    """The runs that compete: all but those of the oracle."""
    return df[df["algorithm"] != ORACLE]


def ordered(df: pd.DataFrame) -> list[str]:
    """The rows of one scenario: local, fedavg and oracle, then the others by what leads."""
    rows = df.groupby("method", sort=False)
    algorithm, rank = rows["algorithm"].first(), _column(df, lead(df)).groupby(df["method"]).mean()

    def key(method: str) -> tuple[int, float]:
        bound = algorithm[method] in BOUNDS
        return BOUNDS.index(algorithm[method]) if bound else len(BOUNDS), -np.nan_to_num(rank[method], nan=-1.0)

    return sorted(algorithm.index, key=key)


def main_table(df: pd.DataFrame) -> Table:
    """Accuracies, recovery, gains, groups, traffic, time and runs of one scenario."""
    shown = _present(df, SHOWN)
    table = _aggregated(df, [*shown, "n_groups", "megabytes", "seconds_per_round"])
    number = counts(df).droplevel("data").loc[table.index]
    columns = [_cells(df, table, m) for m in shown]
    columns.append(_counts(table, "n_groups"))
    columns += [[Cell(significant_digits(v)) for v in table[(c, "mean")]] for c in ("megabytes", "seconds_per_round")]
    columns.append([Cell(runs_text(f, t)) for f, t in number.itertuples(index=False)])
    headings = [*(METRICS[m].heading for m in shown), "groups", "MB", "s/round", "runs"]
    return _table(_title(df), table, headings, columns)


def groups_table(df: pd.DataFrame) -> Table | None:
    """What groups were found, against which truth, and the gains over FedAvg; no column is a goal, none is marked."""
    many = _present(df, ("groups_of_several",))
    shares = _present(df, ("largest_group", "ari_feature", "nmi", "conflicting_pairs_merged", "std", "ipr_fedavg",
                           "rsd_fedavg"))
    if not many:
        return None
    if finished(df)["unassigned"].max() > 0:
        shares.insert(1, "unassigned")
    table = _aggregated(df, [*many, *shares])
    columns = [*(_counts(table, m) for m in many), *(_plain(table, m) for m in shares)]
    return _table("Groups", table, [METRICS[m].heading for m in (*many, *shares)], columns)


def rounds_table(df: pd.DataFrame) -> Table | None:
    """The last round and the best-validation round apart, and how many rounds it took."""
    names = ("best_validation_round", "rounds_to_95", "rounds_to_local", "rounds_to_fedavg")
    accuracies, rounds = _present(df, ("local", "best_validation")), [m for m in names if m in df]
    if not accuracies:
        return None
    table = _aggregated(df, [*accuracies, *rounds])
    asked = {m: finished(df).loc[finished(df)[m].notna() | (m != "best_validation_round"), "method"] for m in rounds}
    columns = [_plain(table, m) for m in accuracies]
    columns += [[Cell(_reached(table[m].loc[row], int((asked[m] == row).sum()), _against_itself(df, row, m)))
                 for row in table.index] for m in rounds]
    headings = ["last round" if m == "local" else METRICS[m].heading for m in (*accuracies, *rounds)]
    return _table("Rounds", table, headings, columns)


def newcomers_table(df: pd.DataFrame) -> Table | None:
    """Newcomers by labelled samples: accuracy, agreement with the choice from all labels, undetermined ones."""
    names = [c.removesuffix("_undetermined") for c in df if c.endswith("_undetermined")]
    if not names:
        return None
    names.sort(key=lambda name: int(name.removeprefix("unseen_")) if name != "unseen" else np.inf)
    columns = [c for name in names for c in (name, f"{name}_undetermined", f"{name}_agreement") if c in df]
    table = _aggregated(df, columns)
    cells = [[Cell(_newcomer(table.loc[row], name)) for row in table.index] for name in names]
    headings = [{"unseen": "all labels", "unseen_0": "no labels"}.get(n, n.replace("unseen_", "m = ")) for n in names]
    return _table("Newcomers", table, headings, cells)


def participation_table(df: pd.DataFrame) -> Table | None:
    """Clients a round that were asked and answered, and why the others did not; None where everyone always did."""
    done, shown = finished(df), _present(df, tuple(PARTICIPATION))
    if not shown or (done["answered"] == done["n_clients"]).all():
        return None
    table = _aggregated(df, shown)
    return _table("Participation", table, [PARTICIPATION[c] for c in shown], [_plain(table, c, 1) for c in shown])


def suspects_table(runs: Sequence[Run]) -> Table | None:
    """The clients that were suspected, with the rounds, or left out, with the reason; one row a run and client."""
    rows = []
    for run in runs:
        r = run.record
        for client in sorted({*r.suspects, *r.excluded}):
            rounds = r.suspects.get(client, [])
            when = f"{rounds[0]} to {rounds[-1]} ({len(rounds)})" if len(rounds) > 1 else "".join(map(str, rounds))
            cells = (run.name, r.config.seed, client, when or "–", r.excluded.get(client, "–"))
            rows.append([Cell(str(c)) for c in cells])
    return Table("Suspects", ["algorithm", "seed", "client", "suspected in rounds", "left out"], rows) if rows else None


def privacy_table(runs: Sequence[Run]) -> Table | None:
    """What noise at the clients promises in every run that has any, and why not where it promises nothing."""
    rows = []
    for run in runs:
        held = run.record.privacy
        if held is None:
            continue
        epsilon = "none" if held.epsilon is None else f"{held.epsilon:.3g}"
        noise = f"{held.sigma:.3g}" + (f" (clip {held.clip:g})" if held.clip is not None else "")
        groups = ", ".join(f"{s:.3g}" for s in held.group_sigma) or "–"
        cells = (run.name, run.record.config.seed, held.what, epsilon, f"{held.delta:g}", held.rounds, noise, groups,
                 held.adjacency, "yes" if held.guarantee else f"no: {'; '.join(held.void)}",
                 "; ".join(held.not_covered))
        rows.append([Cell(str(c)) for c in cells])
    headings = ["algorithm", "seed", "noise on", "epsilon", "delta", "rounds", "sigma", "sigma of each group's mean",
                "neighbours", "guarantee", "not covered"]
    return Table("Privacy", headings, rows) if rows else None


def main_tables(df: pd.DataFrame) -> Iterator[Table]:
    """The main table of each scenario, in order of appearance."""
    return (main_table(df[df["data"] == data]) for data in df["data"].unique())


def _newcomer(values: pd.Series, name: str) -> str:
    undetermined = values[(f"{name}_undetermined", "mean")]
    if np.isnan(undetermined):
        return "–"
    if undetermined == 1:
        return "undetermined"
    remarks = [f"{undetermined:.0%} undetermined"] if undetermined > 0 else []
    if (f"{name}_agreement", "mean") in values:
        remarks.append(f"{values[(f'{name}_agreement', 'mean')]:.0%} agree")
    text = spread(values[(name, "mean")], values[(name, "std")])
    return text + (f" ({', '.join(remarks)})" if remarks else "")


def _against_itself(df: pd.DataFrame, row: str, metric: str) -> bool:
    """True for the rounds that Local takes to Local, and FedAvg to FedAvg."""
    return metric == f"rounds_to_{df.loc[df['method'] == row, 'algorithm'].iloc[0]}"


def _reached(values: pd.Series, runs: int, itself: bool) -> str:
    """Mean rounds; how many runs got there, when not all did."""
    if itself or not runs:
        return "–"
    if not values["n"]:
        return "never"
    text = spread(values["mean"], values["std"], 0)
    return text if values["n"] == runs else f"{text} ({values['n']:.0f} of {runs} runs)"


def _title(df: pd.DataFrame) -> str:
    """The scenario with its size, where a run got as far as building it."""
    sizes = df[["n_clients", "n_unseen"]].dropna()
    name = str(df["data"].iloc[0])
    return f"{name}: {sizes.iloc[0, 0]:.0f} clients, {sizes.iloc[0, 1]:.0f} newcomers" if len(sizes) else name


def _column(df: pd.DataFrame, name: str) -> pd.Series:
    return df[name] if name in df else pd.Series(np.nan, index=df.index)


def _present(df: pd.DataFrame, names: Sequence[str]) -> list[str]:
    return [m for m in names if m in df and finished(df)[m].notna().any()]


def _aggregated(df: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    held = df.assign(**{c: np.nan for c in columns if c not in df})
    return aggregate(held, columns).droplevel("data").loc[ordered(df)]


def _cells(df: pd.DataFrame, table: pd.DataFrame, metric: str) -> list[Cell]:
    """Mean and spread, the best of those that compete marked."""
    competing = table.index.isin(contest(df)["method"])
    marked = iter(metric_cells(table[competing], metric, higher_is_better(metric)))
    aside = iter(_plain(table[~competing], metric))
    return [next(marked if c else aside) for c in competing]


def _plain(table: pd.DataFrame, column: str, digits: int = 3) -> list[Cell]:
    return [Cell(spread(m, s, digits)) for m, s in zip(table[(column, "mean")], table[(column, "std")], strict=True)]


def _counts(table: pd.DataFrame, column: str) -> list[Cell]:
    """Whole numbers stay whole where the seeds agree."""
    digits = [0 if np.nan_to_num(s) == 0 else 1 for s in table[(column, "std")]]
    return [Cell(spread(m, np.nan if d == 0 else s, d))
            for m, s, d in zip(table[(column, "mean")], table[(column, "std")], digits, strict=True)]


def _table(title: str, table: pd.DataFrame, headings: Sequence[str], columns: Sequence[Sequence[Cell]]) -> Table:
    names = [Cell(str(method)) for method in table.index]
    return Table(title, ["algorithm", *headings], [list(row) for row in zip(names, *columns, strict=True)])
