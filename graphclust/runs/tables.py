"""The runs on graphs as a frame, and the table of each data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from graphclust.metrics import METRICS
from graphclust.runs.layout import Cell, Table, distinct_names, metric_cells, runs_text, significant_digits
from graphclust.runs.record import RunConfig, RunRecord
from graphclust.runs.stats import aggregate, counts, finished
from graphclust.runs.store import RunDir

# the metrics of the main table, and their headings where the name is long
SHOWN = {"acc": "ACC", "nmi": "NMI", "ari": "ARI", "f1": "F1", "modularity": "modularity",
         "conductance_weighted": "conductance"}
# those over windows of time, in a table of their own: heading and digits
SHOWN_WINDOWS = {
    "window_ari": ("ARI", 3), "window_nmi": ("NMI", 3), "window_clusters": ("clusters", 1),
    "window_smoothness": ("smooth", 3), "window_smoothness_kappa": ("kappa", 3),
    "window_smoothness_nmi": ("to next", 3),
    "window_continuations": ("go on", 1), "window_births": ("births", 1), "window_deaths": ("deaths", 1),
    "window_merges": ("merges", 1), "window_splits": ("splits", 1),
}
NARROW = {"modularity": "mod.", "conductance": "cond.", "seconds": "sec"}


def frame(records: Iterable[tuple[RunDir[RunRecord], RunRecord]]) -> pd.DataFrame:
    """One row per run.

    Columns: ``data``, ``method`` (the row's name in tables), ``seed``, ``status``, ``k``, ``k_source``, ``n_nodes``,
    ``n_edges``, ``n_events``, ``seconds`` and ``cpu_seconds`` (of the fit, pre-training included), ``memory_mb``,
    ``error``, ``id``, every metric under its name, ``oracle_*`` and ``published_*``. Absent values are NaN or None.
    Where one name stands for several settings on one data set, the parameters that differ are appended, so that nothing
    unlike is averaged.
    """
    records = list(records)
    configs = [r.config for _, r in records]
    names = distinct_names([c.name for c in configs], [c.data for c in configs], [_setting(c) for c in configs])
    rows = []
    for (_, r), name in zip(records, names, strict=True):
        rows.append({
            "data": r.config.data, "method": name, "seed": r.config.seed, "status": r.status, "k": r.n_clusters,
            "k_source": r.k_source, "n_nodes": r.n_nodes, "n_edges": r.n_edges, "n_events": r.n_events,
            "seconds": r.timings.get("fit"), "cpu_seconds": r.timings.get("fit_cpu"), "memory_mb": r.peak_memory_mb,
            "error": r.error["message"] if r.error else None, "id": r.id,
            **r.metrics, **r.oracle, **{f"published_{k}": v for k, v in r.config.published.items()},
        })
    first = ["data", "method", "seed", "status", "k", "k_source", "n_nodes", "n_edges", "n_events", "seconds",
             "cpu_seconds", "memory_mb", "error", "id"]
    df = pd.DataFrame(rows, columns=first if not rows else None)
    ordered = first + [m for m in METRICS if m in df] + [c for c in df if c not in first and c not in METRICS]
    numeric = [c for c in ordered if c not in ("data", "method", "status", "k_source", "error", "id")]
    return df[ordered].drop_duplicates("id").astype(dict.fromkeys(numeric, float)).reset_index(drop=True)


def _setting(c: RunConfig) -> dict[str, str]:
    rest = c.model_dump(include={"method", "n_clusters", "device", "threads"})
    return {k: str(v) for k, v in {**rest, **c.params}.items()}


def higher_is_better(column: str) -> bool:
    """Direction of a metric, or of an ``oracle_`` metric; seconds and memory are better when lower."""
    name = column.removeprefix("oracle_")
    return bool(METRICS[name].higher_is_better) if name in METRICS else False


def main_table(df: pd.DataFrame, data: str) -> Table:
    """Method, k, metrics (mean ± std over the finished seeds), time, memory and runs of one data set."""
    runs = df[df["data"] == data]
    shown = [m for m in SHOWN if m in runs and finished(runs)[m].notna().any()]
    table = aggregate(runs, [*shown, "seconds", "memory_mb", "k"]).droplevel("data")
    if shown:
        lead = headline_metric(runs)
        table = table.sort_values((lead, "mean"), ascending=not higher_is_better(lead), kind="stable")
    number = counts(runs).droplevel("data").loc[table.index]
    sources = finished(runs).groupby("method")["k_source"].first()
    columns = [[Cell(str(m)) for m in table.index],
               [Cell(_k(table["k"].loc[m], sources.get(m))) for m in table.index]]
    columns += [metric_cells(table, m, higher_is_better(m)) for m in shown]
    columns += [[Cell(significant_digits(v)) for v in table[(c, "mean")]] for c in ("seconds", "memory_mb")]
    columns += [[Cell(runs_text(f, t)) for f, t in number.itertuples(index=False)]]
    headings = ["method", "k", *(SHOWN[m] for m in shown), "seconds", "MB", "runs"]
    return Table(title_of(runs), headings, [list(row) for row in zip(*columns, strict=True)])


def windows_table(runs: pd.DataFrame) -> Table | None:
    """The metrics over windows of time of one data set, the mean over the seeds; None where no run has any."""
    shown = [m for m in SHOWN_WINDOWS if m in runs and finished(runs)[m].notna().any()]
    if not shown:
        return None
    table = aggregate(runs, shown).droplevel("data").dropna(how="all", subset=[(m, "mean") for m in shown])
    columns = [[Cell(str(m)) for m in table.index]]
    for m in shown:
        direction = METRICS[m].higher_is_better
        cells = metric_cells(table, m, bool(direction), SHOWN_WINDOWS[m][1])
        columns.append([Cell(c.text) for c in cells] if direction is None else cells)
    headings = ["method", *(SHOWN_WINDOWS[m][0] for m in shown)]
    return Table("Over time", headings, [list(row) for row in zip(*columns, strict=True)])


def headline_metric(df: pd.DataFrame) -> str:
    """What rows are ordered by and ranks are taken of: NMI where there are labels, else modularity."""
    return "nmi" if "nmi" in df and df["nmi"].notna().any() else "modularity"


def title_of(runs: pd.DataFrame) -> str:
    """The data set with its size, where a run got as far as loading it."""
    data = str(runs["data"].iloc[0])
    sizes = runs[["n_nodes", "n_edges", "n_events"]].dropna(subset=["n_nodes", "n_edges"])
    if not len(sizes):
        return data
    nodes, edges, events = sizes.iloc[0]
    kind = f"{edges:,.0f} edges" if np.isnan(events) else f"{events:,.0f} events"
    return f"{data}: {nodes:,.0f} nodes, {kind}"


def _k(k: pd.Series, source: Any) -> str:
    if np.isnan(k["mean"]):
        return "–"
    text = f"{k['mean']:.0f}" if k["std"] == 0 or k["n"] == 1 else f"{k['mean']:.1f} ± {k['std']:.1f}"
    return f"{text} ({source})" if isinstance(source, str) else text


def tables(df: pd.DataFrame) -> Iterator[Table]:
    """The main table of each data set, in order of appearance."""
    return (main_table(df, data) for data in df["data"].unique())


def numbers(df: pd.DataFrame) -> list[str]:
    """The columns of :func:`frame` that are numbers to average."""
    return ["k", *(c for c in df.columns[df.columns.get_loc("seconds"):] if c not in ("error", "id"))]


NOTE = (
    "Mean ± standard deviation over the finished seeds; bold: best mean; rows by NMI, or by modularity where "
    "there are no labels. k counts the non-empty clusters; in brackets where it comes from: given, as the data "
    "declares (data), or found by the method (method). Conductance is the volume-weighted mean, lower is better. "
    "Seconds are those of the fit with its pre-training, MB the peak memory of the process."
)
