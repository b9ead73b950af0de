"""Reading settings from a YAML file; imports nothing heavy."""

from __future__ import annotations

from inspect import isclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from graphclust.graph import InputError

M = TypeVar("M", bound=BaseModel)


def read_model(path: Path, model: type[M]) -> M:
    """Read a YAML file into ``model``; InputError naming the file, each key that is wrong, and the keys there are."""
    if not path.is_file():
        raise InputError(f"the config {path} does not exist; give a YAML file, see configs/ for examples")
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as e:
        raise InputError(f"the config {path} is not valid YAML: {e}") from e
    except ValidationError as e:
        raise InputError(f"the config {path} is wrong: {problems(e, model)}") from e


def problems(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """What is wrong with settings of ``model``, in one line: each one's name, its value, and what is allowed."""
    return "; ".join(_problem(p, model) for p in error.errors())


def _problem(p: Any, model: type[BaseModel] | None) -> str:
    if not p["loc"]:  # of several settings together, which the words name
        return _told(p, model)
    value = "" if isinstance(p["input"], dict) else f" = {p['input']!r}"
    return f"{'.'.join(map(str, p['loc']))}{value}: {_told(p, model)}"


def _told(p: Any, model: type[BaseModel] | None) -> str:
    """The words of our own validators as they are, of what is about keys with the keys that there are, or else
    pydantic's."""
    own = p.get("ctx", {}).get("error")
    if isinstance(own, ValueError):
        return str(own)
    match p["type"]:
        case "extra_forbidden":
            words, path = "there is no such key", p["loc"][:-1]
        case "model_type":
            words, path = "it must be keys and values", p["loc"]
        case "missing":
            return "it is missing"
        case _:
            return str(p["msg"])
    inside = _inside(model, path)
    return words + (f"; {'.'.join(map(str, path)) or 'it'} has the keys: {', '.join(inside)}" if inside else "")


def _inside(model: type[BaseModel] | None, path: tuple[str | int, ...]) -> list[str]:
    """The fields of the model that lies at ``path`` in ``model``; none where several could lie there."""
    for name in path:
        annotation = model.model_fields[str(name)].annotation if model and name in model.model_fields else None
        found = [t for t in (get_args(annotation) or [annotation]) if isclass(t) and issubclass(t, BaseModel)]
        model = found[0] if len(found) == 1 else None
    return list(model.model_fields) if model else []
