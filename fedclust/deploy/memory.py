"""What a deployed client remembers from round to round, on its own disk.

Flower keeps a client's Context in the SuperNode's memory: it is gone when the SuperNode ends, and a new ``flwr run``
begins with an empty one. So it lies in ``<home>/memory/<federation>.safetensors``, where the federation's identity is
drawn when its first round begins, and is that of the run that goes on with it.

The last two rounds are kept: a server that was killed in round r runs r again, and the clients that had finished it
must begin it again with what they knew before.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from graphclust.atomic import write_atomic
from graphclust.graph import InputError

KEPT = 2
"""Rounds of a federation that are kept."""
FEDERATIONS = 10
"""Federations whose memories are kept; those of the oldest are removed."""


def recall(home: Path, federation: str, round: int) -> dict[str, Tensor]:
    """What the client knew before ``round``: after the last round before it that it took part in; {} for none.

    Raises
    ------
    InputError
        A broken file; a round that is too long ago.
    """
    rounds = _read(_file(home, federation))
    before = [r for r in rounds if r < round]
    if not before and len(rounds) >= KEPT:
        raise InputError(f"{_file(home, federation)} holds rounds {min(rounds)} to {max(rounds)}, and round {round} is "
                         "run again; go on from a newer checkpoint, or start the federation anew in another folder")
    return rounds[max(before)] if before else {}


def remember(home: Path, federation: str, round: int, memory: dict[str, Tensor]) -> None:
    """Keep what the client knows after ``round``."""
    file = _file(home, federation)
    rounds = {r: t for r, t in _read(file).items() if r < round} | {round: memory}
    last = sorted(rounds)[-KEPT:]
    write_atomic(file, save({f"{r}/{name}": t.detach().clone().contiguous() for r in last
                             for name, t in rounds[r].items()}))
    others = sorted(file.parent.glob("*.safetensors"), key=lambda p: p.stat().st_mtime)
    for old in others[:-FEDERATIONS]:
        old.unlink(missing_ok=True)


def _file(home: Path, federation: str) -> Path:
    return home / "memory" / f"{quote(federation, safe='')}.safetensors"


def _read(file: Path) -> dict[int, dict[str, Tensor]]:
    if not file.exists():
        return {}
    try:
        held = load_file(file)
    except SafetensorError as e:
        raise InputError(f"{file} is no memory of a client ({e}); remove it: the client begins anew") from e
    rounds: dict[int, dict[str, Tensor]] = {}
    for key, t in held.items():
        r, name = key.split("/", 1)
        rounds.setdefault(int(r), {})[name] = t
    return rounds
