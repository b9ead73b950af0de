"""Ending a family of processes from outside."""

import signal
import subprocess
import sys
import time

import psutil

PARENT = """
import subprocess, sys
from fedclust.processes import end, terminable
with terminable():
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        print(child.pid, flush=True)
        child.wait()
    finally:
        end(child)
"""
CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), sys.exit(0)))
print("here", flush=True)
time.sleep(60)
"""


def test_a_second_sigterm_does_not_break_off_the_cleaning_up():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    for _ in range(3):  # the child takes two seconds to go
        parent.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    assert parent.wait(20) == 128 + signal.SIGTERM
    assert not psutil.pid_exists(child)
