"""What each role's YAML file in a deployment kit says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fedclust.privacy import SecureAggregation
from graphclust.config_file import read_model
from graphclust.graph import InputError

Port = Annotated[int, Field(ge=1, le=65535)]
Threads = Annotated[int, Field(ge=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuperLinkSettings(_Settings):
    """superlink.yaml.

    Parameters
    ----------
    host, port : where the SuperLink listens
    threads : of every process that it starts
    """

    host: str = "127.0.0.1"
    port: Port = 8443
    threads: Threads = 1


class SuperNodeSettings(_Settings):
    """supernode.yaml.

    Parameters
    ----------
    client : the client's name, the same in every run
    superlink : host:port
    data : a folder, module:function, or scenario:NAME:CLIENT; None: told by --data
    port : of the SuperNode's own processes, on loopback; every SuperNode of one machine has its own
    threads : of every process that it starts
    trusted_entities : YAML with the keys that an app must be signed with; None: any app of the SuperLink is run
    """

    client: str
    superlink: str
    data: str | None = None
    port: Port = 9094
    threads: Threads = 1
    trusted_entities: Path | None = None


class RunSettings(_Settings):
    """run.yaml.

    Parameters
    ----------
    superlink : host:port
    root_certificates, config : the authority's certificate and the federation's config, beside this file
    folder : where the server writes checkpoint and result, relative to the SuperLink's folder, or absolute there
    secure_aggregation : refused when true
    """

    superlink: str
    root_certificates: Path = Path("ca.crt")
    config: Path = Path("federation.yaml")
    folder: str = "runs/first"
    secure_aggregation: SecureAggregation = False


def read_superlink(folder: Path) -> SuperLinkSettings:
    """superlink.yaml of a SuperLink's folder."""
    return read_model(_file(folder, "superlink.yaml"), SuperLinkSettings)


def read_supernode(folder: Path) -> SuperNodeSettings:
    """supernode.yaml of a SuperNode's folder."""
    return read_model(_file(folder, "supernode.yaml"), SuperNodeSettings)


def read_run(folder: Path) -> RunSettings:
    """run.yaml of the operator's folder."""
    return read_model(_file(folder, "run.yaml"), RunSettings)


def address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[IPv6]:port``; InputError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 1 <= int(port) <= 65535 or "/" in host:
        raise InputError(f"{text!r} is not of the form host:port; give the SuperLink as in fed.example.org:8443")
    return host.strip("[]"), int(port)


def join(host: str, port: int) -> str:
    """host:port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise InputError(f"{folder} has no {name}; give the folder that fedclust deploy init made for this role")
    return folder / name
