"""Reading settings from a YAML file; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

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
        where = ".".join(str(p) for p in first["loc"])
        allowed = ", ".join(model.model_fields)
        raise InputError(f"the config {path} is wrong at {where!r}: {first['msg']}; its keys are: {allowed}") from e
