"""What runs in the processes of engine workers: one that loads what all of them need, and the workers that it forks."""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

import numpy as np
import torch
from flwr.app import Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from torch import Tensor

from fedclust.flwr_compat import task_identity
from simulations.engines.inprocess import RUN_ID, InProcessGrid


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The same as arrays, because a pickled tensor takes many times as long."""
    return {name: t.numpy() for name, t in tensors.items()}


def to_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The same as tensors."""
    return {name: torch.from_numpy(a) for name, a in arrays.items()}


class Worker:
    """The nodes of one worker process, and what :class:`~simulations.engines.workers.WorkersGrid` asks of it."""

    def __init__(self, nodes: InProcessGrid) -> None:
        self._nodes = nodes

    def handle(self, messages: list[Message], timeout: float | None) -> dict[int, RecordDict | Error]:
        """What the nodes answer, by the position of the message."""
        replies = self._nodes.send_and_receive(messages, timeout=timeout)
        at = {m.metadata.message_id: i for i, m in enumerate(messages)}
        return {at[r.metadata.reply_to_message_id]: r.error if r.has_error() else r.content for r in replies}

    def memories(self) -> dict[str, np.ndarray]:
        """What the nodes remember."""
        return to_arrays(self._nodes.memories())

    def restore_memories(self, memories: dict[str, np.ndarray]) -> None:
        """Put back what :meth:`memories` gave."""
        self._nodes.restore_memories(to_tensors(memories))


def fork_workers(fds: Sequence[int]) -> None:
    """Fork a worker for each of these connections and wait until all have ended; the main function of a process.

    The exit code is that of the first worker that did not end as it should, 128 + signal if it was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the caller, and workers end when it does
    make_app, node_configs, run_config, threads = pickle.load(sys.stdin.buffer)
    hangup = _hangup(fds[0])
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0) if hangup.poll(0) else None)
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)  # a thread that watches would be one too many at the fork
    app = make_app()
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.freeze()  # a worker's garbage collector would write to what is shared, and memory that is written to is copied
    for i, fd in enumerate(fds):
        if os.fork() == 0:
            for other in fds[i + 1:]:  # whoever holds a connection open hides that its owner has ended
                os.close(other)
            os._exit(_work(Connection(fd), app, node_configs, run_config, threads))
        os.close(fd)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in fds]
    # at once: to take torch and all else down in order is half a second at the end of every run
    os._exit(next((code if code > 0 else 128 - code for code in codes if code), 0))


def _work(connection: Connection, app: ClientApp, node_configs: Sequence[UserConfig], run_config: UserConfig,
          threads: int) -> int:
    """What a worker does until nobody wants it; its exit code."""
    threading.Thread(target=_end_with, args=(connection.fileno(),), daemon=True).start()
    torch.set_num_threads(threads)
    worker = Worker(InProcessGrid(app, node_configs, run_config))
    try:
        with task_identity(RUN_ID):
            while True:
                what, arguments = pickle.loads(connection.recv_bytes())
                connection.send_bytes(pickle.dumps(getattr(worker, what)(*arguments), pickle.HIGHEST_PROTOCOL))
    except (EOFError, ConnectionError):
        return 0
    except BaseException:
        traceback.print_exc()
        return 1


def _end_with(fd: int) -> None:
    """End this process once the other end of a connection is closed, even in the middle of a computation."""
    _hangup(fd).poll()
    os._exit(0)


def _hangup(fd: int) -> select.poll:
    """Finds something once the other end of a connection is closed."""
    found = select.poll()
    found.register(fd, 0)
    return found
