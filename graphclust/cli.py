"""The command line: ``graphclust run``, ``bench``, ``report`` and the rest; ``graphclust --help`` lists all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from graphclust import __version__
from graphclust.graph import InputError
from graphclust.options import Json, Set, cell, emit, errors_in_one_line, params, print_rows

app = typer.Typer(
    help="Cluster the nodes of a graph, compare methods honestly, trust every number.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
)


class Device(StrEnum):
    """Where a method that trains runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Kind(StrEnum):
    """What ``graphclust list`` lists."""

    methods = "methods"
    data = "data"
    metrics = "metrics"
    encoders = "encoders"


DATA = "Name, NAME:key=value,... or a file; see graphclust data list."
K = Annotated[str | None, typer.Option(
    "-k", "--n-clusters", help="Number of clusters, 'data' (as it declares) or 'auto' (spectral).")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of each run; part of the run's identity.")]
DeviceOption = Annotated[Device, typer.Option(help="auto takes cuda when it is there.")]


def _k(value: str | None) -> Any:
    if value in (None, "data", "auto"):
        return value
    if not value.isdigit() or int(value) < 1:
        raise InputError(f"-k {value}; the number of clusters must be an integer >= 1, 'data' or 'auto'")
    return int(value)


@app.command()
def run(
    method: Annotated[str, typer.Argument(help="A method's name (graphclust list methods), or its setting file.")],
    data: Annotated[str, typer.Option(help=DATA)],
    k: K = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides every random choice.", show_default="0")] = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/<id>")] = None,
    device: DeviceOption = Device.auto,
    threads: Threads = 1,
    graphml: Annotated[bool, typer.Option(help="Also write the graph with the cluster as a node attribute.")] = False,
    dry_run: Annotated[bool, typer.Option(
        "--dry-run", help="Private methods: noise from --seed; voids the guarantee, spends no budget.")] = False,
    resume: Annotated[bool, typer.Option(
        "--resume", help="Go on with an interrupted run, as is done without this too, but never begin one.")] = False,
    as_json: Json = False,
) -> None:
    """Cluster one graph with one method; writes labels, metrics and the complete config into one folder.

    A private method (dp_...) writes its release bundle only: labels, public parameters and the privacy ledger.
    """
    from graphclust.bench import load_setting
    from graphclust.coerce import as_graph
    from graphclust.console import FitBar, bars
    from graphclust.data import load
    from graphclust.methods import get_method
    from graphclust.runs.execute import execute
    from graphclust.runs.export import export_labels, export_windows
    from graphclust.runs.record import RunRecord
    from graphclust.runs.store import RunDir, RunStore

    rest: dict[str, Any] = {"params": params(set_), "device": _device(device), "threads": threads}
    config = load_setting(method).run(data, seed or 0, **{**rest, "n_clusters": _k(k)}).resolved()
    if get_method(config.method).private:
        from graphclust.privacy.cli import run_private

        run_private(config, out, seed, dry_run=dry_run, graphml=graphml, as_json=as_json)
        return
    if dry_run:
        raise InputError(f"--dry-run is for private methods and {config.method} is none; leave it out")
    run_dir = RunDir(out, RunRecord) if out else RunStore(Path("runs"), RunRecord).run_dir(config)
    if run_dir.path.exists() and not (run_dir.path / "config.yaml").exists() and any(run_dir.path.iterdir()):
        raise InputError(f"the output folder {run_dir.path} is not empty and holds no run; give another --out")
    if resume and not (run_dir.path / "config.yaml").exists():
        raise InputError(f"--resume: there is no run in {run_dir.path}; give its --out, or leave --resume out")
    done = run_dir.record()
    with bars() as progress:
        record = execute(config, run_dir, FitBar(progress, config.method), raises=True)
    labels = run_dir.array("labels")
    assert labels is not None
    graph, windows, edges = as_graph(load(data)), run_dir.array("window_labels"), run_dir.array("window_edges")
    files = export_labels(run_dir.path, graph, labels, graphml=graphml)
    if windows is not None and edges is not None:
        files.append(export_windows(run_dir.path, graph, windows, edges))

    def show() -> None:
        from graphclust.console import stderr

        again = " (this run was finished before; nothing was computed)" if done and done.status == "finished" else ""
        table = Table(title=escape(f"{config.name} on {data}, seed {config.seed}{again}"), title_justify="left")
        table.add_column("metric")
        table.add_column("value", justify="right")
        asked = config.n_clusters
        fewer = f" of {asked}" if isinstance(asked, int) and record.n_clusters != asked else ""
        table.add_row("clusters", f"{record.n_clusters}{fewer} ({_K_SOURCE[record.k_source or 'method']})")
        for name, value in record.metrics.items():
            table.add_row(name, f"{value:.4f}")
        table.add_row("seconds", f"{record.timings['fit']:.2f}")
        table.add_row("peak memory", f"{record.peak_memory_mb:.0f} MB")
        stderr.print(table)
        for file in files:
            typer.echo(file)

    emit({**record.row(run_dir.path), "config": record.config.model_dump(mode="json")}, as_json, show)


_K_SOURCE = {"given": "given", "data": "as the data declares", "method": "found by the method"}


def _device(device: Device) -> str:
    """The device a run gets: decided here, so that the run's config says where it really ran."""
    import torch

    if device is Device.cuda and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available here; use --device cpu or auto")
    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.value


@app.command()
def bench(
    config: Annotated[Path | None, typer.Argument(help="A benchmark's YAML; see configs/suites.")] = None,
    data: Annotated[str | None, typer.Option(help="Data sets, separated by spaces or commas.")] = None,
    methods: Annotated[str | None, typer.Option(help="Methods or setting files, separated by commas.")] = None,
    seeds: Annotated[int | None, typer.Option(
        min=1, help="Seeds 0..N-1, but for rows that name their own.", show_default="the YAML's, or 5")] = None,
    k: K = None,
    set_: Set = None,
    out: Annotated[Path | None, typer.Option(help="The benchmark's folder.", show_default="runs/bench-<hash>")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each in its own process.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in --out even if the config has changed.")] = False,
    device: DeviceOption = Device.auto,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Compare methods over data sets and seeds; finished runs are never run again, a failed run is a row."""
    from graphclust.bench import BenchConfig, check_data, claim, load_bench
    from graphclust.console import BenchBars, bars
    from graphclust.runs.execute import PRELOAD, execute
    from graphclust.runs.parallel import run_all
    from graphclust.runs.record import RunRecord
    from graphclust.runs.report import write_report
    from graphclust.runs.store import RunStore

    if config is None and not (data and methods):
        raise InputError("give a benchmark's YAML, or both --data and --methods")
    if config is not None and (data or methods):
        raise InputError("give a benchmark's YAML or --data and --methods, not both")
    if config is not None:
        plan = load_bench(config)
    else:
        plan = BenchConfig.model_validate(
            {"data": split_refs(data or ""), "methods": (methods or "").replace(",", " ").split()})
    changes: dict[str, Any] = {"device": _device(device), "threads": threads}
    changes |= {"seeds": seeds} if seeds else {}
    changes |= {"n_clusters": _k(k)} if k else {}
    plan = plan.model_copy(update={**changes, "params": {**plan.params, **params(set_)}})
    runs = plan.runs()
    check_data(plan)
    out = out or Path("runs") / f"bench-{plan.fingerprint()}"
    store = RunStore(out / "runs", RunRecord)
    with claim(out, plan, extend=resume):
        try:
            with bars() as progress:
                records = run_all(runs, store, execute, jobs=jobs, preload=PRELOAD,
                                  listen=BenchBars(progress, len(runs)))
        except KeyboardInterrupt:
            typer.echo(f"interrupted; finished runs are kept in {out}, the same command goes on from there", err=True)
            raise typer.Exit(130) from None
        pairs = [(store.run_dir(r.config), r) for r in records]
        page = write_report(pairs, out, plan.title)
    rows = [r.row(d.path) for d, r in pairs]
    emit({"runs": rows, "run_dir": str(out), "report": str(page)}, as_json, lambda: _show_report(pairs, page))
    if any(r.status == "failed" for r in records):
        raise typer.Exit(1)


def split_refs(text: str) -> list[str]:
    """Split ``a,b:k=2,n=5,c`` into data references: a part that is a ``key=value`` belongs to the one before it."""
    refs: list[str] = []
    for part in (p for word in text.split() for p in word.split(",") if p):
        if refs and ":" not in part and "=" in part and ":" in refs[-1]:
            refs[-1] += f",{part}"
        else:
            refs.append(part)
    return refs


def _show_report(pairs: list[Any], page: Path) -> None:
    from rich.console import Console

    from graphclust.methods import get_method
    from graphclust.runs.layout import terminal_tables
    from graphclust.runs.record import NOT_PRIVATE
    from graphclust.runs.tables import NARROW, frame, tables

    console = Console(markup=False)
    for table in terminal_tables(tables(frame(pairs)), NARROW):
        console.print(table)
    if any(get_method(r.config.method).private for _, r in pairs):
        console.print(NOT_PRIVATE, style="bold red")
    console.print(f"report: {page}", soft_wrap=True, highlight=False)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A benchmark's folder, a folder of runs, or a run's own.")],
    as_json: Json = False,
) -> None:
    """Write the report of a folder again (HTML, markdown, LaTeX, CSV) and rebuild its index."""
    from graphclust.bench import load_bench
    from graphclust.runs.record import RunRecord
    from graphclust.runs.report import write_report
    from graphclust.runs.store import runs_in

    pairs = runs_in(folder, RunRecord)
    if not pairs:
        raise InputError(f"{folder} holds no run; give the --out of graphclust run or bench, or a folder of runs")
    title = load_bench(folder / "bench.yaml").title if (folder / "bench.yaml").exists() else f"Runs in {folder.name}"
    page = write_report(pairs, folder, title)
    document = {"runs": [r.row(d.path) for d, r in pairs], "run_dir": str(folder), "report": str(page)}
    emit(document, as_json, lambda: _show_report(pairs, page))


@app.command()
def evaluate(
    labels: Annotated[Path, typer.Argument(help="CSV with columns node and cluster, or .npy/.npz from a run.")],
    data: Annotated[str, typer.Option(help=DATA)],
    as_json: Json = False,
) -> None:
    """Every metric of a partition that you have already, wherever it came from."""
    from graphclust.coerce import as_graph
    from graphclust.data import load
    from graphclust.metrics import evaluate as metrics_of
    from graphclust.runs.export import read_labels

    loaded = load(data)
    graph = as_graph(loaded)
    found = read_labels(labels, graph)
    metrics = metrics_of(found, getattr(loaded, "y", None), graph)
    document = {"labels": str(labels), "data": data, "n_clusters": len(set(found.tolist())), "metrics": metrics}
    emit(document, as_json, lambda: print_rows(["metric", "value"], [[m, f"{v:.4f}"] for m, v in metrics.items()]))


@app.command()
def scan(
    data: Annotated[str, typer.Option(help=DATA)],
    objective: Annotated[str, typer.Option(help="modularity or cpm")] = "modularity",
    resolutions: Annotated[str | None, typer.Option(
        help="Numbers, separated by commas.", show_default="a grid")] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Runs at each resolution; their agreement is the stability.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Decides every random choice.")] = 0,
    figure: Annotated[Path | None, typer.Option(help="Draw clusters and stability to this .png, .svg or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Leiden over a grid of resolutions: how many clusters, how stable, and which resolution to take."""
    from graphclust.coerce import as_graph
    from graphclust.communities.scan import draw
    from graphclust.communities.scan import scan as scan_resolutions
    from graphclust.console import FitBar, bars
    from graphclust.data import load

    graph = as_graph(load(data))
    grid = _numbers(resolutions)
    with bars() as progress:
        found = scan_resolutions(graph, objective=objective, resolutions=grid, seeds=seeds, random_state=seed,
                                 monitor=FitBar(progress, "leiden"))
    if figure:
        draw(found, figure)

    def show() -> None:
        columns = ["resolution", "clusters (min-max)", "modularity", "stability", "connected", "plateau"]
        print_rows(columns, [[
            f"{r.resolution:.4g}", f"{r.n_clusters} ({r.n_clusters_min}-{r.n_clusters_max})", f"{r.modularity:.4f}",
            f"{r.stability:.3f}", cell(r.connected), "*" if r.on_plateau else "",
        ] for r in found.rows])
        advice = "none" if found.recommended is None else f"{found.recommended:.4g}"
        typer.echo(f"recommended resolution: {advice} ({found.reason})")

    emit({"data": data, **found.as_dict(), "figure": str(figure) if figure else None}, as_json, show)


def _numbers(text: str | None) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError as e:
        raise InputError(f"--resolutions {text!r}: give numbers separated by commas, such as 0.5,1,2") from e


@app.command("list")
def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")], as_json: Json = False) -> None:
    """List the methods, data sets, metrics or encoders."""
    rows: Sequence[Mapping[str, Any]]
    if kind is Kind.methods:
        from graphclust.methods import get_method, method_names

        rows = [{"name": m, "summary": c.summary, "features": c.needs_features, "k": c.needs_k, "source": c.source,
                 "parameters": {p: v for p, v in c().get_params().items() if p not in ("n_clusters", "random_state")}}
                for m in method_names() for c in [get_method(m)]]
        columns = ["name", "summary", "features", "k", "source"]
    elif kind is Kind.data:
        from graphclust.data.catalogue import describe

        rows, columns = describe(), ["name", "kind", "n", "m", "d", "k"]
    elif kind is Kind.metrics:
        from graphclust.metrics import describe_metrics

        rows = describe_metrics()
        columns = list(rows[0])
    else:
        from graphclust.encoders import describe_encoders

        rows = describe_encoders()
        columns = list(rows[0])
    emit(rows, as_json, lambda: print_rows(columns, [[cell(r.get(c)) for c in columns] for r in rows]))


@app.command()
def info(as_json: Json = False) -> None:
    """Versions, devices and folders: what to put in a bug report."""
    import torch

    from graphclust.runs.lifecycle import versions
    from graphclust.runs.record import PACKAGES

    document: dict[str, Any] = {
        "graphclust": __version__, "cuda": torch.cuda.is_available(), "cpus": os.cpu_count(),
        "GRAPHCLUST_DATA": os.environ.get("GRAPHCLUST_DATA"), "versions": versions(PACKAGES),
    }
    rows = [[key, str(value)] for key, value in {**document, **document["versions"]}.items() if key != "versions"]
    emit(document, as_json, lambda: print_rows(["what", "value"], rows))


def main() -> None:
    """Entry point; see :func:`graphclust.options.errors_in_one_line`."""
    from graphclust.data.cli import app as data_app
    from graphclust.privacy import cli as privacy
    from graphclust.privacy.audit_cli import audit

    for command in (privacy.predict, privacy.budget, audit):
        app.command()(command)
    app.add_typer(data_app, name="data", help="List, fetch, inspect and convert data sets.")
    with errors_in_one_line():
        app()
