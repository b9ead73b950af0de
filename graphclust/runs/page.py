"""What the reports of both halves are made with: the page's frame, its appendix, its files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from graphclust.atomic import write_atomic
from graphclust.runs.base import Record
from graphclust.runs.layout import Table, to_latex, to_markdown
from graphclust.runs.stats import ALPHA


def render(template: str, *, df: pd.DataFrame, package: str | None = None, **content: Any) -> str:
    """The HTML of a report: ``template`` extends ``base.html.j2``, which says what it needs.

    Parameters
    ----------
    template : its file name
    df : frame of all runs
    package : where the template lies, if not here
    """
    loaders = [PackageLoader(p, ".") for p in (package, __package__) if p]
    environment = Environment(loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(
        alpha=ALPHA, status=df["status"].value_counts().to_dict(), total=len(df), n_methods=df["method"].nunique(),
        n_seeds=df["seed"].nunique(), **content,
    )


def write_files(out_dir: Path, page: str, tables: list[Table], note: str, csv: str) -> Path:
    """Write ``report.html``, ``table.md``, ``table.tex`` and ``table.csv`` into ``out_dir``; the path of the first."""
    for name, content in (("table.md", to_markdown(tables, note)), ("table.tex", to_latex(tables, note)),
                          ("table.csv", csv), ("report.html", page)):
        write_atomic(Path(out_dir) / name, content)
    return Path(out_dir) / "report.html"


def troubles(runs: Iterable[tuple[str, Record]]) -> dict[str, list[tuple[str, Record]]]:
    """The runs, with the name of their row, that failed and that did not come to an end."""
    runs = list(runs)
    return {"failed": [run for run in runs if run[1].status == "failed"],
            "unfinished": [run for run in runs if run[1].status == "running"]}


def appendix(runs: Iterable[tuple[str, str, str, Record]]) -> dict[str, Any]:
    """Configs and commands per row, versions and commits; ``runs``: data set, name of the row, command, record."""
    runs = list(runs)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for data, name, command, r in runs:
        row = rows.setdefault((data, name), {"data": data, "name": name, "seeds": [], "ids": []})
        row["seeds"].append(r.config.seed)
        row["ids"].append(r.id)
        row["command"] = command
        row["config"] = yaml.safe_dump(r.config.model_dump(mode="json", exclude={"seed"}), sort_keys=False)
    records = [r for *_, r in runs]
    versions = {json.dumps(r.versions, sort_keys=True): r.versions for r in records if r.versions}
    return {
        "rows": list(rows.values()), "versions": list(versions.values()),
        "commits": sorted({r.git_commit for r in records if r.git_commit}),
        "devices": sorted({r.device for r in records if r.device}),
        "started": min((r.started for r in records if r.started), default=None),
    }
