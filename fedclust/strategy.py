"""The Flower strategy of every clustered algorithm: it owns its loop.

Flower's own loop threads one ArrayRecord through the rounds, draws clients without a seed, waits for nodes without end
and takes a round in which every client failed for a success. This one keeps an algorithm's whole state.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedclust import probation
from fedclust.algorithms.base import Payload, Report, Reports, State
from fedclust.config import FederationConfig
from fedclust.contract import PROMISES, Form, broken, mixtures
from fedclust.messages import Packer, Setting, tensor_bytes
from fedclust.models import Model
from fedclust.newcomers import meet_newcomers
from fedclust.records import unpack
from fedclust.rounds import (
    UNUSABLE,
    Registry,
    RunStopped,
    Sent,
    Wanted,
    find_again,
    handshake,
    readable,
    select,
    sound_reports,
)
from fedclust.state import Checkpoint, FederationResult, History, mean, told
from fedclust.suspects import agreement_of, excluded, suspects
from graphclust.graph import InputError
from graphclust.monitor import Monitor, Silent

log = logging.getLogger(__name__)
MEASURES = ("accuracy", "loss", "accuracy_validation", "loss_validation")


@runtime_checkable
class KeepsMemories(Protocol):
    """A Grid whose nodes live in this process, so that what clients remember is saved with the server's state."""

    def memories(self) -> dict[str, Tensor]:
        """What the nodes' Contexts hold, by name."""

    def restore_memories(self, memories: dict[str, Tensor]) -> None:
        """Put back what :meth:`memories` gave."""


class ClusteredStrategy(Strategy):
    """Runs one algorithm: handshake, preparation rounds, rounds, evaluation of every client, newcomers.

    Rounds are numbered from 0; those of the probation, and then of the preparation, are negative, and the last of the
    preparation are left out when the algorithm is prepared before. Replies are summed in the order of the client ids,
    so the result does not depend on which comes first.

    Parameters
    ----------
    config : of the federation
    n_clients : how many clients to wait for, newcomers included
    checkpoint : file that is replaced after every round, and gone on from when it is there; None: keep none
    monitor : watches the rounds
    job : number of this federation within the Flower run
    """

    def __init__(
        self, config: FederationConfig, n_clients: int, *, checkpoint: Path | None = None,
        monitor: Monitor | None = None, job: int = 0,
    ) -> None:
        self.config, self.algorithm = config.resolved(), config.make()
        self._expected, self._file, self._monitor, self._job = n_clients, checkpoint, monitor or Silent(), job
        self._registry: Registry
        self._state: State
        self._history: History
        self._federation = secrets.token_hex(8)
        self._sent = Sent({})
        self._payloads: dict[str, Payload] = {}
        self._wanted: dict[str, Wanted] = {}
        self._bytes_down = 0
        self._clients: list[dict[str, Any]] = []
        self._weights = torch.zeros(0)
        self._embeddings: dict[str, Tensor] = {}

    @property
    def model(self) -> Model:
        """The architecture, once the clients have said what their samples look like."""
        return Model(self.config.model, self._registry.input_shape, self._registry.n_classes)

    def summary(self) -> None:
        """Say in the log what is about to run."""
        log.info("%s: %d rounds, seed %d, %r", self.config.name, self.config.rounds, self.config.seed, self.algorithm)

    def start(self, grid: Grid) -> FederationResult:  # type: ignore[override]  # the state is more than one ArrayRecord
        """Run the federation, or what is left of it.

        Raises
        ------
        RunStopped
            Clients are missing, or too few replies of a round can be used; the last finished round is saved.
        InputError
            Clients or settings that do not fit together; a checkpoint of another config.
        """
        clock = time.perf_counter()
        self.summary()
        self._registry = handshake(grid, self._expected, self.config.timeout, self._job)
        n = len(self._registry.ids)
        self.config.check(n)
        first = -self.algorithm.preparation_rounds(n) - self.config.robust.probation
        self._begin(grid)
        self._monitor.start(self.config.rounds - first, "rounds")
        while (r := self._next_round(first)) < self.config.rounds:
            self._round(grid, r)
            self._monitor.step(r - first, told(self._history.rounds[-1]))
        return self._finish(grid, clock)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """The round's messages; ``arrays`` and ``config`` are not used: the strategy's own state says what is sent."""
        c, ids = self.config, self._registry.ids
        self._state = {**self._state, "round": torch.tensor(server_round)}
        if self._on_probation(server_round):
            self._state = probation.begun(self._state, self.model, c.seed)
            return self._address(dict.fromkeys(ids, probation.payload()), "train",
                                 {"round": server_round, "evaluate": False})
        measure = c.evaluate_every > 0 and server_round % c.evaluate_every == 0
        out = excluded(self._history.rounds, len(ids), c.robust)
        asked = [i for i, client in enumerate(ids) if client not in out]
        if out:
            self._state["excluded"] = torch.tensor([client in out for client in ids])
        if c.fraction < 1 and not self.algorithm.needs_everyone(self._state):
            asked = [asked[j] for j in select(len(asked), c.fraction, c.seed, server_round)]
        payloads = {ids[i]: self.algorithm.payload(self._state, i) for i in asked}
        return self._address(payloads, "train", {"round": server_round, "evaluate": measure})

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[None, MetricRecord]:
        """Move the state by what can be used of the replies; the metrics are means over these clients.

        Raises
        ------
        RunStopped
            Fewer than ``min_replies`` can be used.
        """
        contents, failures = self._sent.sort(replies, self.config.timeout)
        stacks, unsound = sound_reports(contents, self._wanted, self._broken)
        sound = sorted(client for clients, _ in stacks for client in clients)
        failures = dict(sorted({**failures, **unsound}.items()))
        if len(sound) < self.config.min_replies:
            raise RunStopped(self._too_few(f"round {server_round}", len(sound), self.config.min_replies, failures))
        position = {client: i for i, client in enumerate(self._registry.ids)}
        sizes = torch.tensor(self._registry.n, dtype=torch.float32)
        agreement = torch.full((len(position),), math.nan)
        for clients, together in stacks:
            at, phase = torch.tensor([position[client] for client in clients]), self._wanted[clients[0]].phase
            stack = Reports(at, sizes[at], together.models, together.arrays, phase, self.config.robust)
            move = probation.judged if phase == probation.PHASE else self.algorithm.update
            before, self._state = self._state, move(self._state, stack)
            payloads = [self._payloads[client] for client in clients]
            agreement[at] = agreement_of(before, self._state, payloads, stack)
        phase = next(iter(self._payloads.values())).phase
        values = _table({client: contents[client] for client in sound}, position)
        means = {name: mean(t) for name, t in values.items()}
        row = {
            "round": server_round, "phase": phase, "participants": sound, "failures": failures, "mean": means,
            "bytes_down": self._bytes_down, "bytes_up": tensor_bytes(contents.values()),
        }
        self._history.add(row, {**values, "group": _groups(self._state["weights"]), "agreement": agreement})
        row["unusable"] = list(unsound)
        row["suspects"] = suspects(self._history.tables["agreement"], self._registry.ids, self.config.robust)
        if phase == probation.PHASE and not self._on_probation(server_round + 1):
            self._state, row["suspects"] = probation.verdict(self._state, self._registry.ids, self.config.robust)
        return None, MetricRecord({name: value for name, value in means.items() if value is not None})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """What every training client is sent after the last round."""
        payloads = {client: self.algorithm.evaluation(self._state, i) for i, client in enumerate(self._registry.ids)}
        meant = {client: payload for client, payload in payloads.items() if payload is not None}
        return self._address(meant, "evaluate", {"round": server_round})

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord:
        """Note how every client fares and with which weights; the metrics are means over the clients that answered.

        Raises
        ------
        RunStopped
            Fewer than ``min_replies`` answered.
        """
        contents, failures = self._sent.sort(replies, self.config.timeout)
        contents, unreadable = readable(contents)
        failures = dict(sorted({**failures, **unreadable}.items()))
        if len(contents) < self.config.min_replies:
            raise RunStopped(self._too_few("evaluation", len(contents), self.config.min_replies, failures))
        self._weights = self._state["weights"].clone()
        self._clients = []
        for i, (client, n) in enumerate(zip(self._registry.ids, self._registry.n, strict=True)):
            reply = contents.get(client, RecordDict())
            measured = cast(MetricRecord, reply.get("metrics", {}))
            values = {name: _number(measured.get(name)) for name in MEASURES}
            payload, held = self._payloads.get(client), reply.get("arrays", ArrayRecord())
            arrays = unpack(held) if isinstance(held, ArrayRecord) else {}
            if problem := self._unsound(arrays):
                failures[client], arrays, values = f"{UNUSABLE}{problem}", {}, dict.fromkeys(values)
            error = failures.get(client) if payload else "not evaluated: no model is meant for it yet"
            self._clients.append({"id": client, "n": n, **values, "error": error})
            if "embedding" in arrays:
                self._embeddings[client] = arrays["embedding"]
            # in other families the models are not the groups'
            groups = payload.groups if payload and payload.family == "model" else []
            if groups and "weights" in arrays and len(arrays["weights"]) == len(groups):
                self._weights[i] = 0
                self._weights[i, groups] = arrays["weights"]
        together = {name: mean(torch.tensor([math.nan if r[name] is None else r[name] for r in self._clients]))
                    for name in MEASURES}
        return MetricRecord({name: value for name, value in together.items() if value is not None})

    def _unsound(self, arrays: dict[str, Tensor]) -> str | None:
        """What is wrong with the arrays of a last evaluation; None: nothing."""
        if "weights" in arrays and not mixtures(arrays["weights"][None]).all():
            return f"weights {PROMISES['weights'].otherwise}"
        z = arrays.get("embedding")
        if z is not None and not (z.dim() == 2 and z.shape[1] == self.config.model.latent_dim and z.isfinite().all()):
            return f"embedding is not one row of {self.config.model.latent_dim} finite numbers for each node"
        return None

    def _begin(self, grid: Grid) -> None:
        """The state to start from: the checkpoint's, or the algorithm's first."""
        held = Checkpoint.load(self._file, self.config.fingerprint()) if self._file else None
        if held is None:
            sizes = torch.tensor(self._registry.n, dtype=torch.float32)
            self._state = self.algorithm.start(sizes, self.model, self.config.seed)
            self._history = History()
            self._save(grid)
            return
        if held.ids != self._registry.ids:
            odd = sorted(set(held.ids) ^ set(self._registry.ids))
            raise InputError(f"checkpoint {self._file} has other clients, for example {odd[0]!r}; "
                             "bring back the same clients, or give another folder")
        self._state, self._history, self._federation = held.state, held.history, held.federation
        if isinstance(grid, KeepsMemories):
            grid.restore_memories(held.memories)

    def _next_round(self, first: int) -> int:
        """The round after the last that was run; 0 once the algorithm is prepared."""
        r = self._history.rounds[-1]["round"] + 1 if self._history.rounds else first
        return 0 if r < 0 and not self._on_probation(r) and self.algorithm.prepared(self._state) else r

    def _on_probation(self, r: int) -> bool:
        return r < -self.algorithm.preparation_rounds(len(self._registry.ids))

    def _round(self, grid: Grid, r: int) -> None:
        clock = time.perf_counter()
        find_again(grid, self._registry, self.config.timeout, self._job)
        messages = self.configure_train(r, ArrayRecord(), ConfigRecord(), grid)
        self.aggregate_train(r, grid.send_and_receive(messages, timeout=self.config.timeout))
        self._history.rounds[-1]["seconds"] = time.perf_counter() - clock
        self._save(grid)
        self._tell(self._history.rounds[-1])

    def _tell(self, row: dict[str, Any]) -> None:
        """Say in the log how a round went, for whoever waits for it."""
        if not log.isEnabledFor(logging.INFO):
            return
        parts = [f"{len(row['participants'])} of {len(self._payloads)} clients in {row['seconds']:.0f} s"]
        parts += [f"{name} {value:.3f}" for name, value in row["mean"].items() if value is not None]
        parts += [f"{client}: {reason}" for client, reason in row["failures"].items()]
        parts += [f"suspects: {', '.join(row['suspects'])}"] if row["suspects"] else []
        r = row["round"]
        which = f"round {r + 1} of {self.config.rounds}" if r >= 0 else f"before round 1, {row['phase']}"
        log.info("%s: %s", which, "; ".join(parts))

    def _save(self, grid: Grid) -> None:
        if self._file is None:
            return
        memories = grid.memories() if isinstance(grid, KeepsMemories) else {}
        Checkpoint(self.config.fingerprint(), self._registry.ids, self._state, self._history, memories,
                   self._federation).save(self._file)

    def _finish(self, grid: Grid, clock: float) -> FederationResult:
        """Evaluate the training clients and the newcomers."""
        config, registry = self.config, self._registry
        self._state = self.algorithm.finished(self._state)
        rounds = {way: sum(row[f"bytes_{way}"] for row in self._history.rounds) for way in ("down", "up")}
        find_again(grid, registry, config.timeout, self._job)
        messages = self.configure_evaluate(config.rounds, ArrayRecord(), ConfigRecord(), grid)
        replies = list(grid.send_and_receive(messages, timeout=config.timeout))
        self.aggregate_evaluate(config.rounds, replies)
        up = tensor_bytes(reply.content for reply in replies if not reply.has_error())
        new = meet_newcomers(self.algorithm, self._state, config, registry, grid, self._job)
        return FederationResult(
            config.model_dump(mode="json"), registry.ids, registry.n, self._history, self._state, self._weights,
            self._clients, new.rows, new.weights,
            {"rounds": rounds, "evaluation": {"down": self._bytes_down, "up": up},
             "newcomers": {"down": new.bytes_down, "up": new.bytes_up}},
            time.perf_counter() - clock, self._embeddings,
        )

    def _address(self, payloads: dict[str, Payload], kind: str, settings: dict[str, Setting]) -> list[Message]:
        """Messages with these payloads, in the order of the client ids."""
        packer, group, registry = Packer(self._state), str(settings["round"]), self._registry
        self._payloads = payloads
        self._wanted = self._replies(payloads, packer) if kind == "train" else {}
        about = {"job": self._job, "federation": self._federation, **settings}
        contents = {client: packer.content(payload, about) for client, payload in payloads.items()}
        self._bytes_down = tensor_bytes(contents.values())
        self._sent = Sent.addressed(contents, registry.nodes, kind, self.config.timeout, group)
        return list(self._sent.messages.values())

    def _replies(self, payloads: dict[str, Payload], packer: Packer) -> dict[str, Wanted]:
        """What every client's reply must hold; one object for all of one form."""
        found: dict[tuple[Any, ...], Wanted] = {}
        wanted = {}
        for client, p in payloads.items():
            form = Form(1) if p.phase == probation.PHASE else self.algorithm.reply(p, self._registry.n_classes)
            model = packer.signature(p.family) if form.models else ()
            key = p.phase, form.models, model, tuple(form.arrays.items())
            if key not in found:
                found[key] = Wanted.of(form, model, p.phase)
            wanted[client] = found[key]
        return wanted

    def _broken(self, clients: list[str], report: Report) -> dict[int, str]:
        """Which of these clients' stacked reports break a promise, and how."""
        if not report.arrays:
            return {}
        sizes, privacy = dict(zip(self._registry.ids, self._registry.n, strict=True)), self.config.privacy
        sent = torch.tensor([len(self._payloads[client].groups) for client in clients])
        n = torch.tensor([sizes[client] for client in clients], dtype=torch.float32)
        return broken(report.arrays, sent, n, exact=privacy.clip is None and privacy.label_histogram == "exact")

    def _too_few(self, what: str, sound: int, needed: int, failures: dict[str, str]) -> str:
        some = "; ".join(f"{client}: {reason}" for client, reason in list(failures.items())[:3])
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        saved = f"; what was done is in {self._file}: mend it and resume" if self._file else ""
        return (f"{what}: {sound} of {len(self._payloads)} replies can be used, min_replies = {needed} "
                f"({some}{more}){saved}")


def _table(contents: dict[str, RecordDict], position: dict[str, int]) -> dict[str, Tensor]:
    """Per-client values (N,) of what the replies measured."""
    table: dict[str, Tensor] = {}
    for client, content in contents.items():
        for name, value in cast(MetricRecord, content.get("metrics", {})).items():
            if name != "n":
                table.setdefault(name, torch.full((len(position),), math.nan))[position[client]] = cast(float, value)
    return table


def _groups(weights: Tensor) -> Tensor:
    """(N,) the group of the largest weight; NaN where there is none yet, as in local's probation."""
    if not weights.shape[1]:
        return torch.full((len(weights),), math.nan)
    return torch.where(weights.isnan().any(1), math.nan, weights.nan_to_num(0).argmax(1).float())


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
