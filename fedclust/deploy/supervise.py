"""Keeping Flower's processes: a SuperNode is started again while its former session lasts; SIGTERM ends the family."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from fedclust.deploy.checks import check_server_side
from fedclust.deploy.commands import Command, connect, own_address
from fedclust.deploy.registration import synchronise
from fedclust.deploy.settings import SuperLinkSettings
from fedclust.processes import end, terminable
from graphclust.graph import InputError

PATIENCE = 180.0
"""Seconds of nothing but refusals after which a SuperNode is given up; a former session lasts 60."""
STEADY = 60.0
"""A process that lived so many seconds had been let in."""
FIRST, LONGEST = 2.0, 10.0
"""Seconds before the first start anew; each further one takes twice as long, up to the second number."""
START = 120.0
"""Seconds that the SuperLink may take to answer."""
REFUSED = 305
"""Flower's exit code of a SuperNode that the SuperLink does not let in."""
LET_GO = ("the SuperLink no longer takes what it sends: its key is no longer registered there, or this machine's clock "
          "is more than 5 s ahead of the server's")
"""Why a SuperNode ends as if it had been asked to: Flower ends it when a request is answered with 401."""
REMINDER = 60.0
"""Seconds between two words on a SuperLink that does not answer."""
_CODE = re.compile(r"Exit Code: (\d+)")
_TRYING = "Connection attempt failed, retrying"

REASONS = {
    REFUSED: "the SuperLink does not let it in: its former session has not expired (up to a minute after a kill), "
             "another SuperNode runs with its key, or its key is not registered (fedclust deploy register, there)",
    302: "its private key is none that Flower takes; take `key` from the kit again",
    303: "it was started without TLS",
    304: "the file of trusted_entities cannot be used",
    606: "Flower's version is not the SuperLink's; install the same on both sides",
}
"""Flower's exit codes in words."""


def keep_supernode(
    command: Command, tell: Callable[[str], None], show: Callable[[str], None], *,
    check: Callable[[], list[str]] = list, patience: float = PATIENCE, first: float = FIRST, longest: float = LONGEST,
) -> None:
    """Run a SuperNode until SIGTERM; when it is refused or ends, start it again with growing pauses, or give it up.

    Parameters
    ----------
    command : starts it
    tell : called with what the supervision has to say
    show : called with every line that the SuperNode writes
    check : of the server, as a SuperNode sees it (:func:`fedclust.deploy.checks.check_server_side`); Flower tells no
        reason where this finds one
    patience : seconds without a steady process after which it is given up
    first, longest : seconds between two starts

    Returns
    -------
    once it was given up, with the reason told
    """
    since, pause = time.monotonic(), first
    while True:
        started = time.monotonic()
        code, status = run_shown(command, _watching(tell, show, check))
        now = time.monotonic()
        if now - started >= STEADY:
            since, pause = now, first
        reason = _reason(code, status, check)
        if code not in (None, REFUSED):
            tell(f"the SuperNode does not start: {reason}")
            return
        if now - since + pause > patience:
            tell(f"the SuperNode is given up after {now - since:.0f} s: {reason}")
            return
        tell(f"{reason}; next start in {pause:g} s")
        time.sleep(pause)
        pause = min(2 * pause, longest)


def _reason(code: int | None, status: int, check: Callable[[], list[str]]) -> str:
    """Why a SuperNode ended."""
    if code in (None, REFUSED):
        try:
            check()
        except InputError as e:
            return str(e)
    if code is None and status == 0:
        return LET_GO
    return REASONS.get(code or 0, f"it ended with status {status}" + (f", Flower's code {code}" if code else ""))


def _watching(
    tell: Callable[[str], None], show: Callable[[str], None], check: Callable[[], list[str]]
) -> Callable[[str], None]:
    """``show``, and beside it now and then why the SuperNode does not reach the SuperLink, which Flower tries on."""
    last = -REMINDER

    def watch(line: str) -> None:
        nonlocal last
        show(line)
        now = time.monotonic()
        if _TRYING not in line or now - last < REMINDER:
            return
        last = now
        try:
            # what begins otherwise is a server that answers: its own processes try on too while they start
            found = [told for told in check() if told.startswith("note: nobody")]
        except InputError as e:
            found = [str(e)]
        for told in found:
            tell(told)

    return watch


def keep_superlink(command: Command, settings: SuperLinkSettings, tell: Callable[[str], None]) -> int:
    """Run a SuperLink to its end; once it answers, bring its list of keys up to date. Returns its exit status."""
    connect(command.folder, own_address(settings), command.folder / "ca.crt")
    with terminable():
        process = command.start()
        try:
            threading.Thread(target=_admit, args=(process, command.folder, settings, tell), daemon=True).start()
            return process.wait()
        finally:
            end(process)


def _admit(
    process: subprocess.Popen[bytes], folder: Path, settings: SuperLinkSettings, tell: Callable[[str], None]
) -> None:
    address, deadline = own_address(settings), time.monotonic() + START
    try:
        while process.poll() is None:
            try:
                check_server_side(address, folder / "ca.crt", needed=True)
            except InputError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                synchronise(folder, tell)
                tell(f"ready at {address}")
                return
    except InputError as e:
        if process.poll() is None:
            tell(f"error: the clients' keys are not registered: {e}")


def run_shown(command: Command, show: Callable[[str], None]) -> tuple[int | None, int]:
    """Run a command to its end, or until SIGTERM, and show what it writes, line by line.

    Returns
    -------
    Flower's exit code, None where it wrote none, and the status of the process
    """
    last: deque[str] = deque(maxlen=60)
    with terminable():
        process = command.start(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        reader = threading.Thread(target=_read, args=(process, last, show), daemon=True)
        try:
            reader.start()
            status = process.wait()
            reader.join(timeout=5)  # its children may hold the pipe a little longer
        finally:
            end(process)
    codes = _CODE.findall("".join(last))
    return (int(codes[-1]) if codes else None), status


def _read(process: subprocess.Popen[bytes], last: deque[str], show: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        text = line.decode(errors="replace")
        last.append(text)
        show(text)
