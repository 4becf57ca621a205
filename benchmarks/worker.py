"""One peer doing its work: ``python worker.py peers/NAME.py``, run by the Python of that peer.

Reads one request per line, ``{"work": function, "size": number, "options": {...}, "least": seconds}``, calls that
function of the peer's file with the size and the options, and writes one answer per line: ``{"figures": {...},
"result": ..., "seconds": ...}``, or ``{"error": ...}``. A function returns the seconds or bytes that all of the work
took, or a dict of figures for one unit of it, and the result of the work; ``seconds`` is how long it was busy. Where
the file has no such function, or the function returns None, the answer is ``null``: that peer cannot do that work.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import time
import traceback
from types import ModuleType
from typing import Any

import timing


def load(path: str) -> ModuleType:
    """Import a peer's file under a name that is not that of the package it uses."""
    spec = importlib.util.spec_from_file_location("benchmarked_peer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def answer(peer: ModuleType, request: dict[str, Any]) -> dict[str, Any] | None:
    """Do one piece of work."""
    function = getattr(peer, request["work"], None)
    if function is None:
        return None
    timing.least = request["least"]
    gc.collect()
    started = time.perf_counter()
    measured = function(request["size"], **request["options"])
    if measured is None:
        return None
    seconds = time.perf_counter() - started
    figures, result = measured
    return {"figures": figures if isinstance(figures, dict) else {"": figures}, "result": result, "seconds": seconds}


def main(path: str) -> None:
    """Answer requests until there are no more."""
    # What a peer prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    peer = load(path)
    for line in sys.stdin:
        try:
            found = answer(peer, json.loads(line))
        except Exception:
            found = {"error": traceback.format_exc()}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
