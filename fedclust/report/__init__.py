"""The report over many federated runs: one self-contained HTML page, and its tables as markdown, LaTeX and CSV."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table as RichTable

from fedclust.algorithms import get_algorithm
from fedclust.config import FederationConfig
from fedclust.evaluation import METRICS
from fedclust.report.gallery import pictures
from fedclust.report.runs import Pairs, Run, collect
from fedclust.report.tables import (
    CONTESTED,
    NARROW,
    NOTE,
    contest,
    frame,
    groups_table,
    higher_is_better,
    lead,
    main_table,
    main_tables,
    newcomers_table,
    numbers,
    ordered,
    participation_table,
    privacy_table,
    rounds_table,
    suspects_table,
)
from graphclust.runs import layout
from graphclust.runs.comparison import best_table, comparison, rank_table
from graphclust.runs.page import appendix, render, troubles, write_files

WORDS = {"local": "client accuracy", "nodes_acc": "accuracy of the clusters"}

__all__ = ["collect", "frame", "rows", "terminal_tables", "write_report"]


def write_report(pairs: Pairs, out_dir: Path, title: str) -> Path:
    """Write ``report.html``, ``table.md``, ``table.tex`` and ``table.csv`` into ``out_dir``.

    Parameters
    ----------
    pairs : runs with their folders, as :meth:`graphclust.runs.store.RunStore.records` gives them; at least one
    out_dir : created if it does not exist; files of an earlier report are replaced
    title : heading of the page

    Returns
    -------
    Path of report.html
    """
    runs = collect(pairs)
    df = frame(runs)
    competing = contest(df)
    page = render(
        "federation.html.j2", package=__package__, df=df, title=title, note=NOTE,
        words={"data": "scenario", "method": "algorithm"},
        best=best_table(competing, CONTESTED, higher_is_better, place="scenario"),
        ranks=rank_table(competing, lead(df), METRICS[lead(df)].heading, True),
        sections=[section(df[df["data"] == data], [r for r in runs if r.data == data]) for data in df["data"].unique()],
        appendix=appendix([(r.data, r.name, command(r.config), r.record) for r in runs]),
    )
    return write_files(out_dir, page, list(main_tables(df)), NOTE, layout.to_csv(df, numbers(df)))


def terminal_tables(pairs: Pairs) -> list[RichTable]:
    """The main table of each scenario for a terminal."""
    return layout.terminal_tables(main_tables(frame(collect(pairs))), NARROW)


def rows(pairs: Pairs) -> list[dict[str, Any]]:
    """One row per run for ``--json``, with IPR, RSD and the like where the reference runs are among ``pairs``."""
    pairs = list(pairs)
    folders = {r.id: d.path for d, r in pairs}
    return [run.record.model_copy(update={"metrics": run.values}).row(folders[run.record.id]) for run in collect(pairs)]


def section(df: pd.DataFrame, runs: Sequence[Run]) -> dict[str, Any]:
    """Everything the page says about one scenario."""
    return {
        "table": main_table(df), "groups": groups_table(df), "rounds": rounds_table(df),
        "newcomers": newcomers_table(df), "participation": participation_table(df), "suspects": suspects_table(runs),
        "privacy": privacy_table(runs), "metric": WORDS[lead(df)],
        "comparison": comparison(contest(df), lead(df), True), "pictures": pictures(runs, ordered(df)),
        **troubles([(r.name, r.record) for r in runs]),
    }


def command(config: FederationConfig) -> str:
    """The command line that repeats the run of ``config`` and of the seeds before it."""
    words = ["fedclust", "simulate", config.algorithm, "--scenario", config.scenario]
    words += ["--seeds", str(config.seed + 1), "--rounds", str(config.rounds)]
    if config.engine != "auto":
        words += ["--engine", config.engine]
    fields = get_algorithm(config.algorithm).model_fields
    for key, value in config.settings.items():
        if key != "true_groups" and value != fields[key].get_default(call_default_factory=True):
            words += ["--set", f"{key}={json.dumps(value)}"]
    plain = _plain(FederationConfig(algorithm=config.algorithm, federation=config.federation))
    for key, value in _plain(config).items():
        if value != plain[key]:
            words += ["--with", f"{key}={json.dumps(value)}"]
    return shlex.join(words)


def _plain(config: FederationConfig) -> dict[str, Any]:
    """The fields that ``--with`` sets, nested ones dotted."""
    named = {"algorithm", "settings", "scenario", "federation", "seed", "rounds", "engine", "label", "workers",
             "memory_mb", "device"}
    body = config.model_dump(mode="json", exclude=named)
    nested = {f"{key}.{k}": v for key, value in body.items() if isinstance(value, dict) for k, v in value.items()}
    return {**{key: value for key, value in body.items() if not isinstance(value, dict)}, **nested}
