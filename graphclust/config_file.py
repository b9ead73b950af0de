"""Reading settings from a YAML file; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from graphclust.graph import InputError

M = TypeVar("M", bound=BaseModel)


def read_model(path: Path, model: type[M]) -> M:
    """Read a YAML file into ``model``; InputError naming the file, the key and the keys there are."""
    if not path.is_file():
        raise InputError(f"the config {path} does not exist; give a YAML file, see configs/ for examples")
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as e:
        raise InputError(f"the config {path} is not valid YAML: {e}") from e
    except ValidationError as e:
        first = e.errors()[0]
        where = f" at {'.'.join(map(str, first['loc']))!r}" if first["loc"] else ""
        allowed = ", ".join(model.model_fields)
        raise InputError(f"the config {path} is wrong{where}: {_told(first)}; its keys are: {allowed}") from e


def problems(error: ValidationError) -> str:
    """What is wrong with settings, in one line: each one's name, its value, and what is allowed."""
    return "; ".join(map(_problem, error.errors()))


def _problem(p: Any) -> str:
    if not p["loc"]:  # of several settings together, which the words name
        return _told(p)
    value = "" if isinstance(p["input"], dict) else f" = {p['input']!r}"
    return f"{'.'.join(map(str, p['loc']))}{value}: {_told(p)}"


def _told(p: Any) -> str:
    """The words of our own validators as they are, or else pydantic's."""
    own = p.get("ctx", {}).get("error")
    return str(own) if isinstance(own, ValueError) else str(p["msg"])
