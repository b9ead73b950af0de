"""The only file that touches private names of flwr (tested against the pinned release), and the environment it needs.

flwr is imported inside the functions: :func:`environment` must be applied before flwr is imported for the first time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVER_NODE = 1
"""The node id that Flower gives to the server's side of a run."""
CLIENT_FAILED = 2
"""Error code of a ClientApp that raised."""
REPLY_UNAVAILABLE = 4
"""Error code of a reply that did not come."""
NODE_UNAVAILABLE = 5
"""Error code of a node that is gone."""


def environment(home: Path | None = None) -> dict[str, str]:
    """Variables under which our commands run Flower: nothing is sent, looked up or installed.

    Parameters
    ----------
    home : where Flower may write; None: leave as it is
    """
    variables = {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        # seconds between two looks for something to start; a second by default
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
    }
    return variables if home is None else {**variables, "FLWR_HOME": str(home)}


def apply_environment(to: MutableMapping[str, str] = os.environ) -> None:
    """Set :func:`environment` where the user has not set it; flwr reads two of them when it is imported."""
    for name, value in environment().items():
        to.setdefault(name, value)


@contextmanager
def task_identity(run_id: int, node_id: int = SERVER_NODE, task_id: int = 0) -> Iterator[None]:
    """Within this block the process may create Messages; afterwards it is what it was before."""
    from flwr.supercore.task_identity import TaskIdentity

    names = ("_run_id", "_node_id", "_task_id")
    before = {name: getattr(TaskIdentity, name) for name in names}
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, task_id
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)


def empty_run(run_id: int) -> Any:
    """What a Grid shows as its run."""
    from flwr.supercore.run import Run

    return Run.create_empty(run_id)


def is_deployed(grid: Any) -> bool:
    """True for the Grid of a ServerApp on a SuperLink, which speaks HTTP."""
    # whoever made one has imported its module, which takes a second
    module = sys.modules.get("flwr.superlink.grid.http_grid")
    return module is not None and isinstance(grid, module.HttpGrid)


def contents_of(each: Sequence[Mapping[str, Any]]) -> list[Any]:
    """``RecordDict(records)`` of each; what they hold is known to be records, which Flower checks slowly."""
    from flwr.app import RecordDict

    contents = []
    for records in each:
        contents.append(content := RecordDict())
        content.__dict__["_data"] = dict(records)
    return contents


def messages_to(nodes: Sequence[int], contents: Sequence[Any], kind: str, *, ttl: float, group_id: str) -> list[Any]:
    """``Message(content, node, kind, ttl=ttl, group_id=group_id)`` for every node.

    Flower checks the first, the others are its likes: to make a Message takes Flower a tenth of a small model's step.
    """
    from flwr.app import Message

    if not nodes:
        return []
    about = Message(contents[0], nodes[0], kind, ttl=ttl, group_id=group_id).metadata.__dict__
    return [_message({**about, "_dst_node_id": node}, c) for node, c in zip(nodes, contents, strict=True)]


def replies_to(messages: Sequence[Any], contents: Sequence[Any]) -> list[Any]:
    """``Message(content, reply_to=message)`` for every message."""
    now, replies = time.time(), []
    for message, content in zip(messages, contents, strict=True):
        about = message.metadata.__dict__
        replies.append(_message({
            **about, "_message_id": "", "_reply_to_message_id": about["_message_id"], "_created_at": now,
            "_ttl": about["_created_at"] + about["_ttl"] - now,
            "_src_node_id": about["_dst_node_id"], "_dst_node_id": about["_src_node_id"],
            "_src_task_id": about["_dst_task_id"], "_dst_task_id": about["_src_task_id"],
        }, content))
    return replies


def _message(about: Mapping[str, Any], content: Any) -> Any:
    from flwr.app import Message
    from flwr.app.metadata import Metadata

    metadata, message = Metadata.__new__(Metadata), Message.__new__(Message)
    metadata.__dict__.update(about)
    message.__dict__.update(_metadata=metadata, _content=content, _error=None)
    return message


def set_message_id(message: Any, message_id: str) -> None:
    """Name a message, as Flower's own grids do when they send it."""
    message.metadata.__dict__["_message_id"] = message_id
