"""``graphclust data list | fetch | info | convert``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from graphclust.data.catalogue import CATALOGUE, cached, describe, local_copy, unknown_name
from graphclust.graph import InputError

app = typer.Typer(help="Data sets: list, fetch, describe, convert.", no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
REF = "Name, NAME:key=value,... or a file; see graphclust data list."


@app.command("list")
def list_sets(as_json: Json = False) -> None:
    """List the data sets that have a name."""
    rows = describe()
    if as_json:
        _print_json(rows)
        return
    console = Console()
    table = Table(caption="A file (.npz .csv .tsv .txt .graphml .mtx .pt) is given by its path. --json tells more.")
    wide = console.width >= 110
    numbers = ["n", "m", "d", "k"] + (["events"] if wide else [])
    columns = ["name", "kind", *numbers, "here"] + (["note"] if wide else [])
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", no_wrap=column != "note")
    for row in rows:
        here = "yes" if row["here"] else "fetch" if row["fetchable"] else "no"
        cells = [row["name"], row["kind"], *(_number(row[c]) for c in numbers), here, row["note"]]
        table.add_row(*cells[: len(columns)])
    console.print(table)


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Names of data sets.")],
    archive: Annotated[Path | None, typer.Option(help="A copy of the archive on this machine, not a download.")] = None,
    as_json: Json = False,
) -> None:
    """Bring data sets to this machine's cache."""
    from graphclust.data.archives import ARCHIVED, fetch_archive
    from graphclust.data.loading import load
    from graphclust.data.summary import counts

    for name in names:
        if name not in CATALOGUE and not name.startswith("pyg:"):
            raise unknown_name(name)
        if archive is not None and name not in ARCHIVED:
            raise InputError(f"--archive holds some of {', '.join(ARCHIVED)}; {name} is not among them")
    done = []
    for name in names:
        if archive is not None:
            fetch_archive(name, ARCHIVED[name], archive)
        data = load(name)
        done.append({"name": name, **counts(data), "file": str(local_copy(name) or cached(name) or "")})
    if as_json:
        _print_json(done)
        return
    for row in done:
        where = f" in {row['file']}" if row["file"] else ""
        what = f"{row['n_events']:,} events" if "n_events" in row else f"{row['n_edges']:,} edges"
        Console().print(f"{row['name']}: {row['n_nodes']:,} nodes, {what}{where}", highlight=False)


@app.command()
def info(ref: Annotated[str, typer.Argument(help=REF)], as_json: Json = False) -> None:
    """Describe a data set or a file."""
    from graphclust.data.loading import load
    from graphclust.data.summary import summarise

    summary = summarise(load(ref))
    if as_json:
        _print_json(summary)
        return
    table = Table(title=summary.pop("name"), show_header=False)
    for key, value in summary.items():
        if value is not None:
            table.add_row(key.replace("_", " "), _cell(value))
    Console().print(table)


@app.command()
def convert(
    ref: Annotated[str, typer.Argument(help=REF)],
    out: Annotated[Path, typer.Argument(help="File to write: .npz .csv .tsv .txt .graphml .mtx, text also .gz.")],
    as_json: Json = False,
) -> None:
    """Write a data set or a file in another format."""
    from graphclust.data.convert import save
    from graphclust.data.loading import load
    from graphclust.data.summary import counts

    data = load(ref)
    again, lost = save(data, out)
    if as_json:
        _print_json({"file": str(out), "ref": again, "lost": lost, **counts(data)})
        return
    Console().print(f"written; load it as {again}", highlight=False, soft_wrap=True)
    if lost:
        Console().print(f"[yellow]lost[/], {out.suffix} cannot hold it: {', '.join(lost)}", highlight=False)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(v)}" for key, v in value.items())
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
    return f"{value:,}" if type(value) is int else str(value)


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=1, default=str))
