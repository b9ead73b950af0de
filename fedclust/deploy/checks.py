"""What is checked before a command starts: each check raises InputError with the mend, or tells what it found."""

from __future__ import annotations

import errno
import http.client
import importlib.metadata
import json
import socket
import ssl
import stat
import sys
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fedclust.deploy.certificates import (
    check_server,
    public_line,
    read_certificate,
    read_private_key,
    read_public_key,
)
from fedclust.deploy.settings import SuperLinkSettings, SuperNodeSettings, address
from graphclust.graph import InputError

SOON = 30
"""Days before its end that a certificate is warned of."""
WAIT = 5.0
"""Seconds that the SuperLink may take to answer."""
AHEAD, BEHIND = 10.0, 300.0
"""Seconds that a client's clock may be ahead of and behind the server's: its requests are signed with the time, and
Flower takes those of the next 5 s and the last 305 s. The server tells its time in whole seconds, a busy one late."""


def check_superlink(folder: Path, settings: SuperLinkSettings) -> list[str]:
    """All that a SuperLink needs; what was found, a line each."""
    authority, certificate = read_certificate(folder / "ca.crt"), read_certificate(folder / "server.crt")
    found = [_days(check_server(certificate, authority, "localhost", str(folder / "server.crt")))]
    _check_private(folder / "server.key")
    try:
        key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), None)
    except (ValueError, TypeError) as e:
        raise InputError(f"{folder / 'server.key'} is no private key ({e}); make one: fedclust deploy renew DIR") from e
    if key.public_key() != certificate.public_key():
        raise InputError(f"{folder / 'server.key'} does not belong to server.crt; copy both from the kit again, or "
                         "renew both with: fedclust deploy renew DIR")
    keys = listed_keys(folder)
    _check_port(settings.host, settings.port, "SuperLink")
    found.append(f"keys: {len(keys)} clients listed: {', '.join(keys)}")
    found.append(f"port {settings.port} of {settings.host} is free")
    if settings.host not in ("127.0.0.1", "::1", "localhost"):
        found.append(f"warning: host = {settings.host}: whoever reaches port {settings.port} can start runs, which is "
                     "to run code on every client; let nginx.conf or nftables.conf of this folder stand before it")
    return found


def listed_keys(folder: Path) -> dict[str, bytes]:
    """The clients' public keys in a SuperLink's folder; InputError for none, a broken one, or one key twice."""
    keys = {p.stem: read_public_key(p) for p in sorted((folder / "keys").glob("*.pub"))}
    if not keys:
        raise InputError(f"{folder / 'keys'} holds no client's key; add one with: fedclust deploy add-client DIR NAME")
    owners: dict[bytes, str] = {}
    for client, key in keys.items():
        if key in owners:
            raise InputError(f"clients {owners[key]!r} and {client!r} have one key; every client needs its own: remove "
                             "one and add it anew")
        owners[key] = client
    return keys


def check_supernode(folder: Path, settings: SuperNodeSettings, root_certificates: Path) -> list[str]:
    """All that a SuperNode needs but its data; what was found, a line each."""
    key = read_private_key(folder / "key") if (folder / "key").is_file() else None
    if key is None:
        raise InputError(f"{folder / 'key'} is missing; put the client's private key there (its public half is the "
                         "server's already), or add the client anew")
    _check_private(folder / "key")
    mine = b" ".join(public_line(key).split()[:2])
    if (folder / "key.pub").is_file() and read_public_key(folder / "key.pub") != mine:
        raise InputError(f"{folder / 'key.pub'} does not belong to {folder / 'key'}; the server would refuse this "
                         "client: copy both from one kit")
    found = ["key: private"]
    # in the operator's own kit the server's list lies beside
    lists = folder.absolute().parents[1] / "superlink"
    if (lists / "keys").is_dir():
        if mine not in listed_keys(lists).values():
            raise InputError(f"the key of {settings.client!r} is not listed in {lists / 'keys'}; the server would "
                             f"refuse it: copy {folder / 'key.pub'} there as {settings.client}.pub, and register it")
        found.append("key: listed at the server")
    _check_port("127.0.0.1", settings.port, "SuperNode")
    found.append(f"port {settings.port} of 127.0.0.1 is free")
    return [*found, *check_server_side(settings.superlink, root_certificates, signed=True)]


def check_server_side(
    superlink: str, root_certificates: Path, *, needed: bool = False, signed: bool = False
) -> list[str]:
    """Who answers at ``superlink``: its certificate, its version of Flower.

    Parameters
    ----------
    superlink : host:port
    root_certificates : the authority
    needed : nobody there is an error, and not only told
    signed : for a SuperNode, whose requests are refused when its clock differs from the server's

    Raises
    ------
    InputError
        A certificate that is not for this name, has expired, or is another authority's; no TLS; another version;
        another time.
    """
    host, port = address(superlink)
    authority = read_certificate(root_certificates)
    try:
        reply = _ask(host, port, root_certificates)
    except ssl.SSLCertVerificationError as e:
        presented = x509.load_pem_x509_certificate(ssl.get_server_certificate((host, port), timeout=WAIT).encode())
        check_server(presented, authority, host, f"of {superlink}")
        raise InputError(f"the certificate of {superlink} is refused: {e.verify_message}; take ca.crt from the kit "
                         "that the server's certificate comes from") from e
    except ssl.SSLError as e:
        raise InputError(f"{superlink} does not speak TLS ({e.reason}); start it with fedclust deploy superlink, which "
                         "does, and mind the port") from e
    except OSError as e:
        return _nobody(superlink, str(e.strerror or e), needed)
    if reply.status in _GATEWAY:
        return _nobody(superlink, f"what stands before the SuperLink answers {reply.status}", needed)
    if signed and reply.ahead is not None and not -BEHIND <= reply.ahead <= AHEAD:
        side = "ahead of" if reply.ahead > 0 else "behind"
        raise InputError(f"this machine's clock is {abs(reply.ahead):.0f} s {side} that of {superlink}, which refuses "
                         "what is signed at another time; set both by the network: timedatectl set-ntp true")
    mine = importlib.metadata.version("flwr")
    if reply.version is None:
        return [f"note: {superlink} does not tell its version of Flower; here it is {mine}"]
    if reply.version.split(".")[:2] != mine.split(".")[:2]:
        raise InputError(f"Flower is {mine} here and {reply.version} at {superlink}; install the same major and minor "
                         f"version on both sides: pip install 'flwr=={reply.version}'")
    return [f"server: {superlink} answers over TLS, its certificate is good, Flower {reply.version} there and {mine} "
            "here"]


def _nobody(superlink: str, reason: str, needed: bool) -> list[str]:
    told = f"nobody answers at {superlink} ({reason})"
    if needed:
        raise InputError(f"{told}; start the SuperLink, and mind address and firewall")
    return [f"note: {told} yet"]


def check_data(client: str, data: str, folder: Path) -> tuple[str, str]:
    """What ``--data`` names, as the SuperNode passes it on, and what was found there.

    Parameters
    ----------
    client : whose data they are
    data : folder of npz and csv files, module:function, or scenario:NAME:CLIENT
    folder : of the SuperNode, where modules are looked for first

    Raises
    ------
    InputError
        Nothing there, or nothing that a client could train on.
    """
    kind, colon, rest = data.partition(":")
    if colon and kind == "scenario":
        name, _, served = rest.rpartition(":")
        if not name or not served:
            raise InputError(f"data = {data!r} is not of the form scenario:NAME:CLIENT; as in "
                             "scenario:digits-3shift:client-0000")
        return data, f"data: client {served} of the scenario {name}, for a trial"
    place = Path(data).expanduser().absolute()
    passed_on = data if colon and not place.exists() else str(place)
    if passed_on != data or not colon:
        _check_folder(place)
    from fedclust.deploy.clients import own_client  # torch and all, which the other checks need not wait for

    before = sys.path[:]
    sys.path.insert(0, str(folder.absolute()))
    try:
        mine = own_client(client, passed_on, _any_classes())
    finally:
        sys.path[:] = before
    n = len(mine.train) + len(mine.test) + len(mine.validation)
    return passed_on, f"data: {n} labelled samples of {passed_on}"


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"data = {str(folder)!r} is no folder; give one of .npz and .csv files, or module:function")
    if not any(p.suffix in (".npz", ".csv") for p in folder.iterdir()):
        raise InputError(f"data = {str(folder)!r} holds no .npz and no .csv file; put labelled samples there")


def _any_classes() -> Any:
    """A config that data of any number of classes fit; the run's own is not known before it starts."""
    from fedclust.config import FederationConfig

    return FederationConfig.model_validate({"algorithm": "local", "federation": {
        "source": "own", "n_clients": 1, "partition": {"kind": "files", "n_classes": 2**31}}})


def _check_private(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() else 0
    if mode & 0o077:
        raise InputError(f"{path} can be read by others (mode {mode:03o}); run: chmod 600 {path} - and if others may "
                         "have read it, make a new one")


def _check_port(host: str, port: int, what: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                raise InputError(f"port {port} of {host} is in use; end what listens there (ss -ltnp shows it), or "
                                 f"give this {what} another one with --port") from e
            raise InputError(f"port {port} of {host} cannot be had ({e.strerror or e}); give a host of this machine, "
                             "and a port above 1023 unless you are root") from e


_GATEWAY = (502, 503, 504)


class _Reply(NamedTuple):
    """What a server tells of itself: HTTP status, version of Flower, seconds that this machine's clock is ahead."""

    status: int
    version: str | None
    ahead: float | None


def _ask(host: str, port: int, root_certificates: Path) -> _Reply:
    context = ssl.create_default_context(cafile=str(root_certificates))
    connection = http.client.HTTPSConnection(host, port, timeout=WAIT, context=context)
    try:
        connection.request("GET", "/openapi.json")
        reply = connection.getresponse()
        told, body = reply.headers["Date"], reply.read()
    except http.client.HTTPException:
        return _Reply(0, None, None)
    finally:
        connection.close()
    try:
        ahead = (datetime.now(UTC) - parsedate_to_datetime(told)).total_seconds()
    except (TypeError, ValueError):
        ahead = None
    try:
        return _Reply(reply.status, str(json.loads(body)["info"]["version"]) if reply.status == 200 else None, ahead)
    except (KeyError, TypeError, json.JSONDecodeError):  # no broader: a refused certificate is a ValueError too
        return _Reply(reply.status, None, ahead)


def _days(left: int) -> str:
    told = f"certificate: good for another {left} days"
    return f"warning: {told}; renew it with fedclust deploy renew DIR" if left < SOON else told
