"""Clients that are away or late in a simulation: what a config says about it, and the trace that it may name.

A trace is a CSV file with the columns ``client``, ``first``, ``last`` and ``event`` (others are not read): the client
drops out of the rounds first..last, or is late in them. It can be written from the log of a real federation.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from graphclust.graph import InputError

DROPOUT, STRAGGLER = "dropout", "straggler"
DROPPED, LATE = "dropped out (simulated event)", "too late (simulated event)"
"""Why such a client gave nothing: what the history has as the reason."""
COLUMNS = ("client", "first", "last", "event")


class Absence(NamedTuple):
    """One row of a trace: what happens to a client in the rounds first..last, and the line that says so."""

    client: str
    first: int
    last: int
    event: str
    line: int


class Events(BaseModel):
    """What happens to training clients in a simulation (:mod:`simulations.events`); nothing by default.

    Each asked client draws for itself, by the seed, its id and the round: neither engine nor the others play a part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a client that is asked never starts: it does not answer, and remembers what it did before."""
    straggler: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a client that starts is late: its reply is void, but it remembers the round."""
    trace: str | None = None
    """CSV of what happens besides; the path, relative to the current folder, is kept as an absolute one."""
    trace_hash: Annotated[str | None, Field(validate_default=True)] = None
    """Of the trace's rows in any order, filled in when the trace is first read; the run refuses another content."""

    @field_validator("trace")
    @classmethod
    def _absolute(cls, trace: str | None) -> str | None:
        return None if trace is None else str(Path(trace).resolve())

    @field_validator("trace_hash")
    @classmethod
    def _of_the_rows(cls, held: str | None, info: ValidationInfo) -> str | None:
        # with a hash the file is not looked for: records are read, and clients are sent the config, where it is not
        trace = info.data.get("trace")
        return None if trace is None else held or _hash(read_trace(Path(trace)))

    def rows(self) -> list[Absence]:
        """The rows of the trace; none without one.

        Raises
        ------
        InputError
            The file is gone, or is not what it was when the config was made.
        """
        if self.trace is None:
            return []
        rows = read_trace(Path(self.trace))
        if _hash(rows) != self.trace_hash:
            raise InputError(f"events.trace = {self.trace}: its rows are not those that the config was made with "
                             f"(events.trace_hash = {self.trace_hash}, now {_hash(rows)}); bring the old file back, or "
                             "leave trace_hash out and start a new run")
        return rows


def read_trace(path: Path) -> list[Absence]:
    """The rows of a trace.

    Raises
    ------
    InputError
        No such file, missing columns, or, with its line: an empty client, an unknown event, rounds that are no whole
        numbers from 0, last < first, or another event than an earlier line gives the same client in the same round.
    """
    if not path.is_file():
        raise InputError(f"events.trace = {path}: no such file; give a CSV with the columns {', '.join(COLUMNS)}")
    with path.open(encoding="utf-8-sig", newline="") as f:
        table = csv.DictReader(f, skipinitialspace=True)
        missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise InputError(f"{path}, line 1: the columns {', '.join(missing)} are missing; a trace has the columns "
                             f"{', '.join(COLUMNS)}")
        rows = [_row(path, table.line_num, row) for row in table]
    _check_overlaps(path, rows)
    return rows


def _row(path: Path, line: int, row: Mapping[str, str | None]) -> Absence:
    client, first, last, event = ((row[name] or "").strip() for name in COLUMNS)
    where = f"{path}, line {line}"
    if not client:
        raise InputError(f"{where}: no client is named; give the id of a training client")
    if event not in (DROPOUT, STRAGGLER):
        raise InputError(f"{where}: event = {event!r}; give {DROPOUT} or {STRAGGLER}")
    for name, value in (("first", first), ("last", last)):
        if not (value.isascii() and value.isdigit()):
            raise InputError(f"{where}: {name} = {value!r}; give a round, a whole number from 0")
    if int(last) < int(first):
        raise InputError(f"{where}: last = {last} is before first = {first}; the event holds in the rounds first..last")
    return Absence(client, int(first), int(last), event, line)


def _check_overlaps(path: Path, rows: list[Absence]) -> None:
    """InputError where a client is to drop out of a round and to be late in it."""
    reach: dict[tuple[str, str], Absence] = {}  # of a client's rows with an event so far the one that ends last
    for row in sorted(rows):
        other = reach.get((row.client, STRAGGLER if row.event == DROPOUT else DROPOUT))
        if other is not None and other.last >= row.first:
            one, two = sorted((other, row), key=lambda r: r.line)
            raise InputError(f"{path}, line {two.line}: client {row.client!r} has {two.event} in round {row.first}, "
                             f"and {one.event} by line {one.line}; give one event a round")
        own = reach.get((row.client, row.event))
        if own is None or own.last < row.last:
            reach[row.client, row.event] = row


def _hash(rows: list[Absence]) -> str:
    content = sorted({row[:-1] for row in rows})
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
