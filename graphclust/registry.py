"""Classes found by the file they stand in: one method, or one algorithm, a file."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

from graphclust.graph import InputError

T = TypeVar("T")


def names_in(package: ModuleType) -> list[str]:
    """The package's modules but ``base`` and the private ones, sorted."""
    modules = pkgutil.iter_modules(package.__path__)
    return sorted(m.name for m in modules if m.name != "base" and not m.name.startswith("_"))


def class_in(package: ModuleType, name: str, base: type[T], kind: str) -> type[T]:
    """The subclass of ``base`` that the package's module ``name`` defines.

    Parameters
    ----------
    kind : what such classes are, for the message

    Raises
    ------
    InputError
        There is none; the message gives the nearest name and all names.
    """
    known = names_in(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"unknown {kind} {name!r}; {hint}the {kind}s are: {', '.join(known)}")
    module = importlib.import_module(f"{package.__name__}.{name}")
    return next(c for c in vars(module).values()
                if isinstance(c, type) and issubclass(c, base) and c.__module__ == module.__name__)
