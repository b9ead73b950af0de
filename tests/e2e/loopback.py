"""A federation on this machine for the tests: a SuperLink and SuperNodes with TLS and keys, from a kit."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from fedclust.config import FederationConfig
from fedclust.deploy import commands, kit, registration
from fedclust.deploy.settings import SuperLinkSettings, read_superlink, read_supernode
from fedclust.processes import end
from fedclust.state import Checkpoint, FederationResult
from simulations.engines.ray import APP
from tests.processes import commands_below


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what: Callable[[], Any], seconds: float, name: str) -> Any:
    """What ``what`` gives, once that is true; AssertionError with ``name`` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"{name}: not within {seconds:g} s"
        time.sleep(0.1)
    return found


class Loopback:
    """One SuperLink, SuperNodes that are started and killed by name, and `flwr run`; use :func:`loopback`.

    Parameters
    ----------
    root : folder of the kit that is made
    clients : whose keys the SuperLink lists

    Attributes
    ----------
    data, files : where each client's samples are, and a folder with a file for each, for who starts it to fill in
    """

    def __init__(self, root: Path, clients: list[str]) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.kit = kit.init(root / "kit", "127.0.0.1", clients, names=["localhost"], port=self.port)
        self.logs = root / "logs"
        self.logs.mkdir()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.data: dict[str, str] = {}
        self.files = root

    def start(self, name: str, command: commands.Command) -> subprocess.Popen[bytes]:
        """Start a command under a name; what it writes goes to the log of that name."""
        with (self.logs / f"{name}.log").open("a") as log:
            self.processes[name] = command.start(stdout=log, stderr=log)
        return self.processes[name]

    def log(self, name: str) -> str:
        """What the command of that name wrote so far."""
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def superlink(self) -> None:
        """Start the SuperLink and register the clients' keys."""
        folder = self.kit.superlink
        settings: SuperLinkSettings = read_superlink(folder)
        self.start("superlink", commands.superlink(folder, settings))
        wait_for(lambda: "running on https" in self.log("superlink"), 60, "the SuperLink")
        for at in (folder, self.kit.run):
            commands.connect(at, self.address, folder / "ca.crt")
        registration.synchronise(folder, lambda line: None)

    def supernode(self, client: str, data: str, *, folder: Path | None = None, ca: Path | None = None,
                  name: str | None = None) -> None:
        """Start a client's SuperNode, without waiting for it."""
        folder = folder or self.kit.supernode(client)
        settings = read_supernode(folder).model_copy(update={"port": free_port(), "superlink": self.address})
        command = commands.supernode(folder, settings, data, root_certificates=ca or folder / "ca.crt")
        self.start(name or client, command)

    def supervised(self, client: str, data: str) -> None:
        """Start a client's SuperNode with `fedclust deploy supernode`, which starts it again while it is refused."""
        command = [sys.executable, "-c", "from simulations.cli import main; main()", "deploy", "supernode",
                   str(self.kit.supernode(client)), "--data", data, "--superlink", self.address,
                   "--port", str(free_port())]
        self.start(client, commands.Command(command, {}, Path(__file__).parents[2]))

    def registered(self, *clients: str) -> None:
        """Wait until these SuperNodes are let in."""
        for client in clients:
            wait_for(lambda c=client: "SuperNode ID" in self.log(c), 90, f"SuperNode {client}: {self.log(client)}")

    def run(self, config: FederationConfig, n: int, folder: Path) -> None:
        """`flwr run`; it returns once the run is submitted."""
        settings: dict[str, str | int] = {"config": config.model_dump_json(), "clients": n, "folder": str(folder)}
        commands.prepare_run(self.kit.run, settings)
        told = commands.run(self.kit.run, APP).output("--format", "json")
        assert "{" in told, told
        assert json.loads(told[told.index("{"):])["success"], told

    def result(self, folder: Path, seconds: float) -> FederationResult:
        """The result of the run that writes to ``folder``; what stopped it is raised."""
        def look() -> bool:
            assert not (folder / "error.json").exists(), (folder / "error.json").read_text()
            return (folder / "result-0.safetensors").exists()

        wait_for(look, seconds, f"the result; {self.log('superlink')[-3000:]}")
        return FederationResult.load(folder / "result-0.safetensors")

    def kill(self, name: str) -> None:
        """SIGKILL to a process and all its descendants: what a power cut leaves of it."""
        process = self.processes.pop(name)
        for p in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            with suppress(psutil.NoSuchProcess):
                p.send_signal(signal.SIGKILL)
        process.wait()

    def kill_server_app(self) -> None:
        """SIGKILL to the ServerApp, while the SuperLink lives on."""
        family = commands_below(self.processes["superlink"].pid)
        apps = [p for p, command in family.items() if any("flwr-serverapp" in part for part in command[:3])]
        assert len(apps) == 1, apps
        apps[0].kill()

    def end(self) -> None:
        """End everything that was started."""
        # looked up first: when a parent has gone its children are nobody's
        family = [p for process in self.processes.values() for p in commands_below(process.pid)]
        for process in self.processes.values():
            process.terminate()  # all at once: a SuperNode takes 5 s to say goodbye
        for process in reversed(self.processes.values()):
            end(process)
        for p in family:
            with suppress(psutil.NoSuchProcess):
                p.kill()


def rounds_done(folder: Path, config: FederationConfig) -> int:
    """Rounds of the checkpoint in ``folder``."""
    held = Checkpoint.load(folder / "checkpoint-0.safetensors", config.resolved().fingerprint())
    return len(held.history.rounds) if held else 0


@contextmanager
def loopback(root: Path, clients: list[str]) -> Iterator[Loopback]:
    """A running SuperLink that lists these clients; at the end every process that was started is gone."""
    here = Loopback(root, clients)
    try:
        here.superlink()
        yield here
    finally:
        here.end()


