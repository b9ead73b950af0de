"""Flower's ClientApp: message to task and back; thin.

End points: ``query.hello`` who am I; ``train`` one round; ``evaluate`` what was delivered; ``query.evidence`` what a
newcomer finds out from a few labelled samples; ``evaluate.assigned`` a newcomer under the weights it was assigned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from fedclust.algorithms.base import Delivery, Report
from fedclust.deploy import memory
from fedclust.guard import Guard
from fedclust.messages import delivery, pack, report_content, settings_of, unpack
from fedclust.participant import Participant, simulated
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
        about = ConfigRecord({"versions": list(versions())})
        try:
            me = load(context, _job(message))
        except InputError as e:
            at = context.node_config
            about.update(id=str(at.get("client", f"partition {at.get('partition-id')}")), problem=str(e))
        else:
            about.update(id=me.data.id, role=me.role, n_train=Guard(me).n_train, n_classes=me.n_classes,
                         input_shape=list(me.input_shape))
        return Message(RecordDict({"hello": about}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        me = load(context, _job(message))
        guard, settings = Guard(me), settings_of(message.content)
        cohort, given = _cohort(me, message, context), delivery(message.content)
        measured = bool(settings["evaluate"]) and given.phase == "train" and guard.measures
        metrics = _before(me, cohort, given) if measured else {}
        report = me.algorithm.local_step(cohort, given)
        if measured:
            metrics |= _after(me, cohort, report)
        _remember(me, message, context, cohort.memory)
        report = guard.report(report, given, cohort.round, str(settings.get("federation", "")))
        content = report_content(report)
        content["metrics"] = MetricRecord({"n": guard.n_train, **metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        me = load(context, _job(message))
        guard, cohort = Guard(me), _cohort(me, message, context)
        models, weights = me.algorithm.local_predictor(cohort, delivery(message.content))
        values = _values(cohort.evaluate(models, weights, hard=me.algorithm.hard)) if guard.measures else {}
        arrays = {} if guard.noises else {"weights": weights[0]}
        if me.model.clusters:  # clusters are found among the nodes of all clients
            arrays["embedding"] = cohort.embedding(0, {name: t[0] for name, t in models.items()}, weights[0])
        content = RecordDict({"arrays": pack(arrays), "metrics": MetricRecord(dict(values))})
        return Message(content, reply_to=message)

    @app.query("evidence")
    def evidence(message: Message, context: Context) -> Message:
        me, settings = load(context, _job(message)), settings_of(message.content)
        given, content = delivery(message.content), RecordDict()
        trials = zip(cast(list[int], settings["shots"]), cast(list[int], settings["draws"]), strict=True)
        for j, (m, draw) in enumerate(trials):
            cohort = me.with_shots(cast(int, settings["round"]), m, draw)
            found = Guard(me).evidence(me.algorithm.local_evidence(cohort, given), j)
            content.update(report_content(found, prefix=f"{j}-"))
        return Message(content, reply_to=message)

    @app.evaluate("assigned")
    def assigned(message: Message, context: Context) -> Message:
        me, settings = load(context, _job(message)), settings_of(message.content)
        given, each = delivery(message.content), []
        Guard(me).no_newcomers()
        trials = zip(cast(list[int], settings["shots"]), cast(list[int], settings["draws"]),
                     given.arrays["weights"][0], strict=True)
        for m, draw, w in trials:
            models = {name: t[:, w > 0] for name, t in given.models.items()}
            cohort = me.with_shots(cast(int, settings["round"]), m, draw) if m else _cohort(me, message, context)
            if m:
                models = me.algorithm.local_adapted(cohort, models)
            each.append(_values(cohort.evaluate(models, w[w > 0][None], hard=me.algorithm.hard)))
        metrics = MetricRecord({name: [values[name] for values in each] for name in each[0]})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def _job(message: Message) -> int:
    return cast(int, settings_of(message.content)["job"])


def _memory(message: Message) -> str:
    """Name of the client's memory in its Context: one for every job of the run."""
    return f"memory-{_job(message)}"


def _cohort(me: Participant, message: Message, context: Context) -> Cohort:
    """The client as it stands in the message's round, with its memory."""
    settings = settings_of(message.content)
    round_ = cast(int, settings["round"])
    if me.home is not None:
        return me.cohort(round_, memory.recall(me.home, str(settings.get("federation", "")), round_))
    held = context.state.get(_memory(message))
    return me.cohort(round_, unpack(cast(ArrayRecord, held)) if held is not None else {})


def _remember(me: Participant, message: Message, context: Context, tensors: dict[str, Tensor]) -> None:
    """Keep what the client remembers after the message's round, where it has anything to."""
    if tensors and me.home is not None:
        settings = settings_of(message.content)
        memory.remember(me.home, str(settings["federation"]), cast(int, settings["round"]), tensors)
    elif tensors:
        context.state[_memory(message)] = pack(tensors)


def _before(me: Participant, cohort: Cohort, given: Delivery) -> dict[str, float]:
    """How the client does with what it was sent: the federation after the round before."""
    models, weights = me.algorithm.local_predictor(cohort, given)
    return _values(cohort.evaluate(models, weights, hard=me.algorithm.hard), "before_")


def _after(me: Participant, cohort: Cohort, report: Report) -> dict[str, float]:
    """How the client does with what it trained; nothing when it sends no models."""
    if not report.models:
        return {}
    k = next(iter(report.models.values())).shape[1]
    weights = report.arrays.get("weights", torch.full((1, k), 1 / k))
    return _values(cohort.evaluate(report.models, weights, hard=me.algorithm.hard), "after_")


def _values(measured: dict[str, Tensor], prefix: str = "") -> dict[str, float]:
    return {prefix + name: float(value[0]) for name, value in measured.items()}


app = client_app()
