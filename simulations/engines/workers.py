"""A Flower Grid over resident worker processes: for models whose own arithmetic takes the time.

Each client stays in one process for the whole run, with its data and its memory. The processes are forked, once, from
one that has imported and built what all of them need: memory holds that once, whatever the number of workers. That
one is started anew, not forked from the caller: a caller that has threads cannot be forked safely.
"""

from __future__ import annotations

import heapq
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any, Self, cast

from flwr.app import Message, UserConfig
from flwr.clientapp import ClientApp
from joblib import cpu_count
from torch import Tensor

from fedclust.config import FederationConfig
from fedclust.participant import simulated_federation
from fedclust.processes import end
from fedclust.rounds import RunStopped
from fedclust.state import FederationResult
from graphclust.monitor import Monitor
from simulations.attacks import simulated_app
from simulations.engines.forked import fork_workers, to_arrays, to_tensors
from simulations.engines.inprocess import InProcessGrid, simulate_on

GRACE = 30.0
"""Seconds that the workers may take to end once nobody wants them."""
NAMED = 5
"""Clients that an error names."""


class WorkerDied(RuntimeError):
    """A worker process ended before the run did."""


class WorkersGrid(InProcessGrid):
    """Nodes that live in worker processes; each process handles its nodes' messages as :class:`InProcessGrid` does.

    A worker gets its messages of a round in one piece, so that a model which many of them carry travels once. The
    workers end with this object, or with its process however that ends.

    Parameters
    ----------
    make_app : gives the ClientApp of all nodes; it goes to the processes by its name, so it is a function of a module,
        and is called once, before the workers are forked: what it loads they share
    node_configs : one a node
    run_config : of the run
    pins : of every node, the number of its worker: 0, 1, ...
    names : of the nodes' clients, for errors
    threads : of torch in every worker

    Raises
    ------
    WorkerDied
        From every method that needs a worker which has ended.
    """

    def __init__(
        self, make_app: Callable[[], ClientApp], node_configs: Sequence[UserConfig], run_config: UserConfig,
        pins: Sequence[int], *, names: Sequence[str] | None = None, threads: int = 1,
    ) -> None:
        super().__init__(ClientApp(), node_configs, run_config)
        self._worker_of = dict(zip(self.get_node_ids(), pins, strict=True))
        self._names = [str(node) for node in self._worker_of] if names is None else [*names]
        setup = pickle.dumps((make_app, [*node_configs], run_config, threads))
        pipes = [Pipe() for _ in range(max(pins) + 1)]
        self._ends, theirs = [list(ends) for ends in zip(*pipes, strict=True)]
        fds = [e.fileno() for e in theirs]
        self._forker = subprocess.Popen(
            [sys.executable, "-c", f"from {fork_workers.__module__} import fork_workers; fork_workers({fds})"],
            stdin=subprocess.PIPE, pass_fds=fds,
            # a process with a pool of OpenMP threads cannot be forked; workers set their number of threads themselves
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        for e in theirs:
            e.close()
        with suppress(BrokenPipeError), cast(IO[bytes], self._forker.stdin) as pipe:  # if it ended, a worker is missed
            pipe.write(setup)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and wait until they have."""
        for e in self._ends:
            e.close()
        try:
            self._forker.wait(GRACE)
        except subprocess.TimeoutExpired:
            end(self._forker)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Have these messages handled and give the replies."""
        return self._handled([self._waiting.pop(i) for i in message_ids if i in self._waiting], None)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies, in the order of the messages; none for those whose turn in their worker comes after ``timeout``
        seconds."""
        return self._handled([self._waiting.pop(i) for i in self.push_messages(messages)], timeout)

    def _handled(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        places: dict[int, list[int]] = {}
        for i, message in enumerate(messages):
            places.setdefault(self._worker_of[message.metadata.dst_node_id], []).append(i)
        said = self._ask("handle", {w: ([messages[i] for i in at], timeout) for w, at in places.items()})
        answers = {places[w][j]: answer for w, answered in said.items() for j, answer in answered.items()}
        return [self._reply(messages[i], answers[i]) for i in sorted(answers)]

    def memories(self) -> dict[str, Tensor]:
        """The tensors in the nodes' Contexts, as "<node>/<record>/<name>"."""
        said = self._ask("memories", {w: () for w in range(len(self._ends))})
        return {name: t for held in said.values() for name, t in to_tensors(held).items()}

    def restore_memories(self, memories: dict[str, Tensor]) -> None:
        """Put back what :meth:`memories` gave."""
        given: dict[int, dict[str, Tensor]] = {}
        for key, t in memories.items():
            given.setdefault(self._worker_of[int(key.split("/", 1)[0])], {})[key] = t
        self._ask("restore_memories", {w: (to_arrays(held),) for w, held in given.items()})

    def _ask(self, what: str, given: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Have these workers call their method ``what``, all at once; their answers in the order of the workers."""
        answers: dict[int, Any] = {}
        w = 0
        try:
            for w, arguments in given.items():
                self._ends[w].send_bytes(pickle.dumps((what, arguments), pickle.HIGHEST_PROTOCOL))
            while waiting := [w for w in given if w not in answers]:
                ready = wait([self._ends[w] for w in waiting])
                for w in (w for w in waiting if self._ends[w] in ready):
                    answers[w] = pickle.loads(self._ends[w].recv_bytes())
        except (EOFError, OSError):
            raise WorkerDied(self._obituary(w)) from None
        return dict(sorted(answers.items()))

    def _obituary(self, w: int) -> str:
        self.close()
        code = self._forker.returncode
        how = f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
        why = " (when memory runs out, the system kills so)" if code == 128 + signal.SIGKILL else ""
        held = [name for name, at in zip(self._names, self._worker_of.values(), strict=True) if at == w]
        more = f" and {len(held) - NAMED} more" if len(held) > NAMED else ""
        return (f"worker process {w + 1} of {len(self._ends)} {how}{why}; "
                f"it held the clients {', '.join(held[:NAMED])}{more}")


def balanced(sizes: Sequence[int], workers: int) -> list[int]:
    """The worker of each client: the largest first, each to the worker that has least (Graham, doi 10.1137/0117039).

    Parameters
    ----------
    sizes : of the clients
    workers : how many there are
    """
    loads, pins = [(0, w) for w in range(workers)], [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        load, pins[i] = heapq.heappop(loads)
        heapq.heappush(loads, (load + max(1, sizes[i]), pins[i]))
    return pins


def n_workers(config: FederationConfig, n_clients: int) -> int:
    """Processes for a federation: what the config says, or as many as the processors that this process may use bear."""
    return min(n_clients, config.workers or max(1, cpu_count() // config.threads))


def grid_of(config: FederationConfig, nodes: Sequence[UserConfig], run_config: UserConfig) -> WorkersGrid:
    """The workers of a simulated federation; newcomers, who work when the others have done, are balanced apart."""
    federation = simulated_federation(config)
    count = n_workers(config, len(federation.clients))
    sizes, n = [*federation.n_train.values()], len(federation.clients)
    pins = [pin for part in (sizes[:n], sizes[n:]) for pin in balanced(part, count)]
    return WorkersGrid(partial(loaded_app, config.model_dump_json()), nodes, run_config, pins,
                       names=federation.ids, threads=config.threads)


def loaded_app(config: str) -> ClientApp:
    """The ClientApp of a simulation, with the data in memory."""
    simulated_federation(FederationConfig.model_validate_json(config))
    return simulated_app()


def simulate(
    config: FederationConfig, *, checkpoint: Path | None = None, monitor: Monitor | None = None
) -> FederationResult:
    """Run a federation in resident worker processes; the result is, bit for bit, that of engine inprocess. See
    :class:`~simulations.engines.Simulate`.
    """
    with ExitStack() as stack:
        def grid(nodes: Sequence[UserConfig], run_config: UserConfig) -> WorkersGrid:
            return stack.enter_context(grid_of(config, nodes, run_config))

        try:
            return simulate_on(grid, config, checkpoint=checkpoint, monitor=monitor)
        except WorkerDied as e:
            saved = f"the last finished round is saved in {checkpoint}" if checkpoint else "no round is saved"
            raise RunStopped(f"{e}; {saved}: run the same command again") from e
