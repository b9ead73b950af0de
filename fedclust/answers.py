"""What clients answer to the messages of a round, one client's or those of many clients side by side.

The ClientApp answers for its one client, the batched engine for whole cohorts; both call these functions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedclust.algorithms.base import Delivery, Report
from fedclust.flwr_compat import contents_of
from fedclust.guard import Guard, guarded, guarded_evidence
from fedclust.messages import Record, delivery, n_models, report_contents, settings_of
from fedclust.participant import Participant
from fedclust.probation import PHASE
from fedclust.records import TensorRecord, signature
from fedclust.run_config import versions
from fedclust.task import Cohort


@dataclass
class Asked:
    """A client, the content of its message, and what it keeps from round to round."""

    me: Participant
    content: RecordDict
    memory: dict[str, Tensor]


def form(content: RecordDict) -> Hashable:
    """Messages of one form say the same and carry as many models and the same arrays."""
    arrays = signature(cast(ArrayRecord, content["arrays"])) if "arrays" in content else ()
    said = tuple((key, tuple(v) if isinstance(v, list) else v) for key, v in settings_of(content).items())
    return said, n_models(content), arrays


def alike(asked: Asked) -> Hashable:
    """Clients of which this is the same, with messages of one form, can be answered for as one cohort."""
    return asked.me.kind, tuple((name, t.shape, t.dtype) for name, t in asked.memory.items())


def hello(me: Participant) -> ConfigRecord:
    """Who the client is."""
    return ConfigRecord({"versions": list(versions()), "id": me.client.id, "role": me.role, "n_classes": me.n_classes,
                         "n_train": Guard(me).n_train, "input_shape": list(me.client.input_shape)})


def train(asked: Sequence[Asked], cohort: Cohort) -> list[RecordDict]:
    """One round, with the evaluation before and after; ``cohort.memory`` is then what the clients remember."""
    me, settings = asked[0].me, settings_of(asked[0].content)
    given = _given(asked, cohort)
    measured = bool(settings["evaluate"]) and given.phase == "train" and Guard(me).measures
    values = _before(me, cohort, given) if measured else {}
    on_probation = given.phase == PHASE
    report = (me.algorithm.local_probation if on_probation else me.algorithm.local_step)(cohort, given)
    if measured:
        values |= _after(me, cohort, report)
    report = guarded([a.me for a in asked], _here(report), given, cohort.round, str(settings.get("federation", "")))
    each = report_contents(report, len(asked))
    said: dict[tuple[float, ...], MetricRecord] = {}  # clients that say the same share a record
    for a, records, row in zip(asked, each, _rows(values, len(asked)), strict=True):
        row = {"n": Guard(a.me).n_train, **row}
        key = tuple(row.values())
        if key not in said:
            said[key] = MetricRecord({**row})
        records["metrics"] = said[key]
    return contents_of(each)


def evaluate(asked: Sequence[Asked], cohort: Cohort) -> list[RecordDict]:
    """How the clients fare with what was delivered, and with which weights."""
    me, b = asked[0].me, len(asked)
    models, weights = me.algorithm.local_predictor(cohort, _given(asked, cohort))
    values = cohort.evaluate(models, weights, hard=me.algorithm.hard) if Guard(me).measures else {}
    each: list[dict[str, Record]] = []
    for i, row in enumerate(_rows(values, b)):
        arrays = {} if Guard(me).noises else {"weights": weights[i].cpu()}
        if me.model.clusters:  # clusters are found among the nodes of all clients
            arrays["embedding"] = cohort.embedding(i, {name: t[i] for name, t in models.items()}, weights[i]).cpu()
        each.append({"arrays": TensorRecord(arrays), "metrics": MetricRecord(dict(row))})
    return contents_of(each)


def evidence(asked: Sequence[Asked], cohort: Cohort) -> list[RecordDict]:
    """What newcomers find out from a few labelled samples, in every trial."""
    algorithm, given = asked[0].me.algorithm, _given(asked, cohort)
    each: list[dict[str, Record]] = [{} for _ in asked]
    for j, (m, draw) in enumerate(_trials(asked)):
        found = algorithm.local_evidence(_with_shots(asked, cohort, m, draw), given)
        found = guarded_evidence([a.me for a in asked], _here(found), j)
        for records, own in zip(each, report_contents(found, len(asked), prefix=f"{j}-"), strict=True):
            records |= own
    return contents_of(each)


def assigned(asked: Sequence[Asked], cohort: Cohort) -> list[RecordDict]:
    """How newcomers fare under the weights (R, k) that they were assigned, one row a trial."""
    algorithm, given = asked[0].me.algorithm, _given(asked, cohort)
    for a in asked:
        Guard(a.me).no_newcomers()
    each = []
    for r, (m, draw) in enumerate(_trials(asked)):
        models, here = given.models, cohort
        if m:
            here = _with_shots(asked, cohort, m, draw)
            models = algorithm.local_adapted(here, models)
        each.append(_rows(here.evaluate(models, given.arrays["weights"][:, r], hard=algorithm.hard), len(asked)))
    return contents_of([{"metrics": MetricRecord({name: [row[i][name] for row in each] for name in each[0][i]})}
                        for i in range(len(asked))])


ANSWERS = {"train": train, "evaluate": evaluate, "query.evidence": evidence, "evaluate.assigned": assigned}
"""By type of the message."""


def _given(asked: Sequence[Asked], cohort: Cohort) -> Delivery:
    """What the cohort was sent, where it computes."""
    given = delivery([a.content for a in asked])
    if cohort.device.type != "cpu":
        given.models, given.arrays = ({name: t.to(cohort.device) for name, t in of.items()}
                                      for of in (given.models, given.arrays))
    return given


def _here(report: Report) -> Report:
    """The report where servers compute."""
    return Report(*({name: t.cpu() for name, t in of.items()} for of in (report.models, report.arrays)))


def _trials(asked: Sequence[Asked]) -> list[tuple[int, int]]:
    """(shots, draw) of every trial of these newcomers."""
    said = settings_of(asked[0].content)
    return list(zip(cast(list[int], said["shots"]), cast(list[int], said["draws"]), strict=True))


def _with_shots(asked: Sequence[Asked], cohort: Cohort, m: int, draw: int) -> Cohort:
    """The cohort with ``m`` labelled samples a client."""
    clients = [a.me.with_shots(m, draw) for a in asked]
    return Cohort(clients, cohort.model, seed=cohort.seed, round=cohort.round, device=cohort.device)


def _before(me: Participant, cohort: Cohort, given: Delivery) -> dict[str, Tensor]:
    """How the clients do with what they were sent: the federation after the round before."""
    models, weights = me.algorithm.local_predictor(cohort, given)
    measured = cohort.evaluate(models, weights, hard=me.algorithm.hard)
    return {f"before_{name}": t for name, t in measured.items()}


def _after(me: Participant, cohort: Cohort, report: Report) -> dict[str, Tensor]:
    """How the clients do with what they trained; nothing when they send no models."""
    if not report.models:
        return {}
    b, k = next(iter(report.models.values())).shape[:2]
    weights = report.arrays.get("weights", torch.full((b, k), 1 / k, device=cohort.device))
    measured = cohort.evaluate(report.models, weights, hard=me.algorithm.hard)
    return {f"after_{name}": t for name, t in measured.items()}


def _rows(values: dict[str, Tensor], b: int) -> list[dict[str, float]]:
    """Tensors (B,) by name as one dict a client."""
    columns = {name: t.tolist() for name, t in values.items()}
    return [{name: column[i] for name, column in columns.items()} for i in range(b)]
