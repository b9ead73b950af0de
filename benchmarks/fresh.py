"""One measurement a process, so that none inherits the memory or the threads of another."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from typing import Any


def measure(*args: Any) -> dict[str, float]:
    """Run this script's ``one`` with ``args`` in a fresh process on one thread; what it told (:func:`tell`)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, sys.argv[0], "one", *map(str, args)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def tell(result: dict[str, float]) -> None:
    """Inside the fresh process: hand over ``result`` and the process's peak memory in MB."""
    print(json.dumps({**result, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
