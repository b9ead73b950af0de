"""The runs as a frame, and the table of each data set for terminal, markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from graphclust.metrics import METRICS
from graphclust.runs.record import RunConfig, RunRecord
from graphclust.runs.stats import aggregate, counts, finished, higher_is_better
from graphclust.runs.store import RunDir

# the metrics of the main table, and their headings where the name is long
SHOWN = {"acc": "ACC", "nmi": "NMI", "ari": "ARI", "f1": "F1", "modularity": "modularity",
         "conductance_weighted": "conductance"}
NARROW = {"modularity": "mod.", "conductance": "cond.", "seconds": "sec"}


@dataclass(frozen=True)
class Cell:
    """One cell of a table: its text, and whether it holds the column's best value."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table ready to be written in any form."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]


def frame(records: Iterable[tuple[RunDir, RunRecord]]) -> pd.DataFrame:
    """One row per run.

    Columns: ``data``, ``method`` (the row's name in tables), ``seed``, ``status``, ``k``, ``k_source``, ``n_nodes``,
    ``n_edges``, ``seconds`` and ``cpu_seconds`` (of the fit, pre-training included), ``memory_mb``, ``error``, ``id``,
    every metric under its name, ``oracle_*`` and ``published_*``. Absent values are NaN or None. Where one name stands
    for several settings on one data set, the parameters that differ are appended, so that nothing unlike is averaged.
    """
    records = list(records)
    names = _names([r.config for _, r in records])
    rows = []
    for (_, r), name in zip(records, names, strict=True):
        rows.append({
            "data": r.config.data, "method": name, "seed": r.config.seed, "status": r.status, "k": r.n_clusters,
            "k_source": r.k_source, "n_nodes": r.n_nodes, "n_edges": r.n_edges, "seconds": r.timings.get("fit"),
            "cpu_seconds": r.timings.get("fit_cpu"), "memory_mb": r.peak_memory_mb,
            "error": r.error["message"] if r.error else None, "id": r.id,
            **r.metrics, **r.oracle, **{f"published_{k}": v for k, v in r.config.published.items()},
        })
    first = ["data", "method", "seed", "status", "k", "k_source", "n_nodes", "n_edges", "seconds", "cpu_seconds",
             "memory_mb", "error", "id"]
    df = pd.DataFrame(rows, columns=first if not rows else None)
    ordered = first + [m for m in METRICS if m in df] + [c for c in df if c not in first and c not in METRICS]
    numeric = [c for c in ordered if c not in ("data", "method", "status", "k_source", "error", "id")]
    return df[ordered].drop_duplicates("id").astype(dict.fromkeys(numeric, float)).reset_index(drop=True)


def _names(configs: list[RunConfig]) -> list[str]:
    def setting(c: RunConfig) -> dict[str, str]:
        rest = c.model_dump(include={"method", "n_clusters", "device", "threads"})
        return {k: str(v) for k, v in {**rest, **c.params}.items()}

    held: dict[tuple[str, str], list[dict[str, str]]] = {}
    for c in configs:
        held.setdefault((c.name, c.data), []).append(setting(c))
    differing: dict[str, list[str]] = {}
    for (name, _), settings in held.items():
        keys = dict.fromkeys(k for s in settings for k in s)
        found = differing.setdefault(name, [])
        found += [k for k in keys if k not in found and len({s.get(k) for s in settings}) > 1]
    def suffix(c: RunConfig) -> str:
        parts = [f"{k}={setting(c).get(k)}" for k in differing[c.name]]
        return f" ({', '.join(parts)})" if parts else ""

    return [c.name + suffix(c) for c in configs]


def spread(mean: float, std: float, digits: int = 3) -> str:
    """``0.712 ± 0.034``; without the second part when there is one run, a dash when there is none."""
    if np.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" if np.isnan(std) else f"{mean:.{digits}f} ± {std:.{digits}f}"


def significant_digits(value: float) -> str:
    """Three significant digits without an exponent: ``0.0123``, ``4.56``, ``1230``."""
    return "–" if np.isnan(value) else f"{float(f'{value:.3g}'):,.10g}"


def metric_cells(table: pd.DataFrame, column: str) -> list[Cell]:
    """Mean and spread of ``column`` for every row of an :func:`aggregate` table; the best are marked."""
    means, stds = table[(column, "mean")], table[(column, "std")]
    best = means.max() if higher_is_better(column) else means.min()
    several = means.notna().sum() > 1  # a method alone is best at nothing
    return [Cell(spread(m, s), bool(several and round(m, 3) == round(best, 3)))
            for m, s in zip(means, stds, strict=True)]


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
    columns += [metric_cells(table, m) for m in shown]
    columns += [[Cell(significant_digits(v)) for v in table[(c, "mean")]] for c in ("seconds", "memory_mb")]
    columns += [[Cell(runs_text(f, t)) for f, t in number.itertuples(index=False)]]
    headings = ["method", "k", *(SHOWN[m] for m in shown), "seconds", "MB", "runs"]
    return Table(title_of(runs), headings, [list(row) for row in zip(*columns, strict=True)])


def headline_metric(df: pd.DataFrame) -> str:
    """What rows are ordered by and ranks are taken of: NMI where there are labels, else modularity."""
    return "nmi" if "nmi" in df and df["nmi"].notna().any() else "modularity"


def title_of(runs: pd.DataFrame) -> str:
    """The data set with its size, where a run got as far as loading it."""
    data = str(runs["data"].iloc[0])
    sizes = runs[["n_nodes", "n_edges"]].dropna()
    return f"{data}: {sizes.iloc[0, 0]:,.0f} nodes, {sizes.iloc[0, 1]:,.0f} edges" if len(sizes) else data


def runs_text(done: int, total: int) -> str:
    """``5`` when all runs finished, else ``3 of 5 finished``."""
    return str(total) if done == total else f"{done} of {total} finished"


def _k(k: pd.Series, source: Any) -> str:
    if np.isnan(k["mean"]):
        return "–"
    text = f"{k['mean']:.0f}" if k["std"] == 0 or k["n"] == 1 else f"{k['mean']:.1f} ± {k['std']:.1f}"
    return f"{text} ({source})" if isinstance(source, str) else text


def tables(df: pd.DataFrame) -> Iterator[Table]:
    """The main table of each data set, in order of appearance."""
    return (main_table(df, data) for data in df["data"].unique())


def terminal_tables(df: pd.DataFrame) -> list[RichTable]:
    """One rich table per data set; the best value of each metric is bold."""
    out = []
    for table in tables(df):
        rich = RichTable(title=table.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, heading in enumerate(table.columns):
            rich.add_column(NARROW.get(heading, heading), justify="right" if i else "left", overflow="fold")
        for row in table.rows:
            rich.add_row(*(Text(_narrow(cell.text), style="bold" if cell.best else "") for cell in row))
        out.append(rich)
    return out


def _narrow(text: str) -> str:
    """The spread and the source of k go under the mean: eleven columns then fit into 80 characters."""
    for wide, narrow in ((" ± 0.", "\n±."), (" ± ", "\n±"), (" (", "\n"), (")", ""), (" finished", "")):
        text = text.replace(wide, narrow)
    return text


NOTE = (
    "Mean ± standard deviation over the finished seeds; bold: best mean; rows by NMI, or by modularity where "
    "there are no labels. k counts the non-empty clusters; in brackets where it comes from: given, as the data "
    "declares (data), or found by the method (method). Conductance is the volume-weighted mean, lower is better. "
    "Seconds are those of the fit with its pre-training, MB the peak memory of the process."
)


def to_markdown(df: pd.DataFrame) -> str:
    """The tables in GitHub's markdown."""
    parts = []
    for table in tables(df):
        cells = [[f"**{c.text}**" if c.best else c.text.replace("|", "\\|") for c in row] for row in table.rows]
        body = pd.DataFrame(cells, columns=table.columns).to_markdown(index=False, disable_numparse=True)
        parts.append(f"### {table.title}\n\n{body}\n")
    return "\n".join([*parts, NOTE]) + "\n"


def to_latex(df: pd.DataFrame) -> str:
    """The tables in LaTeX; they need the package booktabs."""
    parts = []
    for table in tables(df):
        text = pd.DataFrame([[c.text for c in row] for row in table.rows], columns=table.columns)
        bold = np.array([["textbf:--rwrap" if c.best else "" for c in row] for row in table.rows])
        style = text.style.format(escape="latex").apply(lambda _, bold=bold: bold, axis=None).hide(axis="index")
        layout = "l" + "r" * (len(table.columns) - 1)
        caption = table.title.translate({ord(c): f"\\{c}" for c in "_%&#$"})
        parts.append(style.to_latex(hrules=True, column_format=layout, caption=caption, position="ht",
                                    position_float="centering"))
    head = "% needs \\usepackage{booktabs}\n% " + NOTE.replace("±", "+-") + "\n"
    return head + "\n".join(parts).replace("±", r"$\pm$").replace("–", "--")


def to_csv(df: pd.DataFrame) -> str:
    """All metrics in full precision: one line per data set and method, columns ``<metric>_mean``, ``_std``, ``_n``."""
    numbers = [c for c in df.columns[df.columns.get_loc("seconds"):] if c not in ("error", "id")]
    table = aggregate(df, ["k", *numbers])
    table.columns = [f"{column}_{statistic}" for column, statistic in table.columns]
    return counts(df).join(table).reset_index().to_csv(index=False)
