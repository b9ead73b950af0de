"""A model on disk: a folder with model.safetensors and model.json, no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from graphclust.atomic import write_atomic
from graphclust.graph import InputError


def save_tensors(folder: str | Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write ``tensors`` and the JSON ``description`` into ``folder``, which is made if need be."""
    folder = Path(folder)
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(folder / "model.safetensors", safetensors.torch.save(held))
    write_atomic(folder / "model.json", json.dumps(description, indent=1) + "\n")


def load_tensors(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote; InputError when a file is missing or unreadable."""
    folder = Path(folder)
    try:
        description = json.loads((folder / "model.json").read_text())
        return safetensors.torch.load((folder / "model.safetensors").read_bytes()), description
    except (OSError, ValueError, safetensors.SafetensorError) as e:
        raise InputError(f"no saved model in {folder}: {e}; give the folder that save() wrote") from e
