"""What Flower's run config hands to both apps: which federations to run, and where the results go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedclust.config import FederationConfig
from graphclust.config_file import problems
from graphclust.graph import InputError

PACKAGES = ("graphclust", "flwr", "torch")


@lru_cache(maxsize=1)
def versions() -> tuple[str, ...]:
    """Package and major.minor of what server and clients must have alike."""
    return tuple(f"{name} {'.'.join(version(name).split('.')[:2])}" for name in PACKAGES)


def config_text(run_config: Mapping[str, Any]) -> str:
    """The JSON that the run config's ``config`` is, or that lies in the file which it names.

    Raises
    ------
    InputError
        No config, or no such file.
    """
    text = str(run_config.get("config", "")).strip()
    if not text:
        raise InputError("run config has no `config`; give a FederationConfig as JSON, or the path of a JSON file")
    if text[0] in "{[":
        return text
    if not Path(text).is_file():
        raise InputError(f"config = {text!r} of the run config: no such file; give its absolute path, or JSON itself")
    return Path(text).read_text()


@lru_cache(maxsize=4)
def jobs(text: str) -> tuple[FederationConfig, ...]:
    """The federations that one Flower run works through, one after the other: one FederationConfig, or a list of them.

    Raises
    ------
    InputError
        No JSON, or settings that are not allowed.
    """
    try:
        held = json.loads(text)
        return tuple(FederationConfig.model_validate(c) for c in (held if isinstance(held, list) else [held]))
    except json.JSONDecodeError as e:
        raise InputError(f"config of the run config is no JSON: {e}") from e
    except ValidationError as e:
        raise InputError(f"config of the run config: {problems(e, FederationConfig)}") from e
