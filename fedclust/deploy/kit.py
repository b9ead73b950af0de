"""The deployment kit: a folder with all that each machine of a federation needs, and what may not leave the operator.

::

    ca/                  the authority; stays with the operator
    superlink/           for the server's machine: certificate, key, the clients' public keys, settings, units
    supernodes/<client>/ for each client's machine: its own key, the authority's certificate, settings, units
    run/                 for who starts runs: the federation's config, no secret
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedclust.deploy.certificates import (
    certificate_names,
    key_pair,
    new_authority,
    read_authority,
    read_certificate,
    read_public_key,
    server_certificate,
)
from fedclust.deploy.settings import address, join, read_run, read_supernode
from graphclust.atomic import write_atomic
from graphclust.graph import InputError

PRIVATE = 0o600
FIRST_PORT = 9094
"""Port on loopback of a machine's first SuperNode."""
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), undefined=StrictUndefined,
    keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True, autoescape=False,
)


@dataclass(frozen=True)
class Kit:
    """A kit on disk."""

    root: Path

    @property
    def authority(self) -> Path:
        """The authority's folder."""
        return self.root / "ca"

    @property
    def superlink(self) -> Path:
        """The server's folder."""
        return self.root / "superlink"

    @property
    def run(self) -> Path:
        """The folder of who starts runs."""
        return self.root / "run"

    @property
    def clients(self) -> list[str]:
        """The clients whose keys the server is given, sorted."""
        return sorted(p.stem for p in (self.superlink / "keys").glob("*.pub"))

    def supernode(self, client: str) -> Path:
        """A client's folder."""
        return self.root / "supernodes" / client

    def public_key(self, client: str) -> Path:
        """A client's public key, as the server has it."""
        return self.superlink / "keys" / f"{client}.pub"


def init(
    root: Path, server_name: str, clients: Sequence[str], *, names: Sequence[str] = (), port: int = 8443,
    days: int = 825,
) -> Kit:
    """Write a kit.

    Parameters
    ----------
    root : made here; may exist when it is empty
    server_name : host name or IP address that the SuperNodes call
    clients : their names: letters, digits, ``.``, ``_`` and ``-``
    names : further names of the server, for its certificate
    port : of the server
    days : that the server's certificate is valid

    Raises
    ------
    InputError
        ``root`` holds something; names that cannot be; no client or one twice.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not empty; name a folder that is not there yet, or change this kit "
                         "with fedclust deploy add-client, remove-client or renew")
    if not clients:
        raise InputError("clients: none; give their names, as in --clients amber,birch,cedar")
    twice = sorted({c for c in clients if clients.count(c) > 1})
    if twice:
        raise InputError(f"clients: {twice[0]!r} is there twice; every client has a name of its own")
    for client in clients:
        _check_name(client)
    authority = new_authority()
    server = server_certificate(authority, [server_name, *names], days)
    superlink = join(*address(join(server_name, port)))
    with _filled(root) as folder:
        kit = Kit(folder)
        write_atomic(kit.authority / "ca.crt", authority.certificate_pem)
        write_atomic(kit.authority / "ca.key", authority.key_pem, mode=PRIVATE)
        write_atomic(kit.superlink / "ca.crt", authority.certificate_pem)
        write_atomic(kit.superlink / "server.crt", server.certificate_pem)
        write_atomic(kit.superlink / "server.key", server.key_pem, mode=PRIVATE)
        about = {"server_name": server_name, "superlink": superlink, "port": port, "clients": list(clients)}
        _render(kit.superlink, "superlink", about)
        write_atomic(kit.run / "ca.crt", authority.certificate_pem)
        _render(kit.run, "run", about)
        _render(kit.root, "kit", about)
        for i, client in enumerate(clients):
            _add(kit, client, superlink, FIRST_PORT + i, None)
    return Kit(root)


def open_kit(root: Path) -> Kit:
    """The kit in a folder; InputError when there is none."""
    if not (root / "ca" / "ca.crt").is_file() or not (root / "superlink" / "keys").is_dir():
        raise InputError(f"{root} is no deployment kit; give the folder that fedclust deploy init made")
    return Kit(root)


def add_client(root: Path, client: str, *, public_key: Path | None = None) -> Kit:
    """Add a client: its folder, and its public key to the server's.

    Parameters
    ----------
    root : of the kit
    client : its name
    public_key : made by the client itself, whose private key then never leaves its machine; None: a pair is made
    """
    kit = open_kit(root)
    _check_name(client)
    if client in kit.clients or kit.supernode(client).exists():
        raise InputError(f"client {client!r} is in {root} already; take another name, or remove it first")
    ports = [read_supernode(kit.supernode(c)).port for c in kit.clients if kit.supernode(c).exists()]
    _add(kit, client, read_run(kit.run).superlink, max(ports, default=FIRST_PORT - 1) + 1, public_key)
    _count(kit)
    return kit


def remove_client(root: Path, client: str) -> Kit:
    """Remove a client: its folder with its key, and its public key from the server's."""
    kit = open_kit(root)
    if client not in kit.clients:
        raise InputError(f"client {client!r} is not in {root}; it has {', '.join(kit.clients) or 'none'}")
    kit.public_key(client).unlink()
    shutil.rmtree(kit.supernode(client), ignore_errors=True)
    _count(kit)
    return kit


def renew(root: Path, *, names: Sequence[str] = (), days: int = 825) -> Kit:
    """A new certificate and key for the server, under the names that it has and ``names``; the clients keep theirs."""
    kit = open_kit(root)
    held = certificate_names(read_certificate(kit.superlink / "server.crt"))
    called = address(read_run(kit.run).superlink)[0]
    server = server_certificate(read_authority(kit.authority), [called, *held, *names], days)
    write_atomic(kit.superlink / "server.key", server.key_pem, mode=PRIVATE)
    write_atomic(kit.superlink / "server.crt", server.certificate_pem)
    return kit


def _add(kit: Kit, client: str, superlink: str, port: int, public_key: Path | None) -> None:
    if public_key is None:
        private, public = key_pair(client)
    else:
        private, public = None, read_public_key(public_key) + b" " + client.encode() + b"\n"
    with _filled(kit.supernode(client)) as folder:
        write_atomic(folder / "ca.crt", (kit.authority / "ca.crt").read_bytes())
        if private is not None:
            write_atomic(folder / "key", private, mode=PRIVATE)
        write_atomic(folder / "key.pub", public)
        _render(folder, "supernode", {"client": client, "superlink": superlink, "port": port})
    write_atomic(kit.public_key(client), public)


def _count(kit: Kit) -> None:
    """Tell the federation's config how many clients there are; its comments stay."""
    file = kit.run / "federation.yaml"
    text, found = re.subn(r"(?m)^(\s*n_clients:\s*)\d+", rf"\g<1>{len(kit.clients)}", file.read_text())
    if not found:
        raise InputError(f"{file} has no line n_clients; write there that there are {len(kit.clients)} clients")
    write_atomic(file, text)


def _check_name(client: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", client):
        raise InputError(f"client {client!r}: a name has 1 to 64 letters, digits, '.', '_' or '-', and begins with a "
                         "letter or digit")


def _render(folder: Path, role: str, about: dict[str, Any]) -> None:
    """Write every template of a role."""
    for name in _TEMPLATES.list_templates(filter_func=lambda n: n.startswith(f"{role}/")):
        write_atomic(folder / Path(name).name.removesuffix(".j2"), _TEMPLATES.get_template(name).render(about))


@contextmanager
def _filled(folder: Path) -> Iterator[Path]:
    """A folder that is there whole or not at all: filled under another name, then renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield draft
        os.replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
