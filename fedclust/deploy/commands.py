"""Flower's commands as this project calls them: arguments, environment, folder."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedclust.deploy.settings import RunSettings, SuperLinkSettings, SuperNodeSettings, join
from fedclust.processes import program, variables
from graphclust.atomic import write_atomic
from graphclust.graph import InputError

CONNECTION = "kit"
"""The SuperLink's name in the configuration of the ``flwr`` command."""


@dataclass(frozen=True)
class Command:
    """One command: its arguments, the variables set for it, the folder it runs in."""

    arguments: list[str]
    environment: dict[str, str]
    folder: Path

    @property
    def line(self) -> str:
        """What a shell takes."""
        settings = [f"{name}={value}" for name, value in self.environment.items()]
        return f"cd {shlex.quote(str(self.folder))} && {shlex.join(['env', *settings, *self.arguments])}"

    def start(self, **options: Any) -> subprocess.Popen[bytes]:
        """Start it in a session of its own, so that signals of the terminal reach it through us only."""
        return subprocess.Popen(self.arguments, env={**os.environ, **self.environment}, cwd=self.folder,
                                start_new_session=True, **options)

    def output(self, *further: str) -> str:
        """Run it to its end, with further arguments; what it wrote to stdout and stderr."""
        done = subprocess.run([*self.arguments, *further], env={**os.environ, **self.environment}, cwd=self.folder,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.stdout.decode(errors="replace")


def flower_home(folder: Path) -> Path:
    """Where Flower writes, in a role's folder."""
    return folder / "flwr"


def superlink(folder: Path, settings: SuperLinkSettings) -> Command:
    """``flower-superlink`` with TLS, for registered SuperNodes only, on a database that outlives it."""
    home = flower_home(folder)
    return Command([
        program("flower-superlink"), "--host", settings.host, "--port", str(settings.port),
        "--ssl-ca-certfile", str(folder / "ca.crt"), "--ssl-certfile", str(folder / "server.crt"),
        "--ssl-keyfile", str(folder / "server.key"), "--enable-supernode-auth",
        "--database", str(home / "state.db"), "--disable-runtime-dependency-installation",
    ], variables(home, settings.threads), folder)


def supernode(folder: Path, settings: SuperNodeSettings, data: str, *, root_certificates: Path) -> Command:
    """``flower-supernode`` with the client's key; its node config holds the client's name and where its data are."""
    held = {"client": settings.client, "data": data}
    for name, value in held.items():
        if any(c in value for c in "\"'\\\n"):
            raise InputError(f"{name} = {value!r}: Flower's node config takes no quotes, backslashes or line breaks; "
                             "give a path without them")
    arguments = [
        program("flower-supernode"), "--superlink", settings.superlink, "--root-certificates", str(root_certificates),
        "--auth-supernode-private-key", str(folder / "key"), "--host", "127.0.0.1", "--port", str(settings.port),
        "--node-config", " ".join(f'{name}="{value}"' for name, value in held.items()),
    ]
    if settings.trusted_entities is not None:
        arguments += ["--trusted-entities", str(folder / settings.trusted_entities)]
    return Command(arguments, variables(flower_home(folder), settings.threads, code=folder), folder)


def flwr(folder: Path, *arguments: str) -> Command:
    """A command of ``flwr`` on the SuperLink that :func:`connect` made known in this folder."""
    return Command([program("flwr"), *arguments], variables(flower_home(folder)), folder)


def run(folder: Path, app: Path) -> Command:
    """``flwr run`` of an app with the run config that :func:`prepare_run` writes."""
    return flwr(folder, "run", str(app), CONNECTION, "--run-config", str(flower_home(folder) / "run.toml"))


def prepare_run(folder: Path, config: Mapping[str, str | int]) -> None:
    """Write the run config."""
    # a JSON string or number is a TOML one
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in config.items())
    write_atomic(flower_home(folder) / "run.toml", text)


def connect(folder: Path, superlink: str, root_certificates: Path) -> None:
    """Make a SuperLink known to the ``flwr`` command of this folder."""
    write_atomic(flower_home(folder) / "config.toml", "".join((
        f'[superlink]\ndefault = "{CONNECTION}"\n', f"[superlink.{CONNECTION}]\n",
        f"address = {json.dumps(superlink)}\n", f"root-certificates = {json.dumps(str(root_certificates))}\n",
    )))


def own_address(settings: SuperLinkSettings) -> str:
    """Where a SuperLink is reached from its own machine."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return join(everywhere.get(settings.host, settings.host), settings.port)


def address_of(folder: Path, settings: SuperLinkSettings | RunSettings) -> tuple[str, Path]:
    """The SuperLink's address and the authority's certificate, as a role's folder has them."""
    if isinstance(settings, SuperLinkSettings):
        return own_address(settings), folder / "ca.crt"
    return settings.superlink, (folder / settings.root_certificates).absolute()
