"""Processes that a test started, as they are when it looks: some have ended, and some of these nobody has reaped."""

import psutil


def commands_below(pid=None):
    """The command lines of a process's descendants (None: of this process), by process; without those that ended."""
    try:
        family = {p.pid for p in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return {}
    return {p: p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if p.pid in family and p.info["cmdline"]}
