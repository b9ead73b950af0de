"""Every federated algorithm, one a file, found by its file name."""

from __future__ import annotations

import sys
from typing import Any

from pydantic import ValidationError

from fedclust.algorithms.base import FederatedAlgorithm
from fedclust.task import Training
from graphclust.config_file import problems
from graphclust.graph import InputError
from graphclust.registry import class_in, names_in

__all__ = ["FederatedAlgorithm", "algorithm_names", "describe_algorithms", "get_algorithm", "make_algorithm"]


def algorithm_names() -> list[str]:
    """Names of all algorithms, sorted."""
    return names_in(sys.modules[__name__])


def get_algorithm(name: str) -> type[FederatedAlgorithm]:
    """The class of the algorithm called ``name``; InputError, with the nearest name, when there is none."""
    return class_in(sys.modules[__name__], name, FederatedAlgorithm, "algorithm")


def make_algorithm(
    name: str, settings: dict[str, Any] | None = None, training: Training | None = None
) -> FederatedAlgorithm:
    """The algorithm with its settings; InputError naming the setting that is unknown or out of range."""
    cls = get_algorithm(name)
    try:
        return cls(**(settings or {}), training=training or Training())
    except ValidationError as e:
        known = [field for field in cls.model_fields if field != "training"]
        raise InputError(f"settings of {name}: {problems(e)}; it has: {', '.join(known) or 'none'}") from e


def describe_algorithms() -> list[dict[str, Any]]:
    """Name, summary, what travels, paper and settings of every algorithm."""
    rows = []
    for name in algorithm_names():
        cls = get_algorithm(name)
        settings = {field: info.get_default(call_default_factory=True) for field, info in cls.model_fields.items()
                    if field != "training"}
        summary = (sys.modules[cls.__module__].__doc__ or "").partition("\n")[0]
        rows.append({"name": name, "summary": summary, "sends": cls.sends, "source": cls.source, "settings": settings})
    return rows
