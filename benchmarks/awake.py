"""Cores that do not fall asleep while a round trip is under way: ``--awake``.

A core with nothing to do is put to sleep, and to wake it takes a virtual machine a tenth of a millisecond or more: as
long as the round trip that was waited for. An otherwise idle machine pays that at each one, a busy server does not. So
one process for each core spins, in Linux's scheduling class for what is to run when nothing else wants to
(``SCHED_IDLE``), and gives way to everything at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SPIN = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


def possible() -> bool:
    """Tell whether this system has such a scheduling class."""
    return hasattr(os, "SCHED_IDLE")


@contextmanager
def awake(wanted: bool = True) -> Iterator[None]:
    """Keep every core awake for the time of the block, if that is ``wanted``."""
    spinning = [
        subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(os.cpu_count() or 1 if wanted else 0)
    ]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
