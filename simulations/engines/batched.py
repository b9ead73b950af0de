"""A Flower Grid in this process that answers for many clients at once: a round's messages are run as cohorts."""

from __future__ import annotations

import ctypes
import logging
import math
import platform
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from flwr.app import ArrayRecord, Context, Message, UserConfig
from flwr.serverapp import Grid

from fedclust.answers import ANSWERS, Asked, alike, form
from fedclust.client_app import Load, client_app, memory_name
from fedclust.config import FederationConfig
from fedclust.data.client import ROOM
from fedclust.flwr_compat import replies_to
from fedclust.messages import n_models, settings_of
from fedclust.participant import Participant
from fedclust.records import pack, unpack
from fedclust.state import FederationResult
from fedclust.task import Cohort, padded_length
from graphclust.monitor import Monitor
from graphclust.training import resolve_device
from simulations.attacks import SimulatedClients
from simulations.engines.inprocess import InProcessGrid, simulate_on

log = logging.getLogger(__name__)
MEGABYTE = 2**20
# glibc's mallopt: the largest threshold that it takes for giving large blocks back to the system at once, and for the
# end of the heap.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MMAP_MOST, TRIM_MOST = -1, -3, 32 * MEGABYTE, 2**30
# Copies of a model during a step (parameters, gradient, temporaries, Adam's moments), and of a layer's output.
COPIES_OF_PARAMETERS, COPIES_OF_OUTPUTS = 6, 3


@dataclass
class _Called:
    """A message, its client, and the place of its reply."""

    place: int
    message: Message
    context: Context
    asked: Asked


class BatchedGrid(InProcessGrid):
    """Nodes whose clients are computed side by side, in cohorts that fit the memory.

    Messages that ask for the same go together (:func:`fedclust.answers.alike`), clients of like size into one cohort.
    What a client does depends on its id and the round alone, so it gets what it would get alone, up to rounding. A
    cohort that fails is answered for client by client, as the in-process engine does; :attr:`alone` says why.

    Parameters
    ----------
    load : finds the client of a node
    node_configs : one a node
    run_config : of the run
    memory_mb : megabytes that a cohort may take, roughly
    device : where cohorts compute
    """

    def __init__(
        self, load: Load, node_configs: Sequence[UserConfig], run_config: UserConfig, *, memory_mb: int = 256,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(client_app(load), node_configs, run_config)
        self._load, self._bytes, self._device = load, memory_mb * MEGABYTE, torch.device(device)
        self._cohorts: dict[tuple[int, ...], Cohort] = {}
        self.alone: dict[str, int] = {}
        """Why cohorts were answered for client by client, and how many clients."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Handle these messages and give the replies."""
        return self._answered([self._waiting.pop(i) for i in message_ids if i in self._waiting], None)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies; none of cohorts that end after ``timeout`` seconds."""
        return self._answered([self._waiting.pop(i) for i in self.push_messages(messages)], timeout)

    def _answered(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        replies: dict[int, Message] = {}
        kinds: dict[Hashable, list[_Called]] = {}
        forms: dict[int, Hashable] = {}  # many messages share their content
        for place, message in enumerate(messages):
            called = self._called(place, message)
            if called is None:
                replies[place] = self._handle(message)
                continue
            content = id(message.content)
            if content not in forms:
                forms[content] = form(message.content)
            kind = message.metadata.message_type, forms[content], alike(called.asked)
            kinds.setdefault(kind, []).append(called)
        used: dict[tuple[int, ...], Cohort] = {}
        for together in kinds.values():
            for some in self._cut(together):
                if time.monotonic() < deadline:
                    answers = self._together(some, used)
                    if time.monotonic() < deadline:
                        replies |= answers
        self._cohorts = used
        return [replies[place] for place in sorted(replies)]

    def _called(self, place: int, message: Message) -> _Called | None:
        """The message with its client; None for those that are answered one by one."""
        if message.metadata.message_type not in ANSWERS:
            return None
        context, job = self._contexts[message.metadata.dst_node_id], cast(int, settings_of(message.content)["job"])
        try:
            me = self._load(context, job)
        except Exception:
            return None  # the client's app says what is wrong
        name = memory_name(job)
        memory = dict(unpack(cast(ArrayRecord, context.state[name]))) if name in context.state else {}
        return _Called(place, message, context, Asked(me, message.content, memory))

    def _cut(self, together: list[_Called]) -> Iterable[list[_Called]]:
        """Clients of like size in cohorts that fit the memory."""
        together = sorted(together, key=lambda c: -c.asked.me.client.n_train)
        while together:
            first = together[0].asked
            size = max(1, self._bytes // bytes_of(first.me, max(1, n_models(first.content))))
            yield together[:size]
            together = together[size:]

    def _together(self, called: list[_Called], used: dict[tuple[int, ...], Cohort]) -> dict[int, Message]:
        """The replies of one cohort, by place."""
        if len(called) == 1:
            return {called[0].place: self._handle(called[0].message)}
        asked, first = [c.asked for c in called], called[0]
        settings = settings_of(first.asked.content)
        key = (cast(int, settings["job"]), *(c.message.metadata.dst_node_id for c in called))
        try:
            cohort = self._cohorts.get(key) or Cohort(
                [a.me.data for a in asked], first.asked.me.model, seed=first.asked.me.config.seed, round=0,
                device=self._device)
            memory = {name: torch.cat([a.memory[name] for a in asked]).to(self._device) for name in first.asked.memory}
            cohort.begin(cast(int, settings["round"]), memory)
            answers = ANSWERS[first.message.metadata.message_type](asked, cohort)
        except Exception as e:
            reason = f"{type(e).__name__}: {e}".splitlines()[0]
            if reason not in self.alone:
                log.warning("a cohort of %d clients is answered for one by one: %s", len(called), reason)
            self.alone[reason] = self.alone.get(reason, 0) + len(called)
            return {c.place: self._handle(c.message) for c in called}
        if first.asked.me.stays and sum(c.n_bytes for c in (*used.values(), cohort)) <= ROOM:
            used[key] = cohort
        if first.message.metadata.message_type == "train" and cohort.memory:
            self._remember(called, memory_name(cast(int, settings["job"])), cohort)
        replies = replies_to([c.message for c in called], answers)
        return {c.place: self._named(reply) for c, reply in zip(called, replies, strict=True)}

    def _remember(self, called: list[_Called], name: str, cohort: Cohort) -> None:
        for i, c in enumerate(called):  # copies: a row would keep the whole cohort's memory alive
            c.context.state[name] = pack({key: t[i : i + 1].cpu().clone() for key, t in cohort.memory.items()})


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: stacked tensors come and go in every step, and a tenth of the time goes into
    getting their pages anew. Nothing where there is no glibc."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_MOST)
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_MOST)


def bytes_of(me: Participant, k: int) -> int:
    """Bytes that one client with k models takes in a cohort, roughly: models, samples, outputs of the layers."""
    model, rows = me.model, padded_length(max(me.lengths))
    nodes = len(me.data.nodes) if me.data.nodes is not None else 0
    numbers = (
        k * COPIES_OF_PARAMETERS * model.n_parameters + (nodes or rows) * math.prod(model.input_shape)
        + nodes**2 * (1 + k * COPIES_OF_OUTPUTS)
        + k * model.n_outputs * (nodes or max(rows, me.config.training.batch_size)) * COPIES_OF_OUTPUTS
    )
    return 4 * numbers


def simulate(
    config: FederationConfig, *, checkpoint: Path | None = None, monitor: Monitor | None = None
) -> FederationResult:
    """Run a federation in this process, clients side by side; the result is the in-process engine's up to rounding. See
    :class:`~simulations.engines.Simulate`.
    """

    keep_freed_memory()
    grids: list[BatchedGrid] = []

    def grid(nodes: Sequence[UserConfig], run_config: UserConfig) -> Grid:
        grids.append(BatchedGrid(SimulatedClients(), nodes, run_config, memory_mb=config.memory_mb,
                                 device=resolve_device(config.device)))
        return grids[0]

    result = simulate_on(grid, config, checkpoint=checkpoint, monitor=monitor)
    notes = [f"{count} answers were computed one by one: {reason}" for reason, count in grids[0].alone.items()]
    return replace(result, notes=notes)
