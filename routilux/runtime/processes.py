"""The names under which processes own jobs, and whether those processes live."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def owner_name() -> str:
    """Return a name for an engine of this process: host, boot, process id, when that began, and something random."""
    pid = os.getpid()
    return "|".join([platform.node(), _boot(), str(pid), _began(pid), os.urandom(8).hex()])


def is_dead(owner: str) -> bool:
    """Whether the process of an owner is known to be dead: it ran on this machine, and does not any more.

    Of a process on another machine, or where the system does not tell, nothing is known.
    """
    parts = owner.split("|")
    if len(parts) != 5 or parts[0] != platform.node() or not parts[1]:
        return False
    if parts[1] != _boot():
        return True
    began = _began(int(parts[2])) if parts[2].isdigit() else ""
    return began != parts[3]


def _boot() -> str:
    """Return what tells one start of this machine from the next; nothing where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _began(pid: int) -> str:
    """Return when a process began, in the system's ticks; "dead" when there is none, or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "dead"
    fields = stat.rpartition(")")[2].split()  # the name before may contain anything
    return "dead" if fields[0] in "ZX" else fields[19]
