"""Writing a file so that a reader sees the old one or the new one; imports nothing of the project."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR,
                errno.EISDIR, errno.ENAMETOOLONG}
"""What the user's choice of a place may cause, beside bad input: error numbers of the system."""


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
