"""routilux 0.10.0, an earlier package of the same name.

Its `execute` returns before the job has ended, and `JobState.wait_for_completion` is how its documentation waits for
the end. It is called with its defaults, with which it looks five times in a quarter of a second.

It has no atomic edits, joins or limits of the history: a counter in the shared data loses updates as soon as two
handlers write it.
"""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from timing import held, importing, repeated, spread, timed

from routilux import Flow, JobState, Routine


class Source(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.define_slot("trigger", handler=self.send)
        self.define_event("item", ["data"])

    def send(self, count: int = 0, **kwargs: Any) -> None:
        for number in range(count):
            self.emit("item", data=number)


class Add(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.define_slot("trigger", handler=self.add)
        self.define_slot("input", handler=self.add)
        self.define_event("item", ["data"])

    def add(self, data: Any = None, **kwargs: Any) -> None:
        self.emit("item", data=data + 1)


class Sink(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.count = self.total = 0
        self.define_slot("input", handler=self.collect)

    def collect(self, data: Any = None, **kwargs: Any) -> None:
        self.count += 1
        self.total += data


def line(*routines: Routine, **options: Any) -> Flow:
    flow = Flow("line", **options)
    names = [flow.add_routine(routine, f"r{place}") for place, routine in enumerate(routines)]
    for sender, receiver in pairwise(names):
        flow.connect(sender, "item", receiver, "input")
    return flow


def execute(flow: Flow, entry: str, params: dict[str, Any]) -> JobState:
    """Run a job until it has completed."""
    job_state = flow.execute(entry, entry_params=params)
    JobState.wait_for_completion(flow, job_state)
    return job_state


def chain(size: int) -> tuple[float, int]:
    sink = Sink()
    flow = line(*(Add() for _ in range(size)), sink)

    def run() -> int:
        sink.total = 0
        execute(flow, "r0", {"data": 0})
        return sink.total

    return repeated(run)


def stream(size: int, history: str = "full", workers: int | None = None) -> tuple[float, int] | None:
    if history == "bounded":
        return None
    sink = Sink()
    options = {"execution_strategy": "concurrent", "max_workers": workers} if workers else {}
    flow = line(Source(), Add(), sink, **options)

    def run() -> int:
        sink.total = 0
        execute(flow, "r0", {"count": size})
        return sink.total

    return repeated(run)


def stream_by_workers(size: int, items: int) -> tuple[float, int]:
    return stream(items, workers=size)


class Rounds(Routine):
    """Starts a round of a fan-out, and the next one when it has counted all that came back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.define_slot("trigger", handler=self.begin)
        self.define_slot("input", handler=self.join)
        self.define_event("item", ["data"])

    def begin(self, rounds: int = 0, **kwargs: Any) -> None:
        self.joined, self.rounds = 0, rounds
        self.emit("item", data=0)

    def join(self, data: Any = None, **kwargs: Any) -> None:
        self.joined += data
        if self.joined % self.width == 0 and self.joined < self.rounds * self.width:
            self.emit("item", data=0)


def fan_out(size: int, width: int) -> tuple[float, int]:
    flow, rounds = Flow("fan-out"), Rounds(width)
    flow.add_routine(rounds, "rounds")
    for number in range(width):
        branch = flow.add_routine(Add(), f"branch {number}")
        flow.connect("rounds", "item", branch, "input")
        flow.connect(branch, "item", "rounds", "input")

    def run() -> int:
        execute(flow, "rounds", {"rounds": size})
        return rounds.joined

    return repeated(run)


class Sleeper(Routine):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.slept: list[int] = []
        self.define_slot("input", handler=self.sleep)

    def sleep(self, data: Any = None, **kwargs: Any) -> None:
        time.sleep(self.seconds)
        self.slept.append(data)


def waits(size: int, seconds: float, workers: int) -> tuple[float, int]:
    sleeper = Sleeper(seconds)
    flow = line(Source(), sleeper, execution_strategy="concurrent", max_workers=workers)

    def run() -> int:
        sleeper.slept.clear()
        execute(flow, "r0", {"count": size})
        return len(sleeper.slept)

    return repeated(run)


def two_routines(size: int) -> tuple[dict[str, float], int]:
    sink = Sink()
    flow = line(Add(), sink)

    def measure() -> tuple[float, int]:
        before = sink.total
        seconds, _ = timed(lambda: execute(flow, "r0", {"data": 0}))
        return seconds, sink.total - before

    return spread(measure, size)


def jobs(size: int) -> tuple[float, int]:
    sink = Sink()
    flow = line(Add(), sink)

    def run() -> int:
        # The jobs share the queue of their flow, and the last one has completed when that is empty.
        sink.count = 0
        job_states = [flow.execute("r0", entry_params={"data": 0}) for _ in range(size)]
        JobState.wait_for_completion(flow, job_states[-1])
        return sink.count

    return repeated(run)


def imports(size: int) -> tuple[float, int]:
    return importing("import routilux", size)


def save_and_load(size: int, items: int) -> tuple[float, int]:
    job_state = execute(line(Source(), Sink()), "r0", {"count": size})
    for number in range(items):
        job_state.update_shared_data(f"key{number}", {"number": number, "name": f"item {number}"})

    def there_and_back(path: str) -> JobState:
        job_state.save(path)
        return JobState.load(path)

    with tempfile.TemporaryDirectory() as folder:
        seconds, loaded = repeated(lambda: there_and_back(str(Path(folder, "job.json"))))
    return seconds, min(size, len(loaded.get_execution_history()))


class Quiet(Source):
    def send(self, count: int = 0, **kwargs: Any) -> None:
        for _ in range(count):
            self.emit("item", data=None)


class Ignore(Sink):
    def collect(self, data: Any = None, **kwargs: Any) -> None:
        pass


def memory(size: int) -> tuple[float, int]:
    flow = line(Quiet(), Ignore())
    kept, job_state = held(lambda: execute(flow, "r0", {"count": size}), size)
    return kept, min(size, len(job_state.get_execution_history()))
