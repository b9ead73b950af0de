"""The clients' public keys at a running SuperLink, through ``flwr supernode``: which are there, and making it so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedclust.deploy.checks import listed_keys
from fedclust.deploy.commands import CONNECTION, flower_home, flwr
from graphclust.atomic import write_atomic
from graphclust.graph import InputError

IN_USE = "already in use"
"""What Flower answers to a key that it knows."""
_LET_THROUGH = ("what stands before the SuperLink does not let this machine through: put its address at OPERATOR in "
                "nginx.conf there, and reload nginx")


def synchronise(folder: Path, tell: Callable[[str], None]) -> None:
    """Register the keys in ``keys/`` and forget those that are gone; does nothing when all is as it should be.

    Parameters
    ----------
    folder : of the SuperLink, which runs and which :func:`fedclust.deploy.commands.connect` made known there
    tell : called with a line for every change

    Raises
    ------
    InputError
        The SuperLink does not answer, or refuses a key: Flower never takes one again that was unregistered. The other
        keys are registered before that is raised.
    """
    wanted = {client: key.decode() for client, key in listed_keys(folder).items()}
    there = {node["node-id"] for node in nodes(folder) if node["status"] != "unregistered"}
    held = {client: known for client, known in registered(folder).items() if known["node"] in there}
    for client, known in list(held.items()):
        if wanted.get(client) != known["key"]:
            ask(folder, "supernode", "unregister", known["node"], CONNECTION)
            tell(f"{client}: no longer listed, unregistered")
            del held[client]
            _keep(folder, held)
            write_atomic(_retired(folder), json.dumps([*retired(folder), known["key"]], indent=1))
    again = []
    for client in sorted(set(wanted) - set(held)):
        key = folder / "keys" / f"{client}.pub"
        try:
            reply = ask(folder, "supernode", "register", str(key), CONNECTION, "--name", client)
        except InputError as e:
            if IN_USE not in str(e):
                raise
            if wanted[client] in retired(folder):
                again.append(client)
            else:
                tell(f"{client}: the SuperLink knows its key already")
            continue
        held[client] = {"node": str(reply["node-id"]), "key": wanted[client]}
        _keep(folder, held)
        tell(f"{client}: registered")
    if again:
        raise InputError(f"the key of {again[0]!r} was unregistered before, and Flower takes none a second time; "
                         f"give the client a new one: fedclust deploy remove-client DIR {again[0]}, then add-client")


def registered(folder: Path) -> dict[str, dict[str, str]]:
    """Node id and key of the clients that were registered from this folder, by name."""
    file = _file(folder)
    return json.loads(file.read_text()) if file.is_file() else {}


def retired(folder: Path) -> list[str]:
    """The keys that were unregistered from this folder."""
    file = _retired(folder)
    return json.loads(file.read_text()) if file.is_file() else []


def nodes(folder: Path) -> list[dict[str, Any]]:
    """The SuperNodes that the SuperLink knows, as ``flwr supernode ls`` lists them."""
    return list(ask(folder, "supernode", "ls", CONNECTION)["nodes"])


def ask(folder: Path, *arguments: str) -> dict[str, Any]:
    """The JSON that a command of ``flwr`` answers with; InputError when it fails."""
    told = flwr(folder, *arguments, "--format", "json").output()
    try:
        reply = json.loads(told[told.index("{"):])
    except ValueError:
        reply = {}
    if not reply.get("success"):
        lines = [line.strip() for line in str(reply.get("error-message", told)).splitlines()]
        reason = next((line for line in reversed(lines) if line and not line.startswith("For more information")),
                      "no answer")
        mend = _LET_THROUGH if "'403 " in reason else "is the SuperLink up, and is this machine let through to it?"
        raise InputError(f"flwr {' '.join(arguments)}: {reason}; {mend}")
    return reply


def _keep(folder: Path, held: dict[str, dict[str, str]]) -> None:
    write_atomic(_file(folder), json.dumps(held, indent=1))


def _retired(folder: Path) -> Path:
    return flower_home(folder) / "retired.json"


def _file(folder: Path) -> Path:
    return flower_home(folder) / "registered.json"
