"""The report over many runs on graphs: one self-contained HTML page, and its tables as markdown, LaTeX and CSV."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from graphclust.data import load
from graphclust.methods import get_method
from graphclust.runs import figures, flows
from graphclust.runs.comparison import best_table, comparison, rank_table
from graphclust.runs.drawing import Picture
from graphclust.runs.layout import Cell, Table, metric_cells, spread, to_csv
from graphclust.runs.page import appendix, render, troubles, write_files
from graphclust.runs.record import NOT_PRIVATE, RunConfig, RunRecord
from graphclust.runs.stats import aggregate, finished
from graphclust.runs.store import RunDir
from graphclust.runs.tables import (
    NOTE,
    SHOWN,
    frame,
    headline_metric,
    higher_is_better,
    main_table,
    numbers,
    tables,
    windows_table,
)

Runs = list[tuple[str, RunDir[RunRecord], RunRecord]]
"""Name of the row, folder and record of each run."""


@dataclass(frozen=True)
class Labels:
    """The labels of a data set, loaded again for the pictures; ``problem`` says why there are none."""

    y: np.ndarray | None = None
    class_names: list[str] | None = None
    problem: str | None = None


def write_report(records: Iterable[tuple[RunDir[RunRecord], RunRecord]], out_dir: Path, title: str) -> Path:
    """Write ``report.html``, ``table.md``, ``table.tex`` and ``table.csv`` into ``out_dir``.

    Parameters
    ----------
    records : runs with their folders, as :meth:`graphclust.runs.store.RunStore.records` gives them
    out_dir : created if it does not exist; files of an earlier report are replaced
    title : heading of the page

    Returns
    -------
    Path of report.html
    """
    records = list(records)
    df = frame(records)
    by_id = dict(zip(df["id"], df["method"], strict=True))
    runs: Runs = [(by_id[r.id], d, r) for d, r in {r.id: (d, r) for d, r in records}.values()]
    metric = headline_metric(df)
    stamp = NOT_PRIVATE if any(get_method(r.config.method).private for _, r in records) else None
    note = f"{stamp}. {NOTE}" if stamp else NOTE
    page = render(
        "report.html.j2", df=df, title=title, words={"data": "data set", "method": "method"}, note=NOTE, stamp=stamp,
        best=best_table(df, SHOWN, higher_is_better),
        ranks=rank_table(df, metric, SHOWN[metric], higher_is_better(metric)),
        sections=[section(df[df["data"] == data], [run for run in runs if run[2].config.data == data])
                  for data in df["data"].unique()],
        appendix=appendix([(r.config.data, name, command(r.config), r) for name, _, r in runs]),
    )
    return write_files(out_dir, page, list(tables(df)), note, to_csv(df, numbers(df)))


def section(df: pd.DataFrame, runs: Runs) -> dict[str, Any]:
    """Everything the page says about one data set."""
    metric = headline_metric(df)
    labels = _labels(runs)
    return {
        "table": main_table(df, df["data"].iloc[0]),
        "published": published_table(df),
        "oracle": oracle_table(df),
        "windows": windows_table(df),
        "metric": SHOWN[metric],
        "comparison": comparison(df, metric, higher_is_better(metric)),
        "problem": labels.problem,
        "pictures": pictures(df, runs, labels),
        **troubles([(name, r) for name, _, r in runs]),
    }


def published_table(df: pd.DataFrame) -> Table | None:
    """Ours beside the published value, where the config holds one; None when no config does."""
    rows = []
    for column in [c for c in df if c.startswith("published_") and df[c].notna().any()]:
        metric = column.removeprefix("published_")
        values = aggregate(df, [c for c in (metric, column) if c in df]).droplevel("data")
        # the published value belongs to the config: a method whose runs all failed has one too
        for method, value in df.groupby("method", sort=False)[column].first().dropna().items():
            has = metric in df and not np.isnan(values.loc[method, (metric, "mean")])
            mean, std = values.loc[method, [(metric, "mean"), (metric, "std")]] if has else (np.nan, np.nan)
            difference = f"{mean - value:+.3f}" if has else "–"
            texts = [str(method), SHOWN.get(metric, metric), spread(mean, std), f"{value:.3f}", difference]
            rows.append([Cell(text) for text in texts])
    rows.sort(key=lambda row: row[0].text)
    return Table("Published", ["method", "metric", "here", "published", "difference"], rows) if rows else None


def oracle_table(df: pd.DataFrame) -> Table | None:
    """The best epoch's metrics, chosen with the labels; None when no run has any."""
    columns = [c for c in df if c.startswith("oracle_") and finished(df)[c].notna().any()]
    if not columns:
        return None
    table = aggregate(df, columns).droplevel("data").dropna(how="all", subset=[(c, "mean") for c in columns])
    cells = [[Cell(c.text) for c in metric_cells(table, column, higher_is_better(column))] for column in columns]
    rows = [[Cell(str(m)), *row] for m, row in zip(table.index, zip(*cells, strict=True), strict=True)]
    return Table("Oracle", ["method", *(f"oracle {SHOWN.get(c[7:], c[7:])}" for c in columns)], rows)


def _labels(runs: Runs) -> Labels:
    """The labels are not in the run folders: load the data again, and do without them if that fails."""
    try:
        found = load(runs[0][2].config.data)
    except Exception as e:  # whatever keeps the data from loading, the numbers of the report stand without it
        return Labels(problem=f"the data cannot be loaded again ({type(e).__name__}: {e})")
    y = getattr(found, "y", None)
    if y is None or not (np.asarray(y) >= 0).any():
        return Labels(problem="the data has no labels")
    if any(r.n_nodes not in (None, len(y)) for _, _, r in runs):
        return Labels(problem="the data now has another number of nodes than in the runs")
    return Labels(np.asarray(y), getattr(found, "class_names", None))


def pictures(df: pd.DataFrame, runs: Runs, labels: Labels) -> list[Picture]:
    """The figures of one data set, as far as its runs have what they show."""
    done = sorted((run for run in runs if run[2].status == "finished"), key=lambda run: run[2].config.seed)
    colour = {method: i for i, method in enumerate(df["method"].unique())}
    first = {name: d for name, d, _ in reversed(done)}
    first = {name: first[name] for name in colour if name in first}
    partitions = {name: a for name, d in first.items() if (a := d.array("labels")) is not None}
    y = labels.y
    out = []
    metric = headline_metric(df)
    if metric in df and finished(df)[metric].notna().any():
        table = aggregate(df, [metric, "seconds"]).droplevel("data")
        out.append(figures.speed_and_quality(table, metric, SHOWN[metric], colour))
    if partitions:
        out.append(figures.cluster_sizes(partitions, y, colour))
    if y is not None and partitions:
        out.append(figures.confusions(partitions, y, labels.class_names))
    planes = {name: (e, partitions[name]) for name in partitions if (e := first[name].array("embedding")) is not None}
    if planes:
        out.append(figures.embeddings(planes, y))
    over_time = {name: a for name, d in first.items() if (a := d.array("window_labels")) is not None}
    if over_time:
        out += [flows.window_rivers(over_time), flows.window_lives(over_time)]
    histories: dict[str, list[list[dict[str, float]]]] = {}
    curves: dict[str, list[np.ndarray]] = {}
    for name, d, _ in done:
        if history := d.history():
            histories.setdefault(name, []).append(history)
        if (curve := d.array("epoch_metrics")) is not None:
            curves.setdefault(name, []).append(curve)
    if curves:
        out.append(figures.metric_curves(curves, colour))
    if histories:
        out.append(figures.loss_curves(histories))
    return out


def command(config: RunConfig) -> str:
    """The command line that repeats the run of ``config``; only what differs from the defaults is spelled out."""
    words = ["graphclust", "run", config.method, "--data", config.data, "--seed", str(config.seed)]
    if get_method(config.method).private:
        words += ["--dry-run"]
    if config.n_clusters is not None:
        words += ["-k", str(config.n_clusters)]
    defaults = get_method(config.method)().get_params(deep=False)
    for key, value in config.params.items():
        if key != "device" and value != defaults.get(key):
            words += ["--set", f"{key}={json.dumps(value)}"]
    if config.device != "cpu":
        words += ["--device", config.device]
    if config.threads != 1:
        words += ["--threads", str(config.threads)]
    return shlex.join(words)
