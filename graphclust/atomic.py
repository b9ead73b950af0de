"""Writing a file so that a reader sees the old one or the new one; imports nothing of the project."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

NOT_WRITABLE = (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)
"""What the user's choice of a place may cause, beside bad input."""


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write under a temporary name in the same folder, then rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content.encode() if isinstance(content, str) else content)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
