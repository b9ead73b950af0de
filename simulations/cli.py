"""The command line: ``fedclust simulate | compare | partition | assign | report | list | deploy``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from fedclust.deploy.cli import deploy_app
from graphclust.graph import InputError
from graphclust.options import Json, Set, cell, emit, errors_in_one_line, params, print_rows

app = typer.Typer(
    help="Federations whose clients are grouped because one model cannot serve them all.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
)


class Engine(StrEnum):
    """Where the clients run."""

    auto = "auto"
    inprocess = "inprocess"
    batched = "batched"
    workers = "workers"
    ray = "ray"


class Kind(StrEnum):
    """What ``fedclust list`` lists."""

    algorithms = "algorithms"
    scenarios = "scenarios"


SCENARIO = "NAME, NAME:key=value,..., a YAML, a saved federation, or a folder with a file for each client."
Seeds = Annotated[int | None, typer.Option(
    min=1, help="Seeds 0..N-1.", show_default="the plan's; else 1 to simulate, 3 to compare")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Training rounds.", show_default="the scenario's")]
EngineOption = Annotated[Engine | None, typer.Option(
    help="auto: times the model and takes batched or workers; inprocess: here, one client after the other; batched: "
    "here, clients side by side; workers: in resident processes, one a processor; ray: Flower's simulation, on the "
    "cluster that the variable RAY_ADDRESS names, else on this machine.")]
Bounds = Annotated[bool, typer.Option("--bounds", help="Also run local, fedavg and oracle, and compare with them.")]
Out = Annotated[Path | None, typer.Option(help="The folder of the runs.", show_default="runs/fed-<hash>")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on in --out even if the plan has changed.")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time, each in its own process.")]
With = Annotated[list[str] | None, typer.Option(
    "--with", metavar="A=B", help="A field of the run, such as training.lr=.1 or fraction=.2.")]


@app.command()
def simulate(
    what: Annotated[str, typer.Argument(
        help="An algorithm (see fedclust list), its YAML, or a plan's with one algorithm and one scenario.")],
    scenario: Annotated[str | None, typer.Option(help=SCENARIO)] = None,
    rounds: Rounds = None,
    seeds: Seeds = None,
    engine: EngineOption = None,
    set_: Set = None,
    with_: With = None,
    bounds: Bounds = False,
    out: Out = None,
    resume: Resume = False,
    jobs: Jobs = 1,
    as_json: Json = False,
) -> None:
    """Run one algorithm on one federation, over seeds; an interrupted run goes on where it stopped."""
    from fedclust.report import rows as rows_of
    from simulations.plan import Plan, is_plan, load_plan, load_setting
    from simulations.run import summary

    if is_plan(what):
        if scenario is not None:
            raise InputError(f"{what} is a plan and names its scenarios; leave out --scenario")
        plan = load_plan(Path(what))
        if len(plan.algorithms) != 1 or len(plan.scenarios) != 1:
            raise InputError(f"{what} has {len(plan.algorithms)} algorithms and {len(plan.scenarios)} scenarios; "
                             "simulate takes one of each, fedclust compare takes all")
    elif scenario is None:
        load_setting(what)  # what is wrong with it goes first
        raise InputError("give --scenario; see fedclust list scenarios")
    else:
        plan = Plan(title=f"{what} on {scenario}", scenarios=[scenario], algorithms=[what], seeds=1)
    row = plan.rows()[0]
    if row.algorithm != "local":  # what a client gains over being alone is asked of every federation
        plan = plan.model_copy(update={"algorithms": [row, "local"]})
    pairs, folder, page = _run(plan, rounds, seeds, engine, set_, with_, bounds, out, resume, jobs)
    configs = [r.config for _, r in pairs if r.config.name == (row.label or row.algorithm)]
    mine = {c.run_id for c in configs}
    rows = [document for (_, r), document in zip(pairs, rows_of(pairs), strict=True) if r.id in mine]
    emit(summary(configs[0], rows, folder, page), as_json, lambda: _show(pairs, page))
    _exit(pairs)


@app.command()
def compare(
    config: Annotated[Path | None, typer.Argument(
        help="A plan's YAML, see configs/suites; without it give --scenarios and --algorithms.")] = None,
    scenarios: Annotated[str | None, typer.Option(help="Scenarios, separated by spaces or commas.")] = None,
    algorithms: Annotated[str | None, typer.Option(help="Algorithms or setting files, separated by commas.")] = None,
    rounds: Rounds = None,
    seeds: Seeds = None,
    engine: EngineOption = None,
    set_: Set = None,
    with_: With = None,
    bounds: Bounds = False,
    out: Out = None,
    resume: Resume = False,
    jobs: Jobs = 1,
    as_json: Json = False,
) -> None:
    """Compare algorithms over scenarios and seeds; finished runs are never run again, a failed run is a row."""
    from fedclust.report import rows as rows_of
    from graphclust.cli import split_refs
    from simulations.plan import Plan, load_plan

    if (config is None) != bool(scenarios and algorithms) or (config is not None and (scenarios or algorithms)):
        raise InputError("give a plan's YAML, or both --scenarios and --algorithms")
    if config is not None:
        plan = load_plan(config)
    else:
        names = (algorithms or "").replace(",", " ").split()
        plan = Plan.model_validate({"scenarios": split_refs(scenarios or ""), "algorithms": names})
    pairs, folder, page = _run(plan, rounds, seeds, engine, set_, with_, bounds, out, resume, jobs)
    emit({"runs": rows_of(pairs), "run_dir": str(folder), "report": str(page)}, as_json, lambda: _show(pairs, page))
    _exit(pairs)


def _run(
    plan: Any, rounds: int | None, seeds: int | None, engine: Engine | None, set_: list[str] | None,
    with_: list[str] | None, bounds: bool, folder: Path | None, resume: bool, jobs: int,
) -> tuple[list[Any], Path, Path]:
    """Run a plan in its folder and write the report: the runs with their folders, the folder, the page."""
    from joblib import cpu_count

    from fedclust.data.graphs import Nodes
    from fedclust.record import FederationRecord
    from fedclust.report import write_report
    from graphclust.bench import claim
    from graphclust.console import BenchBars, bars
    from graphclust.runs.parallel import run_all
    from graphclust.runs.store import RunStore
    from simulations.plan import nested
    from simulations.run import PRELOAD, PRELOAD_GRAPHS, execute

    changes: dict[str, Any] = {"settings": {**plan.settings, **params(set_)}}
    changes["config"] = nested(plan.config, {**params(with_), **({"rounds": rounds} if rounds else {})})
    if jobs > 1 and "workers" not in changes["config"]:
        changes["config"]["workers"] = max(1, cpu_count() // jobs)
    changes |= {"seeds": seeds} if seeds else {}
    changes |= {"engine": engine.value} if engine else {}
    changes |= {"bounds": True} if bounds else {}
    plan = plan.model_copy(update=changes)
    runs = plan.runs()
    plan.check_data()
    folder = folder or Path("runs") / f"fed-{plan.fingerprint()}"
    store = RunStore(folder / "runs", FederationRecord)
    on_graphs = any(isinstance(run.federation.partition, Nodes) for run in runs)
    with claim(folder, plan, extend=resume):
        try:
            with bars() as progress:
                records = run_all(runs, store, execute, jobs=jobs, listen=BenchBars(progress, len(runs)),
                                  preload=PRELOAD_GRAPHS if on_graphs else PRELOAD)
        except KeyboardInterrupt:
            typer.echo(f"interrupted; finished rounds are kept in {folder}, the same command goes on there", err=True)
            raise typer.Exit(130) from None
        pairs = [(store.run_dir(r.config), r) for r in records]
        page = write_report(pairs, folder, plan.title)
    return pairs, folder, page


def _show(pairs: list[Any], page: Path) -> None:
    from rich.console import Console

    from fedclust.report import terminal_tables

    console = Console(markup=False)
    for table in terminal_tables(pairs):
        console.print(table)
    for note in _notes(pairs):
        console.print(note, soft_wrap=True, highlight=False)
    console.print(f"report: {page}", soft_wrap=True, highlight=False)


def _notes(pairs: list[Any]) -> list[str]:
    """What the engines have to say, once for all runs of which it is the same but for the figures."""
    said: dict[str, list[str]] = {}
    for _, record in pairs:
        for note in record.notes:
            said.setdefault(note.partition(":")[0], []).append(note)
    return [f"{notes[0]} (the first of {len(notes)} runs)" if len(notes) > 1 else notes[0] for notes in said.values()]


def _exit(pairs: list[Any]) -> None:
    if any(r.status == "failed" for _, r in pairs):
        raise typer.Exit(1)


@app.command()
def partition(
    scenario: Annotated[str, typer.Argument(help=SCENARIO)],
    out: Annotated[Path | None, typer.Option(help="Save it to this folder: spec, table, a file a client.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides every draw.")] = 0,
    show: Annotated[bool, typer.Option("--show", help="Print the table, draw partition.png (into --out).")] = False,
    as_json: Json = False,
) -> None:
    """Who holds what: build a federation, save it, and look at it before anything is trained on it."""
    from fedclust.data.artefact import draw, save, table
    from fedclust.data.build import build_federation
    from fedclust.data.stored import SPLITS
    from simulations.setups import load_setup, save_defaults

    setup = load_setup(scenario, seed)
    federation = build_federation(setup.federation)
    rows = table(federation)
    if out is not None:
        save(federation, setup.federation, out)
        save_defaults(setup, out)
    picture = None
    if show:
        picture = (out or Path()) / "partition.png"
        draw(federation).savefig(picture, dpi=120)
    document = {"scenario": scenario, "clients": rows.to_dict("records"), "run_dir": str(out) if out else None,
                "picture": str(picture) if picture else None}

    def to_person() -> None:
        if show:
            shown = rows.drop(columns=["role", *SPLITS])
            shown.insert(1, "train/test/val", rows[[*SPLITS]].astype(str).agg("/".join, axis=1))
            print_rows([str(c).removeprefix("true_") for c in shown.columns],
                       [[cell(v) for v in r] for r in shown.itertuples(index=False)])
        f = federation
        counts = f"{len(f.clients)} clients, {len(f.unseen)} newcomers, {f.n_classes} classes"
        typer.echo(counts + "".join(f"; {p}" for p in (out, picture) if p))

    emit(document, as_json, to_person)


@app.command()
def assign(
    model_dir: Annotated[Path, typer.Argument(help="The model folder of a finished run: its run_dir/model.")],
    data: Annotated[Path, typer.Option(help="The new client's samples: .csv, or .npz with x and y, or x alone.")],
    shots: Annotated[int | None, typer.Option(min=0, help="Labelled samples to use.", show_default="all")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the predictions of all samples to this CSV.")] = None,
    as_json: Json = False,
) -> None:
    """The group of a client that was never seen in training, or "undetermined" where it cannot be known."""
    from fedclust.joining import assign_file

    document = assign_file(model_dir, data, shots=shots, out=out)
    emit(document, as_json, lambda: print_rows(["what", "value"], [[k, cell(v)] for k, v in document.items()]))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A simulation's or comparison's folder, one of runs, or a run's own.")],
    as_json: Json = False,
) -> None:
    """Write the report of a folder again (HTML, markdown, LaTeX, CSV) and rebuild its index."""
    from fedclust.record import FederationRecord
    from fedclust.report import rows as rows_of
    from fedclust.report import write_report
    from graphclust.runs.store import runs_in
    from simulations.plan import load_plan

    pairs = runs_in(folder, FederationRecord)
    if not pairs:
        raise InputError(f"{folder} holds no federated run; give the --out folder of fedclust simulate or compare")
    title = load_plan(folder / "bench.yaml").title if (folder / "bench.yaml").exists() else f"Runs in {folder.name}"
    page = write_report(pairs, folder, title)
    emit({"runs": rows_of(pairs), "run_dir": str(folder), "report": str(page)}, as_json, lambda: _show(pairs, page))


@app.command("list")
def list_(
    kind: Annotated[Kind | None, typer.Argument(help="What to list; else both.")] = None,
    as_json: Json = False,
) -> None:
    """List the algorithms or the scenarios, or both."""
    from fedclust.algorithms import describe_algorithms
    from simulations.scenarios import describe_scenarios

    rows: dict[str, list[dict[str, Any]]] = {}
    if kind is not Kind.scenarios:
        rows["algorithms"] = describe_algorithms()
    if kind is not Kind.algorithms:
        rows["scenarios"] = describe_scenarios()

    def to_person() -> None:
        for held in rows.values():
            columns = [c for c in held[0] if c != "sends"]
            print_rows(columns, [[_words(r[c]) for c in columns] for r in held])

    emit(rows[kind] if kind else rows, as_json, to_person)


def _words(value: Any) -> str:
    """A value in a list: of settings those with a default that is one word or number, and the names of the others."""
    if not isinstance(value, dict):
        return cell(value)
    return ", ".join(k if isinstance(v, dict | BaseModel) or v is None else f"{k}={v}" for k, v in value.items())


def _declaration(scenario: str, seed: int) -> Any:
    """The declaration of a scenario's federation."""
    from simulations.setups import load_setup

    return load_setup(scenario, seed).federation


app.add_typer(deploy_app(Path(__file__).parent / "flower_app", _declaration), name="deploy")


def main() -> None:
    """Entry point; see :func:`graphclust.options.errors_in_one_line`."""
    from fedclust.flwr_compat import apply_environment

    apply_environment()
    with errors_in_one_line():
        app()
