"""Flower's ClientApp: message to answer and back; thin.

End points: ``query.hello`` who am I; ``train`` one round; ``evaluate`` what was delivered; ``query.evidence`` what a
newcomer finds out from a few labelled samples; ``evaluate.assigned`` a newcomer under the weights it was assigned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from fedclust import answers
from fedclust.deploy import memory
from fedclust.messages import settings_of
from fedclust.participant import Participant, simulated
from fedclust.records import pack, unpack
from fedclust.run_config import versions
from fedclust.task import Cohort
from graphclust.graph import InputError

Load = Callable[[Context, int], Participant]
"""(context, number of the job within the run) -> the client that runs on this node."""


def load_client(context: Context, job: int) -> Participant:
    """The simulated client of the node's ``partition-id``, or the one whose ``data`` the node config names."""
    if "data" not in context.node_config:
        return simulated(context.run_config, context.node_config, job)
    from fedclust.deploy.clients import deployed  # simulated clients need none of it

    return deployed(context.run_config, context.node_config, job)


def client_app(load: Load = load_client) -> ClientApp:
    """The ClientApp of a federation.

    Parameters
    ----------
    load : finds the client of this node; called for every message, so it caches what is slow. By default: the client of
        the simulated federation in the run config whose number is the node's ``partition-id``; where the node config
        names ``data``, the client that has them (:mod:`fedclust.deploy.clients`)
    """
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        try:
            about = answers.hello(load(context, _job(message)))
        except InputError as e:
            at = context.node_config
            about = ConfigRecord({"versions": list(versions()), "problem": str(e),
                                  "id": str(at.get("client", f"partition {at.get('partition-id')}"))})
        return Message(RecordDict({"hello": about}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        me, cohort, reply = _answered("train", message, context)
        _remember(me, message, context, cohort.memory)
        return reply

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return _answered("evaluate", message, context)[2]

    @app.query("evidence")
    def evidence(message: Message, context: Context) -> Message:
        return _answered("query.evidence", message, context)[2]

    @app.evaluate("assigned")
    def assigned(message: Message, context: Context) -> Message:
        return _answered("evaluate.assigned", message, context)[2]

    def _answered(kind: str, message: Message, context: Context) -> tuple[Participant, Cohort, Message]:
        me = load(context, _job(message))
        cohort = me.cohort(cast(int, settings_of(message.content)["round"]), _memory(me, message, context))
        [content] = answers.ANSWERS[kind]([answers.Asked(me, message.content, cohort.memory)], cohort)
        return me, cohort, Message(content, reply_to=message)

    return app


def _job(message: Message) -> int:
    return cast(int, settings_of(message.content)["job"])


def memory_name(job: int) -> str:
    """Name of a client's memory in its Context: one for every job of the run."""
    return f"memory-{job}"


def _memory(me: Participant, message: Message, context: Context) -> dict[str, Tensor]:
    """What the client remembers in the message's round."""
    if me.home is not None:
        settings = settings_of(message.content)
        return memory.recall(me.home, str(settings.get("federation", "")), cast(int, settings["round"]))
    held = context.state.get(memory_name(_job(message)))
    return dict(unpack(cast(ArrayRecord, held))) if held is not None else {}


def _remember(me: Participant, message: Message, context: Context, tensors: dict[str, Tensor]) -> None:
    """Keep what the client remembers after the message's round, where it has anything to."""
    if tensors and me.home is not None:
        settings = settings_of(message.content)
        memory.remember(me.home, str(settings["federation"]), cast(int, settings["round"]), tensors)
    elif tensors:
        context.state[memory_name(_job(message))] = pack(tensors)


app = client_app()
