"""The names under which processes own jobs, and whether those processes live.

A name has six parts: host, start of the machine, PID namespace, process id, when that process began, and something
random. The namespace tells where the process id counts: containers may have the first two in common, and do not see
each other's processes. What the system does not tell is left empty.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path


def owner_name() -> str:
    """Return a name for an engine of this process."""
    pid = os.getpid()
    return "|".join([platform.node(), _boot(), _namespace(), str(pid), _began(pid), os.urandom(8).hex()])


def is_dead(owner: str) -> bool:
    """Whether the process of an owner is known to be dead: it ran on this machine, and does not any more.

    Of a process on another machine or in another PID namespace, or where the system does not tell, nothing is known.
    Nor is it of one whose name has five parts, without the namespace, unless the machine was started again since.
    """
    parts = owner.split("|")
    if len(parts) == 5:
        parts.insert(2, "")
    if len(parts) != 6:
        return False
    host, boot, namespace, pid, began, _ = parts
    this_boot = _boot()
    if host != platform.node() or not boot or not this_boot:
        return False
    if boot != this_boot:
        return True
    seen_here = namespace != "" and namespace == _namespace() and pid.isdigit()
    return seen_here and _began(int(pid)) != began


def _boot() -> str:
    """Return what tells one start of this machine from the next; nothing where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    """Return the PID namespace of this process; nothing where the system does not tell, or shows that of another."""
    try:
        seen_as = os.readlink("/proc/self")
        return os.readlink("/proc/self/ns/pid") if seen_as == str(os.getpid()) else ""
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
