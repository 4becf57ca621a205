"""The peers, and a virtual environment for each, made once by pip."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
OWN = "routilux"
BOUNDS = "bounds"


@dataclass(frozen=True)
class Peer:
    """Who does the work: a name, its file in ``peers/``, what pip installs for it, and environment variables.

    Without requirements, it runs in this Python, and with this checkout.
    """

    name: str
    file: str
    requirements: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


PEERS = (
    Peer(OWN, "routilux.py"),
    Peer(BOUNDS, "bounds.py"),
    Peer("routilux 0.10.0", "routilux_0_10.py", ("routilux==0.10.0", "serilux==0.3.1")),
    Peer("llama-index-workflows", "llama_index_workflows.py", ("llama-index-workflows==2.26.1",)),
    Peer("langgraph", "langgraph.py", ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2")),
    Peer("pydantic-graph", "pydantic_graph.py", ("pydantic-graph==2.68.0",)),
    Peer("burr", "burr.py", ("burr[pydantic]==0.42.0",)),
    Peer("dbos", "dbos.py", ("dbos==3.4.0",)),
    Peer("dbos in WAL mode", "dbos.py", ("dbos==3.4.0",), (("JOURNAL_MODE", "WAL"),)),
)


class CannotInstallError(Exception):
    """pip could not install a peer; the message is the end of what it said."""


def python_of(peer: Peer, cache: Path) -> str:
    """Return the Python that a peer runs with; make its environment when it is not there.

    Raises:
        CannotInstallError: when that fails, for instance because there is no wheel or no network.
    """
    if not peer.requirements:
        return sys.executable
    made_of = "\n".join((sys.version, *peer.requirements))
    folder = cache / f"{Path(peer.file).stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *peer.requirements])
        complete.touch()
    return str(python)


def variables_of(peer: Peer) -> dict[str, str]:
    """Return the environment variables for a peer's processes: none that change what Python does or imports."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, **dict(peer.variables), **({} if peer.requirements else {"PYTHONPATH": str(HERE.parent)})}


def _run(command: list[str]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise CannotInstallError("\n".join(ran.stderr.strip().splitlines()[-3:]))
