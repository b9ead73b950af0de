"""Tensors in Flower's records: they become bytes when they leave the process, and not before."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

NUMPY = "numpy.ndarray"
"""How Flower calls arrays in numpy's file format."""
Signature = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
"""Name, shape and dtype of every tensor."""


class TensorRecord(ArrayRecord):
    """An ArrayRecord whose arrays are written, byte for byte as Flower writes them, when somebody asks for them.

    Inside one process nobody does: :func:`unpack` and :func:`gathered` hand out the tensors themselves, so what is in
    a record must not be changed in place.

    Parameters
    ----------
    source : tensors (A_1, ..., A_m, ...) by name; many records may share one source
    at : (a_1, ..., a_m), which part of the source is meant; (): all of it
    """

    __qualname__ = "ArrayRecord"  # what Flower writes before the bytes, and reads them by

    def __init__(self, source: Mapping[str, Tensor], at: tuple[int, ...] = ()) -> None:
        super().__init__()
        # plain attributes: Flower's records keep theirs in __dict__ as well
        self.source: Mapping[str, Tensor] | None = source
        self.at = at
        self.__dict__["_data"] = None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, not copied."""
        if self.source is None:
            return {name: _tensor(a) for name, a in self.items()}
        return {name: t[self.at] if self.at else t for name, t in self.source.items()}

    def signature(self) -> Signature:
        """What tensors it holds."""
        return _signature(self.tensors() if self.source is None else self.source, len(self.at) if self.source else 0)

    def _written(self) -> dict[str, Array]:
        if self.__dict__["_data"] is None:
            self.__dict__["_data"] = {name: _array(t) for name, t in self.tensors().items()}
        return cast(dict[str, Array], self.__dict__["_data"])

    def __getitem__(self, item: str) -> Array:
        return self._written()[item]

    def __iter__(self) -> Iterator[str]:
        return iter(self._written())

    def __len__(self) -> int:
        return len(self._written())

    def __contains__(self, key: object) -> bool:
        return key in self._written()

    def __eq__(self, other: object) -> bool:
        self._written()
        if isinstance(other, TensorRecord):
            other._written()
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as Flower's

    def __repr__(self) -> str:
        return repr(self._written())

    def keys(self) -> KeysView[str]:
        """Names."""
        return self._written().keys()

    def values(self) -> ValuesView[Array]:
        """Arrays."""
        return self._written().values()

    def items(self) -> ItemsView[str, Array]:
        """Names and arrays."""
        return self._written().items()

    def copy(self) -> TensorRecord:
        """A record with the same tensors; to change one of the two does not change the other."""
        if self.source is not None:
            return TensorRecord(self.source, self.at)
        new = super().copy()
        new.source, new.at = None, ()
        return new

    def __setitem__(self, key: str, value: Array) -> None:
        self._written()
        self.source = None
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._written()
        self.source = None
        super().__delitem__(key)

    def __reduce__(self) -> tuple[Any, ...]:
        # written anew: an Array that Flower has looked at holds what cannot be pickled
        return _plain, ({name: _array(t) for name, t in self.tensors().items()},)


def _plain(arrays: dict[str, Array]) -> ArrayRecord:
    record = ArrayRecord()
    record.__dict__["_data"] = arrays
    return record


def pack(tensors: Mapping[str, Tensor]) -> TensorRecord:
    """Tensors as an ArrayRecord; dtypes and 0-d tensors are kept.

    Raises
    ------
    TypeError
        A dtype that numpy does not have.
    """
    for name, t in tensors.items():
        if t.dtype == torch.bfloat16:
            raise TypeError(f"{name} is BFloat16, which numpy does not have; send float32")
    return TensorRecord(tensors)


def unpack(record: ArrayRecord) -> dict[str, Tensor]:
    """The tensors of an ArrayRecord; of a :class:`TensorRecord` its own, not to be changed in place."""
    if isinstance(record, TensorRecord):
        return record.tensors()
    return {name: _tensor(a) for name, a in record.items()}


def gathered(records: Sequence[ArrayRecord]) -> dict[str, Tensor]:
    """Tensors (S, ...) of S records, stacked; without a copy where they are all parts of one source, in its order.

    Raises
    ------
    KeyError, RuntimeError
        Records that do not hold the same names, or tensors of unlike shapes.
    """
    held = [r if isinstance(r, TensorRecord) and r.source is not None else pack(unpack(r)) for r in records]
    parts: dict[tuple[int, int], list[int]] = {}
    for i, r in enumerate(held):
        parts.setdefault((id(r.source), len(r.at)), []).append(i)
    if len(parts) == len(held):
        each = [r.tensors() for r in held]
        _same_names(each)
        return {name: torch.stack([t[name] for t in each]) for name in each[0]}
    found = [_rows([held[i] for i in where]) for where in parts.values()]
    _same_names(found)
    if len(found) == 1:
        return found[0]
    order = torch.tensor([i for where in parts.values() for i in where]).argsort()
    return {name: torch.cat([t[name] for t in found])[order] for name in found[0]}


def _rows(records: Sequence[TensorRecord]) -> dict[str, Tensor]:
    """The parts of one source that these records mean, stacked."""
    source, depth = cast(Mapping[str, Tensor], records[0].source), len(records[0].at)
    if not depth:
        return {name: t.expand(len(records), *t.shape) for name, t in source.items()}
    lead = next(iter(source.values())).shape[:depth]
    if all(r.at == records[0].at for r in records):
        return {name: t.expand(len(records), *t.shape) for name, t in records[0].tensors().items()}
    at = np.ravel_multi_index(tuple(zip(*(r.at for r in records), strict=True)), lead)
    in_order = len(at) == np.prod(lead) and bool((at == np.arange(len(at))).all())
    index = None if in_order else torch.from_numpy(at)
    return {name: t.flatten(0, depth - 1) if index is None else t.flatten(0, depth - 1)[index]
            for name, t in source.items()}


def _same_names(each: Sequence[Mapping[str, Tensor]]) -> None:
    for tensors in each:
        if tensors.keys() != each[0].keys():
            raise KeyError(sorted(tensors.keys() ^ each[0].keys())[0])


def signature(record: ArrayRecord) -> Signature:
    """What tensors a record holds."""
    return record.signature() if isinstance(record, TensorRecord) else _signature(unpack(record), 0)


def _signature(tensors: Mapping[str, Tensor], depth: int) -> Signature:
    return tuple((name, tuple(t.shape[depth:]), t.dtype) for name, t in sorted(tensors.items()))


def n_bytes(records: Iterable[ArrayRecord]) -> int:
    """Bytes of all tensors of these records, without names and headers."""
    counts: Counter[tuple[int, int]] = Counter()
    sources: dict[int, Mapping[str, Tensor]] = {}
    total = 0
    for r in records:
        if isinstance(r, TensorRecord) and r.source is not None:
            sources[id(r.source)] = r.source
            counts[id(r.source), len(r.at)] += 1
        else:
            total += sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in r.values())
    for (source, depth), count in counts.items():
        total += count * sum(math.prod(t.shape[depth:]) * t.itemsize for t in sources[source].values())
    return total


def _array(t: Tensor) -> Array:
    a = t.detach().cpu().numpy()
    # Flower writes and parses the header anew for every array: as long as a training step of a small model
    dtype, header = _header(a.dtype, a.shape)
    return Array(dtype, a.shape, NUMPY, header + a.tobytes())


def _tensor(array: Array) -> Tensor:
    _, header = _header(np.dtype(array.dtype), array.shape)
    if array.stype != NUMPY or not array.data.startswith(header):  # another writer: Flower reads it in full
        return torch.from_numpy(array.numpy())
    return torch.from_numpy(np.frombuffer(array.data, array.dtype, offset=len(header)).reshape(array.shape).copy())


@lru_cache(maxsize=1024)
def _header(dtype: np.dtype, shape: tuple[int, ...]) -> tuple[str, bytes]:
    """The dtype's name, and what a C-ordered .npy file of this dtype and shape begins with."""
    out = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return str(dtype), out.getvalue()
