"""Payloads and reports as Flower records, and back.

A payload becomes one ArrayRecord per group model (``model-0`` ... ``model-{k-1}``), an ArrayRecord ``arrays`` and a
ConfigRecord ``settings``; a report the same without settings. One client's tensors travel without the cohort's axis B.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedclust.algorithms.base import Delivery, Payload, Report, State, models
from fedclust.models import Params
from fedclust.records import Signature, TensorRecord, gathered, n_bytes, pack

Record = ArrayRecord | ConfigRecord | MetricRecord
Setting = str | int | float | bool | list[int] | list[float]


def tensor_bytes(contents: Iterable[RecordDict]) -> int:
    """Bytes of all tensors in these messages: what travels, without names and headers."""
    times: Counter[int] = Counter()  # many messages share their content
    by_times: dict[int, list[ArrayRecord]] = {}
    once: dict[int, RecordDict] = {}
    for content in contents:
        once[id(content)] = content
        times[id(content)] += 1
    for i, count in times.items():
        by_times.setdefault(count, []).extend(r for r in once[i].values() if isinstance(r, ArrayRecord))
    return sum(count * n_bytes(records) for count, records in by_times.items())


class Packer:
    """Payloads of one state as messages: each group model is packed once and shared by all messages that carry it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._families: dict[str, Params] = {}
        self._signatures: dict[str, Signature] = {}
        self._packed: dict[tuple[str, int], TensorRecord] = {}
        self._contents: dict[tuple[Any, ...], RecordDict] = {}
        self._settings: Mapping[str, Setting] | None = None
        self._said: tuple[Any, ...] = ()  # the settings of the last content, as part of a key

    def content(self, payload: Payload, settings: Mapping[str, Setting] | None = None) -> RecordDict:
        """A message's content; ``settings`` travel beside the payload's phase.

        Payloads that say the same share one: to make and check a record takes Flower longer than a small model's step.
        """
        if settings is not self._settings:
            self._settings = settings
            self._said = tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in (settings or {}).items())
        key = (payload.family, tuple(payload.groups), payload.phase, self._said)
        content = self._contents.get(key)
        if content is None:
            content = RecordDict({f"model-{j}": self._model(payload.family, k) for j, k in enumerate(payload.groups)})
            content["settings"] = ConfigRecord({**(settings or {}), "phase": payload.phase})
            self._contents[key] = content
        if payload.arrays:
            content = content.copy()
            content["arrays"] = pack(payload.arrays)
        return content

    def signature(self, family: str) -> Signature:
        """Of one model of the family; empty when the state has no such family."""
        if family not in self._signatures:
            held = sorted(self._family(family).items())
            self._signatures[family] = tuple((name, tuple(t.shape[1:]), t.dtype) for name, t in held)
        return self._signatures[family]

    def _family(self, family: str) -> Params:
        if family not in self._families:
            self._families[family] = models(self._state, family)
        return self._families[family]

    def _model(self, family: str, k: int) -> TensorRecord:
        if (family, k) not in self._packed:
            self._packed[family, k] = TensorRecord(self._family(family), (k,))
        return self._packed[family, k]


def settings_of(content: RecordDict) -> ConfigRecord:
    """The settings that travel with a payload."""
    return cast(ConfigRecord, content["settings"])


def delivery(contents: Sequence[RecordDict]) -> Delivery:
    """Messages with as many models and the same arrays each, as they arrive at a cohort of their B clients."""
    return Delivery(_models(contents), _arrays(contents), str(settings_of(contents[0])["phase"]))


def report_contents(report: Report, b: int, prefix: str = "") -> list[dict[str, Record]]:
    """The reports of a cohort's B clients as records; ``prefix`` sets apart several in one message."""
    k = next(iter(report.models.values())).shape[1] if report.models else 0
    names = [f"{prefix}model-{j}" for j in range(k)]
    each: list[dict[str, Record]] = [
        {name: TensorRecord(report.models, (i, j)) for j, name in enumerate(names)} for i in range(b)]
    if report.arrays:
        for i, records in enumerate(each):
            records[f"{prefix}arrays"] = TensorRecord(report.arrays, (i,))
    return each


def reports(contents: Sequence[RecordDict], prefix: str = "") -> Report:
    """Reports with as many models and the same arrays each, stacked: models (S, k', ...), arrays (S, ...).

    Raises
    ------
    KeyError, RuntimeError
        Models that do not have the same parameters, or not of the same shapes.
    """
    return Report(_models(contents, prefix), _arrays(contents, prefix))


def n_models(content: RecordDict, prefix: str = "") -> int:
    """How many models a message carries."""
    k = 0
    while f"{prefix}model-{k}" in content:
        k += 1
    return k


def _models(contents: Sequence[RecordDict], prefix: str = "") -> Params:
    """The models ``model-0``, ``model-1``, ... of every message (S, k, ...); {} without any."""
    k = n_models(contents[0], prefix)
    flat = [cast(ArrayRecord, content[f"{prefix}model-{j}"]) for content in contents for j in range(k)]
    return {name: t.unflatten(0, (len(contents), k)) for name, t in gathered(flat).items()} if flat else {}


def _arrays(contents: Sequence[RecordDict], prefix: str = "") -> dict[str, torch.Tensor]:
    name = f"{prefix}arrays"
    return gathered([cast(ArrayRecord, content[name]) for content in contents]) if name in contents[0] else {}
