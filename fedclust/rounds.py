"""The server's dealings with its clients: who is there, who is asked, and what of the replies can be trusted."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedclust.algorithms.base import Report
from fedclust.contract import Form, dtype_of
from fedclust.flwr_compat import messages_to
from fedclust.messages import reports
from fedclust.records import Signature, TensorRecord, pack, unpack
from fedclust.run_config import versions
from fedclust.task import stream
from graphclust.graph import InputError

log = logging.getLogger(__name__)
# Between two looks for new nodes, while clients are missing.
PAUSE = 0.2
# Seconds in which a node that appears between two rounds must say who it is.
GREETING = 120.0
UNUSABLE = "unusable reply: "
"""What the reason of a client that answered begins with."""


class RunStopped(RuntimeError):
    """The federation cannot go on; its last finished round is saved where there is a folder to save it in."""


@dataclass
class Registry:
    """The clients that answered, in the order of their own ids; a Flower node id is only an address.

    ``ids``, ``n``: training clients and their samples; ``unseen``: newcomers and their labelled samples.
    """

    ids: list[str]
    n: list[int]
    unseen: dict[str, int]
    nodes: dict[str, int]
    input_shape: tuple[int, ...]
    n_classes: int
    strangers: set[int] = field(default_factory=set)
    """Nodes that came later and were asked who they are."""


@dataclass
class Sent:
    """Messages on their way, by client; Flower names a message when it sends it, so replies are told apart later."""

    messages: dict[str, Message]

    @classmethod
    def addressed(
        cls, contents: Mapping[str, RecordDict], nodes: Mapping[str, int], kind: str, timeout: float, group: str
    ) -> Sent:
        """One message a client, to its node; a reply later than ``timeout`` seconds is void."""
        to = [nodes[client] for client in contents]
        messages = messages_to(to, list(contents.values()), kind, ttl=timeout, group_id=group)
        return cls(dict(zip(contents, messages, strict=True)))

    def sort(self, replies: Iterable[Message], timeout: float) -> tuple[dict[str, RecordDict], dict[str, str]]:
        """Replies by client, and the reason of every client without one, both in the order of the client ids.

        An error reply may name another node as its sender (a dead node's comes from the server): the message that it
        replies to tells whose it is.
        """
        answered = {r.metadata.reply_to_message_id: r for r in replies}
        contents, failures = {}, {}
        for client in sorted(self.messages):
            reply = answered.get(self.messages[client].metadata.message_id)
            if reply is None:
                failures[client] = f"no reply within {timeout:g} s"
            elif reply.has_error():
                failures[client] = _last_line(reply.error.reason) or f"Flower error code {reply.error.code}"
            else:
                contents[client] = reply.content
        return contents, failures


def exchange(grid: Grid, sent: Sent, timeout: float) -> tuple[dict[str, RecordDict], dict[str, str]]:
    """Send, wait, sort."""
    return sent.sort(grid.send_and_receive(list(sent.messages.values()), timeout=timeout), timeout)


def handshake(grid: Grid, expected: int, timeout: float, job: int = 0) -> Registry:
    """Ask every node who it is, until ``expected`` clients have answered.

    Raises
    ------
    RunStopped
        Clients are missing at the deadline, or once as many nodes as expected have answered or failed.
    InputError
        A client without usable data, or with other versions than the server; two nodes with one client id; clients that
        do not fit together; no client that trains.
    """
    deadline = time.monotonic() + timeout
    hellos: dict[int, ConfigRecord] = {}
    failures: dict[str, str] = {}
    while len(hellos) < expected:
        left = deadline - time.monotonic()
        if left <= 0 or len(hellos) + len(failures) >= expected:
            reasons = "".join(f"; {node}: {reason}" for node, reason in failures.items())
            raise RunStopped(f"{len(hellos)} of {expected} clients answered within {timeout:g} s{reasons}; "
                             "start the missing ones, raise timeout, or expect fewer")
        new = [n for n in sorted(grid.get_node_ids()) if n not in hellos and f"node {n}" not in failures]
        if not new:
            time.sleep(min(PAUSE, left))
            continue
        answers, failed = _greet(grid, new, left, job)
        failures |= failed
        hellos |= answers
    return _registry(hellos)


def find_again(grid: Grid, registry: Registry, timeout: float, job: int = 0) -> None:
    """Where a client's node is gone, see whether it came back as another one: a SuperNode without a key does."""
    known = {*registry.nodes.values()}
    online = {*grid.get_node_ids()}
    new = sorted(online - known - registry.strangers)
    if known <= online or not new:
        return
    kind = (registry.input_shape, registry.n_classes)
    registry.strangers |= {*new}  # one that does not answer now is not waited for again in every round
    for node, hello in _greet(grid, new, min(timeout, GREETING), job)[0].items():
        client = hello["id"]
        fits = client in registry.nodes and registry.nodes[client] not in online and not _problem(hello)
        if fits and (tuple(hello["input_shape"]), hello["n_classes"]) == kind:
            registry.nodes[client] = node
            log.info("client %s is back as node %d", client, node)


def _greet(grid: Grid, nodes: list[int], timeout: float, job: int) -> tuple[dict[int, Any], dict[str, str]]:
    """What each of these nodes says about its client, and the reasons of those that say nothing."""
    named = {f"node {node}": node for node in nodes}
    asked = {name: RecordDict({"settings": ConfigRecord({"job": job, "phase": "hello"})}) for name in named}
    contents, failed = exchange(grid, Sent.addressed(asked, named, "query.hello", timeout, "hello"), timeout)
    return {int(name.removeprefix("node ")): c["hello"] for name, c in contents.items()}, failed


def _problem(hello: Any) -> str | None:
    """Why this client cannot take part; None when it can."""
    theirs = tuple(hello["versions"])
    if theirs != versions():
        odd = sorted(set(theirs) ^ set(versions()))
        return (f"it runs {', '.join(theirs)}, the server {', '.join(versions())} ({odd[0].split()[0]} differs); "
                "install the same versions on both sides")
    if hello.get("problem") is None and not (isinstance(hello["n_train"], int) and hello["n_train"] > 0):
        return f"it says that it has {hello['n_train']} training samples; give it data, or leave it out"
    return hello.get("problem")


def _registry(hellos: Mapping[int, Any]) -> Registry:
    problems = [f"client {h['id']!r}: {p}" for h in hellos.values() if (p := _problem(h)) is not None]
    if problems:
        raise InputError("; ".join(sorted(problems)))
    nodes: dict[str, int] = {}
    for node, hello in hellos.items():
        if hello["id"] in nodes:
            raise InputError(f"client id {hello['id']!r} is used by nodes {nodes[hello['id']]} and {node}; "
                             "give every client an id of its own")
        nodes[hello["id"]] = node
    about = {i: hellos[nodes[i]] for i in sorted(nodes)}
    kinds = {i: (tuple(h["input_shape"]), h["n_classes"]) for i, h in about.items()}
    (most, _), *others = Counter(kinds.values()).most_common()
    if others:
        odd = next(i for i, kind in kinds.items() if kind != most)
        raise InputError(f"client {odd!r} has samples of shape {kinds[odd][0]} and {kinds[odd][1]} classes, most have "
                         f"{most[0]} and {most[1]}; mend its data or leave it out")
    trains = [i for i, h in about.items() if h["role"] == "train"]
    if not trains:
        raise InputError(f"none of the {len(about)} clients trains (role \"train\"); start at least one that does")
    return Registry(
        trains, [about[i]["n_train"] for i in trains],
        {i: h["n_train"] for i, h in about.items() if h["role"] != "train"}, nodes, *most,
    )


def select(n_clients: int, fraction: float, seed: int, round_: int) -> list[int]:
    """Positions of the clients of a round, sorted; a function of the seed and the round only."""
    count = max(1, round(fraction * n_clients))
    return torch.randperm(n_clients, generator=stream(seed, "selection", round_))[:count].sort().values.tolist()


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a reply to a message of this ``phase`` must hold, by record; replies that want the same object stack."""

    phase: str
    records: dict[str, Signature]

    @classmethod
    def of(cls, form: Form, model: Signature, phase: str) -> Wanted:
        """``model``: the signature of a model of the family that is sent."""
        arrays = tuple((name, form.arrays[name], dtype_of(name)) for name in sorted(form.arrays))
        records = {f"model-{j}": model for j in range(form.models)}
        return cls(phase, {**records, "arrays": arrays} if arrays else records)

    def problem(self, found: Mapping[str, Signature]) -> str | None:
        """What is wrong with a reply of this form; None: nothing."""
        if found == self.records:
            return None
        for record in sorted(found.keys() | self.records.keys()):
            held, wanted = ({name: (shape, dtype) for name, shape, dtype in of.get(record, ())}
                            for of in (found, self.records))
            if missing := [name for name in wanted if name not in held]:
                return f"{record} lacks {_some(missing)}"
            if unknown := [name for name in held if name not in wanted]:
                return f"{record} holds {_some(unknown)}, which nobody asked for"
            for name, (shape, dtype) in held.items():
                if shape != wanted[name][0]:
                    return f"{record}: {name} has shape {shape}, {wanted[name][0]} is asked for"
                if dtype != wanted[name][1]:
                    return f"{record}: {name} holds {dtype}, {wanted[name][1]} is asked for"
        return f"it holds {_some(sorted(found.keys() - self.records.keys()))}, which nobody asked for"


def sound_reports(
    contents: Mapping[str, RecordDict], wanted: Mapping[str, Wanted],
    broken: Callable[[list[str], Report], Mapping[int, str]] | None = None,
) -> tuple[list[tuple[list[str], Report]], dict[str, str]]:
    """The reports that may be averaged, and why the others may not. Each is judged by itself.

    Parameters
    ----------
    contents : replies by client
    wanted : what each client's reply must hold
    broken : finds those of stacked reports of these clients that break a promise (:mod:`fedclust.contract`), and how

    Returns
    -------
    clients with sound reports and these reports, stacked, one stack for every object in ``wanted``; a reason for each
    of the other clients: records of another form than wanted, NaN or inf, or a promise that is broken
    """
    there, failures = readable(contents)
    held: dict[tuple[int, int], Signature] = {}
    alike: dict[int, dict[str, RecordDict]] = {}
    for client, content in there.items():
        found = {name: _known(r, held) if isinstance(r, TensorRecord) else () for name, r in content.items()
                 if name != "metrics"}
        problem = wanted[client].problem(found)
        if problem:
            failures[client] = f"{UNUSABLE}{problem}"
        else:
            alike.setdefault(id(wanted[client]), {})[client] = content
    stacks = []
    for group in alike.values():
        clients, together = [*group], reports([*group.values()])
        bad = {**(broken(clients, together) if broken else {}), **_not_finite(together)}
        failures |= {clients[i]: f"{UNUSABLE}{reason}" for i, reason in bad.items()}
        if bad:
            kept = torch.tensor([i for i in range(len(clients)) if i not in bad], dtype=torch.long)
            clients = [clients[i] for i in kept]
            together = Report(*({name: t[kept] for name, t in of.items()} for of in (together.models, together.arrays)))
        if clients:
            stacks.append((clients, together))
    return stacks, dict(sorted(failures.items()))


def readable(contents: Mapping[str, RecordDict]) -> tuple[dict[str, RecordDict], dict[str, str]]:
    """Replies with what came as bytes turned into tensors, by client; why the others cannot be read.

    In a reply that can, ``metrics`` holds one number for each name.
    """
    found, failures = {}, {}
    for client, content in contents.items():
        try:
            found[client] = _read(content)
        except Exception as e:  # bytes of a stranger, which may fail in any way to be tensors
            failures[client] = f"{UNUSABLE}{type(e).__name__}: {e}"
            continue
        measured = content.get("metrics", MetricRecord())
        if not isinstance(measured, MetricRecord) or any([isinstance(v, list) for v in measured.values()]):
            failures[client] = f"{UNUSABLE}metrics holds something else than one number for each name"
            del found[client]
    return found, failures


def _read(content: RecordDict) -> RecordDict:
    """The content with what came as bytes turned into tensors."""
    if all([type(r) is not ArrayRecord for r in content.values()]):
        return content
    return RecordDict({name: pack(unpack(r)) if isinstance(r, ArrayRecord) else r for name, r in content.items()})


def _known(record: TensorRecord, held: dict[tuple[int, int], Signature]) -> Signature:
    """The record's signature, found once for all parts of one source."""
    key = id(record.source), len(record.at)
    if record.source is None or key not in held:
        held[key] = record.signature()
    return held[key]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _not_finite(stacked: Report) -> dict[int, str]:
    """The clients of stacked reports that hold NaN or inf, by position, and which tensor does."""
    bad: dict[int, str] = {}
    for name, t in {**stacked.arrays, **stacked.models}.items():
        if not t.is_floating_point() or not t.numel():
            continue
        # one NaN or inf makes the sum so; the sum of many large numbers may be inf by itself
        for i in (~torch.isfinite(t.flatten(1).sum(1) if t.dim() > 1 else t)).nonzero()[:, 0].tolist():
            if not torch.isfinite(t[i]).all():
                bad[i] = f"{name} holds NaN or inf"
    return bad


def _last_line(reason: str | None) -> str:
    """What a traceback ends with."""
    lines = [line for line in (reason or "").strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
