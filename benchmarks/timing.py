"""The stopwatches that peers use. Standard library only, as it runs in the Python of every peer."""

from __future__ import annotations

import gc
import resource
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

least = 0.0  # seconds for which it is; set by what asks for the figure


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Run once; return the seconds that it took, and what it returned."""
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def repeated(run: Callable[[], Any]) -> tuple[float, Any]:
    """Run until enough time has passed for a good figure; return the mean seconds of a run, and the last result.

    The mean, as a machine that others use, too, is now fast and now slow for a second: one long run has its share of
    both.
    """
    times: list[float] = []
    until = time.perf_counter() + least
    while not times or time.perf_counter() < until:
        seconds, result = timed(run)
        times.append(seconds)
    return statistics.fmean(times), result


def spread(measure: Callable[[], tuple[float, int]], runs: int) -> tuple[dict[str, float], int]:
    """Return the median and the 99th percentile of the seconds of many runs, and what the last so many came to.

    Args:
        measure: runs once, and returns the seconds that it took and what it came to.
        runs: how many runs there are, and again and again until enough time has passed for good figures.
    """
    times: list[float] = []
    until = time.perf_counter() + least
    while not times or time.perf_counter() < until:
        total = 0
        for _ in range(runs):
            seconds, number = measure()
            times.append(seconds)
            total += number
    times.sort()
    return {"median": statistics.median(times), "99th percentile": times[(len(times) * 99 - 1) // 100]}, total


def held(run: Callable[[], Any], payloads: int) -> tuple[float, Any]:
    """Run once; return the bytes that what it returned keeps in memory, without so many payloads of it, and itself.

    A payload is a dict with one key.
    """
    run()  # so that what is kept for all runs is there already
    payload = sys.getsizeof({"data": None}) + 2 * tuple.__itemsize__  # in front of it are two words of the collector
    gc.collect()
    tracemalloc.start()
    try:
        result = run()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - payloads * payload, result
    finally:
        tracemalloc.stop()


def peak() -> float:
    """Return the most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def importing(statement: str, times: int) -> tuple[float, int]:
    """Return the median seconds that an import takes in new processes of this Python, and how often it was done."""
    program = f"import time; started = time.perf_counter(); {statement}; print(time.perf_counter() - started)"
    took = [
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
        for _ in range(times)
    ]
    return statistics.median(took), len(took)
