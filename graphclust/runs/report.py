"""The report over many runs: one self-contained HTML page, and its table as markdown, LaTeX and CSV."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from graphclust.atomic import write_atomic
from graphclust.data import load
from graphclust.methods import get_method
from graphclust.runs import figures
from graphclust.runs.record import RunConfig, RunRecord
from graphclust.runs.stats import ALPHA, aggregate, best_first, compare, finished, mean_ranks
from graphclust.runs.store import RunDir
from graphclust.runs.tables import (
    NOTE,
    SHOWN,
    Cell,
    Table,
    frame,
    headline_metric,
    main_table,
    metric_cells,
    spread,
    to_csv,
    to_latex,
    to_markdown,
)

Runs = list[tuple[str, RunDir, RunRecord]]
"""Name of the row, folder and record of each run."""


@dataclass(frozen=True)
class Labels:
    """The labels of a data set, loaded again for the pictures; ``problem`` says why there are none."""

    y: np.ndarray | None = None
    class_names: list[str] | None = None
    problem: str | None = None


def write_report(records: Iterable[tuple[RunDir, RunRecord]], out_dir: Path, title: str) -> Path:
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
    environment = Environment(loader=PackageLoader("graphclust.runs", "."), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("report.html.j2").render(
        title=title, note=NOTE, alpha=ALPHA, status=df["status"].value_counts().to_dict(), total=len(df),
        n_methods=df["method"].nunique(), n_seeds=df["seed"].nunique(), best=best_table(df), ranks=rank_table(df),
        sections=[section(df[df["data"] == data], [run for run in runs if run[2].config.data == data])
                  for data in df["data"].unique()],
        appendix=appendix(runs),
    )
    out_dir = Path(out_dir)
    for name, content in (("table.md", to_markdown(df)), ("table.tex", to_latex(df)), ("table.csv", to_csv(df)),
                          ("report.html", page)):
        write_atomic(out_dir / name, content)
    return out_dir / "report.html"


def best_table(df: pd.DataFrame) -> Table:
    """Which method is best by which metric on each data set, and how sure that is."""
    shown = [m for m in SHOWN if m in df and finished(df)[m].notna().any()]
    rows = []
    for data in df["data"].unique():
        runs = df[df["data"] == data]
        rows.append([Cell(data), *(Cell(_best(runs, metric)) for metric in shown)])
    return Table("Best method", ["data", *(SHOWN[m] for m in shown)], rows)


def _best(runs: pd.DataFrame, metric: str) -> str:
    """``leiden 0.586 ± 0.002, ahead of 3 of 4 others``."""
    table = aggregate(runs, [metric]).droplevel("data")
    order = best_first(table[(metric, "mean")], metric)
    if order.empty:
        return "–"
    top = order.index[0]
    text = f"{top}\n{spread(*table.loc[top, [(metric, 'mean'), (metric, 'std')]])}"
    pairs = compare(runs, metric)
    pairs = pairs[(pairs["better"] == top) | (pairs["worse"] == top)]
    if len(order) == 1:
        return f"{text}\nno other method has a result"
    if not pairs["p"].notna().any():
        reasons = ", ".join(dict.fromkeys(pairs["test"])) or "no common seed"
        return f"{text}\nnot tested: {reasons}"
    ahead = int((pairs["significant"] & (pairs["better"] == top)).sum())
    if not ahead:
        return f"{text}\nnot shown to differ from any other"
    return f"{text}\nahead of {ahead} of {len(order) - 1} others at p < {ALPHA}"


@dataclass(frozen=True)
class RankTable:
    """Mean ranks over the data sets, with the sentence on how sure they are."""

    table: Table
    sentence: str


def rank_table(df: pd.DataFrame) -> RankTable | None:
    """Mean ranks over the data sets; None when there are fewer than two data sets or two methods to rank."""
    metric = headline_metric(df)
    if metric not in df:
        return None
    ranks = mean_ranks(df, metric)
    if ranks.p is None:
        return None
    verdict = "the methods differ" if ranks.p < ALPHA else "the ranks do not show that the methods differ"
    over = f"Ranks by {SHOWN[metric]} over {', '.join(ranks.data)}"
    sentence = f"{over}; Friedman test (permutations) p = {ranks.p:.3f}: {verdict}."
    if ranks.left_out:
        sentence += f" Left out, without a finished run on some data set: {', '.join(ranks.left_out)}."
    rows = [[Cell(str(m)), Cell(f"{v:.2f}")] for m, v in ranks.mean.items()]
    return RankTable(Table("Mean ranks", ["method", "mean rank (1 is best)"], rows), sentence)


def section(df: pd.DataFrame, runs: Runs) -> dict[str, Any]:
    """Everything the page says about one data set."""
    metric = headline_metric(df)
    labels = _labels(runs)
    pairs = compare(df, metric) if metric in df else pd.DataFrame()
    top = pairs["better"].iloc[0] if len(pairs) else None
    return {
        "table": main_table(df, df["data"].iloc[0]),
        "published": published_table(df),
        "oracle": oracle_table(df),
        "metric": SHOWN[metric],
        "top": top,
        "pairs": None if top is None else pair_table(pairs[(pairs["better"] == top) | (pairs["worse"] == top)]),
        "all_pairs": None if top is None else pair_table(pairs),
        "problem": labels.problem,
        "pictures": pictures(df, runs, labels),
        "failed": [(name, r) for name, _, r in runs if r.status == "failed"],
        "unfinished": [(name, r) for name, _, r in runs if r.status == "running"],
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
    cells = [[Cell(c.text) for c in metric_cells(table, column)] for column in columns]
    rows = [[Cell(str(m)), *row] for m, row in zip(table.index, zip(*cells, strict=True), strict=True)]
    return Table("Oracle", ["method", *(f"oracle {SHOWN.get(c[7:], c[7:])}" for c in columns)], rows)


def pair_table(pairs: pd.DataFrame) -> Table:
    """Rows of :func:`graphclust.runs.stats.compare`."""
    rows = []
    for r in pairs.itertuples():
        tested = not np.isnan(r.p)
        verdict = ("yes" if r.significant else "not shown") if tested else f"not tested: {r.test}"
        rows.append([Cell(r.better), Cell(r.worse), Cell(f"{r.difference:+.3f}"), Cell(str(r.n)),
                     Cell(r.test if tested else "–"), Cell(_p(r.p)), Cell(_p(r.p_holm)), Cell(verdict)])
    columns = ["better", "worse", "difference", "pairs", "test", "p", "p (Holm)", "different?"]
    return Table("Paired comparison", columns, rows)


def _p(p: float) -> str:
    return "–" if np.isnan(p) else ("< 0.001" if p < 0.001 else f"{p:.3f}")


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


def pictures(df: pd.DataFrame, runs: Runs, labels: Labels) -> list[figures.Picture]:
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


def appendix(runs: Runs) -> dict[str, Any]:
    """Configs and commands per row, versions and commits."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for name, _, r in runs:
        row = rows.setdefault((r.config.data, name), {"data": r.config.data, "name": name, "seeds": [], "ids": []})
        row["seeds"].append(r.config.seed)
        row["ids"].append(r.id)
        row["command"] = command(r.config)
        row["config"] = yaml.safe_dump(r.config.model_dump(mode="json", exclude={"seed"}), sort_keys=False)
    versions = {json.dumps(r.versions, sort_keys=True): r.versions for _, _, r in runs if r.versions}
    return {
        "rows": list(rows.values()), "versions": list(versions.values()),
        "commits": sorted({r.git_commit for _, _, r in runs if r.git_commit}),
        "devices": sorted({r.device for _, _, r in runs if r.device}),
        "started": min((r.started for _, _, r in runs if r.started), default=None),
    }


def command(config: RunConfig) -> str:
    """The command line that repeats the run of ``config``; only what differs from the defaults is spelled out."""
    words = ["graphclust", "run", config.method, "--data", config.data, "--seed", str(config.seed)]
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
