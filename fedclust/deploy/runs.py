"""Runs on a SuperLink: planned and checked, started, followed, listed, stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedclust.config import FederationConfig
from fedclust.deploy.checks import check_server_side
from fedclust.deploy.commands import (
    CONNECTION,
    Command,
    address_of,
    connect,
    flwr,
    prepare_run,
)
from fedclust.deploy.commands import run as run_command
from fedclust.deploy.registration import ask, nodes, registered
from fedclust.deploy.settings import RunSettings, read_run, read_superlink
from fedclust.deploy.supervise import run_shown
from fedclust.privacy import NO_SECURE_AGGREGATION
from graphclust.config_file import read_model
from graphclust.graph import InputError

PAUSE = 5.0
"""Seconds between two looks at a run that goes on after its log ended."""


@dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Parameters
    ----------
    folder : the operator's, where Flower's files go
    settings : where to run
    root_certificates : the authority
    config : what to run
    clients : how many to wait for
    """

    folder: Path
    settings: RunSettings
    root_certificates: Path
    config: FederationConfig
    clients: int


def plan(what: Path, clients: int | None, changes: Mapping[str, Any]) -> Plan:
    """What a run folder, or a config alone, asks for.

    Parameters
    ----------
    what : run folder of a kit, or the YAML of a federation
    clients : how many to wait for; None: the config's ``federation.n_clients``
    changes : to run.yaml; ``superlink`` must be there for a config alone

    Raises
    ------
    InputError
        Settings that are not allowed, secure aggregation among them, or that do not fit the number of clients.
    """
    if what.is_dir():
        folder = what.absolute()
        held = {**read_run(folder).model_dump(), **changes}
    else:
        folder = what.absolute().parent
        if "superlink" not in changes:
            raise InputError(f"{what} is no run folder of a kit; give the SuperLink with --superlink host:port")
        held = {"config": what.absolute(), **changes}
    if "root_certificates" in changes:
        held["root_certificates"] = Path(changes["root_certificates"]).absolute()
    if held.get("secure_aggregation"):
        raise InputError(NO_SECURE_AGGREGATION)
    settings = RunSettings.model_validate(held)
    root = address_of(folder, settings)[1]
    if not root.is_file():
        raise InputError(f"root_certificates = {str(root)!r}: no such file; give the ca.crt of the kit")
    config = read_model(folder / settings.config, FederationConfig)
    expected = clients or config.federation.n_clients
    config.check(expected)
    return Plan(folder, settings, root, config, expected)


def on_scenario(plan: Plan, name: str, federation: Any) -> Plan:
    """The same run for SuperNodes that serve clients of a simulated federation."""
    config = plan.config.model_copy(update={"scenario": name, "federation": federation})
    return Plan(plan.folder, plan.settings, plan.root_certificates, config, plan.clients)


def check(plan: Plan, *, needed: bool = True) -> list[str]:
    """What is found of the SuperLink, a line each; see :func:`fedclust.deploy.checks.check_server_side`."""
    what = f"run: {plan.config.name} for {plan.config.rounds} rounds, {plan.clients} clients"
    return [what, *check_server_side(plan.settings.superlink, plan.root_certificates, needed=needed)]


def run_config(plan: Plan) -> dict[str, str | int]:
    """What both apps are given: the config travels whole, for the other machines have no file of it."""
    return {"config": plan.config.resolved().model_dump_json(), "clients": plan.clients,
            "folder": plan.settings.folder}


def command(plan: Plan, app: Path) -> Command:
    """``flwr run`` of the app in the folder ``app``."""
    return run_command(plan.folder, app)


def start(
    plan: Plan, command: Command, tell: Callable[[str], None], show: Callable[[str], None], *, wait: bool = True
) -> dict[str, Any]:
    """Start a run and follow its log to its end.

    Returns
    -------
    ``run`` its id, ``status`` as Flower tells it ("started" without ``wait``), ``folder`` of the result at the server
    """
    connect(plan.folder, plan.settings.superlink, plan.root_certificates)
    prepare_run(plan.folder, run_config(plan))
    run = str(ask(plan.folder, *command.arguments[1:])["run-id"])
    document = {"run": run, "status": "started", "folder": plan.settings.folder}
    tell(f"run {run} started; to stop it: fedclust deploy stop {plan.folder} {run}")
    if not wait:
        return document
    run_shown(flwr(plan.folder, "log", run, CONNECTION, "--stream"), show)
    while True:
        row = ask(plan.folder, "ls", CONNECTION, "--run-id", run)["runs"][0]
        if str(row["status"]).startswith("finished"):
            return {**document, "status": row["status"], "details": row["status-details"], "seconds": row["elapsed"]}
        time.sleep(PAUSE)


def status(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The SuperNodes, by client's name where this machine knows it, and the runs."""
    names = {known["node"]: client for place in (folder, folder.parent / "superlink")
             for client, known in registered(place).items()}
    _reach(folder)
    clients = [{"client": names.get(node["node-id"], ""), "node": node["node-id"], "status": node["status"],
                "online at": node["online-at"]} for node in nodes(folder) if node["status"] != "unregistered"]
    runs = [{"run": row["run-id"], "status": row["status"], "elapsed": row["elapsed"],
             "details": row["status-details"], "bytes": row["network-traffic"]["total-bytes"]}
            for row in ask(folder, *listing(folder).arguments[1:])["runs"]]
    return {"clients": sorted(clients, key=lambda row: row["client"]), "runs": runs}


def listing(folder: Path) -> Command:
    """``flwr ls``, as :func:`status` asks it."""
    _superlink_of(folder)
    return flwr(folder, "ls", CONNECTION)


def stop(folder: Path, run: int) -> dict[str, Any]:
    """Stop a run."""
    _reach(folder)
    ask(folder, *stopping(folder, run).arguments[1:])
    return {"run": run, "status": "stopped"}


def stopping(folder: Path, run: int) -> Command:
    """``flwr stop``."""
    _superlink_of(folder)
    return flwr(folder, "stop", str(run), CONNECTION)


def _superlink_of(folder: Path) -> tuple[str, Path]:
    settings = read_run(folder) if (folder / "run.yaml").is_file() else read_superlink(folder)
    return address_of(folder, settings)


def _reach(folder: Path) -> None:
    """Make the folder's SuperLink known to ``flwr``, and see that it answers."""
    address, root = _superlink_of(folder)
    check_server_side(address, root, needed=True)
    connect(folder, address, root)
