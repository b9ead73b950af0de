"""Payloads and reports as Flower records, and back.

A payload becomes one ArrayRecord per group model (``model-0`` ... ``model-{k-1}``), an ArrayRecord ``arrays`` and a
ConfigRecord ``settings``; a report the same without settings. One client's tensors travel without the cohort's axis B.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fedclust.algorithms.base import Delivery, Payload, Report, State, models
from fedclust.models import Params

NUMPY = "numpy.ndarray"
"""How Flower calls arrays in numpy's file format."""
Setting = str | int | float | bool | list[int] | list[float]


def pack(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Tensors as an ArrayRecord, byte for byte what Flower makes of them; dtypes and 0-d tensors are kept.

    Raises
    ------
    TypeError
        A dtype that numpy does not have (bfloat16).
    """
    record = ArrayRecord()
    for name, t in tensors.items():
        a = t.detach().cpu().numpy()
        # Flower writes and parses the header anew for every array: as long as a training step of a small model
        dtype, header = _header(a.dtype, a.shape)
        record[name] = Array(dtype, a.shape, NUMPY, header + a.tobytes())
    return record


def unpack(record: ArrayRecord) -> dict[str, Tensor]:
    """The tensors of an ArrayRecord, as memory of their own."""
    return {name: torch.from_numpy(_ndarray(a)) for name, a in record.items()}


def _ndarray(array: Array) -> np.ndarray:
    _, header = _header(np.dtype(array.dtype), array.shape)
    if array.stype != NUMPY or not array.data.startswith(header):  # another writer: Flower reads it in full
        return array.numpy()
    return np.frombuffer(array.data, array.dtype, offset=len(header)).reshape(array.shape).copy()


@lru_cache(maxsize=1024)
def _header(dtype: np.dtype, shape: tuple[int, ...]) -> tuple[str, bytes]:
    """The dtype's name, and what a C-ordered .npy file of this dtype and shape begins with."""
    out = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return str(dtype), out.getvalue()


def tensor_bytes(content: RecordDict) -> int:
    """Bytes of all tensors in a message: what travels, without names and headers."""
    return sum(
        math.prod(a.shape) * np.dtype(a.dtype).itemsize
        for record in content.values() if isinstance(record, ArrayRecord) for a in record.values()
    )


class Packer:
    """Payloads of one state as messages: each group model is packed once and shared by all messages that carry it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._families: dict[str, Params] = {}
        self._packed: dict[tuple[str, int], ArrayRecord] = {}

    def content(self, payload: Payload, settings: Mapping[str, Setting] | None = None) -> RecordDict:
        """A message's content; ``settings`` travel beside the payload's phase."""
        content = RecordDict({f"model-{j}": self._model(payload.family, k) for j, k in enumerate(payload.groups)})
        if payload.arrays:
            content["arrays"] = pack(payload.arrays)
        content["settings"] = ConfigRecord({**(settings or {}), "phase": payload.phase})
        return content

    def shapes(self, family: str) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter of one model of the family; empty when the state has no such family."""
        return {name: tuple(t.shape[1:]) for name, t in self._family(family).items()}

    def _family(self, family: str) -> Params:
        if family not in self._families:
            self._families[family] = models(self._state, family)
        return self._families[family]

    def _model(self, family: str, k: int) -> ArrayRecord:
        if (family, k) not in self._packed:
            self._packed[family, k] = pack({name: t[k] for name, t in self._family(family).items()})
        return self._packed[family, k]


def settings_of(content: RecordDict) -> ConfigRecord:
    """The settings that travel with a payload."""
    return cast(ConfigRecord, content["settings"])


def delivery(content: RecordDict) -> Delivery:
    """A message as it arrives at a cohort of one."""
    return Delivery(
        {name: t[None] for name, t in _models(content).items()},
        {name: t[None] for name, t in _arrays(content).items()},
        str(settings_of(content)["phase"]),
    )


def report_content(report: Report, prefix: str = "") -> RecordDict:
    """The report of a cohort of one as a message's content; ``prefix`` sets apart several reports in one message."""
    k = next(iter(report.models.values())).shape[1] if report.models else 0
    content = RecordDict({
        f"{prefix}model-{j}": pack({name: t[0, j] for name, t in report.models.items()}) for j in range(k)
    })
    if report.arrays:
        content[f"{prefix}arrays"] = pack({name: t[0] for name, t in report.arrays.items()})
    return content


def client_report(content: RecordDict, prefix: str = "") -> Report:
    """One client's report without the cohort's axis: models (k', ...), arrays (...).

    Raises
    ------
    KeyError, RuntimeError
        Models that do not have the same parameters, or not of the same shapes.
    """
    return Report(_models(content, prefix), _arrays(content, prefix))


def stacked(reports: Iterable[Report]) -> Report:
    """Reports of single clients as one: models (S, k', ...), arrays (S, ...)."""
    each = list(reports)
    return Report(
        {name: torch.stack([r.models[name] for r in each]) for name in each[0].models},
        {name: torch.stack([r.arrays[name] for r in each]) for name in each[0].arrays},
    )


def _models(content: RecordDict, prefix: str = "") -> Params:
    """The models ``model-0``, ``model-1``, ... stacked (k, ...); {} without any."""
    found: list[Params] = []
    while (name := f"{prefix}model-{len(found)}") in content:
        found.append(unpack(cast(ArrayRecord, content[name])))
    return {name: torch.stack([m[name] for m in found]) for name in found[0]} if found else {}


def _arrays(content: RecordDict, prefix: str = "") -> dict[str, Tensor]:
    name = f"{prefix}arrays"
    return unpack(cast(ArrayRecord, content[name])) if name in content else {}
