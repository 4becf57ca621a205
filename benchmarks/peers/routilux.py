"""This project, from this checkout.

Handlers have no annotations, so that nothing is validated: no other peer validates what goes from one to the next,
but for those whose events are pydantic models.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from timing import held, importing, peak, repeated, spread, timed

from routilux import Context, Engine, Event, Flow, JobState, Routine, open_store, slot, workflow

BOUNDS = {"max_pending": 1000, "history_limit": 1000}


class Source(Routine):
    """Emits the numbers below ``count``."""

    item = Event("data")

    @slot
    def trigger(self, count):
        for number in range(count):
            self.emit("item", data=number)


class Add(Routine):
    """Adds 1 to what arrives, and passes it on."""

    item = Event("data")

    @slot
    def input(self, data=None, **kwargs):
        self.emit("item", data=data + 1)


class Sink(Routine):
    """Adds up what arrives."""

    total = 0

    @slot
    def input(self, data=None, **kwargs):
        self.total += data


def line(*routines: Routine, **options: Any) -> Flow:
    """Return a flow in which each routine's items go to the next one; ids are r0, r1, ..."""
    flow = Flow("line", **options)
    for place, routine in enumerate(routines):
        flow.add_routine(routine, f"r{place}")
    for sender, receiver in pairwise(routines):
        flow.connect(sender.item, receiver.input)
    return flow


def last(job_state: JobState, routine_id: str) -> Any:
    """Return what a routine of a job has emitted or handled last."""
    return job_state.get_execution_history(routine_id)[-1].data["data"]


def chain(size: int) -> tuple[float, int]:
    flow = line(*(Add() for _ in range(size)))
    seconds, job_state = repeated(lambda: flow.execute("r0", {"data": 0}))
    return seconds, last(job_state, f"r{size - 1}")


def stream(size: int, history: str = "full", **options: Any) -> tuple[float, int]:
    sink = Sink()

    def run() -> int:
        sink.total = 0
        flow.execute("r0", {"count": size}).raise_for_status()
        return sink.total

    with line(Source(), Add(), sink, **(BOUNDS if history == "bounded" else {}), **options) as flow:
        return repeated(run)


def stream_by_workers(size: int, items: int) -> tuple[float, int]:
    return stream(items, execution_strategy="concurrent", max_workers=size)


def peak_memory(size: int) -> tuple[float, int]:
    _, total = stream(size, "bounded")
    return peak(), total


class Rounds(Routine):
    """Starts a round of a fan-out, and the next one when it is joined."""

    item = Event("data")

    @slot
    def trigger(self, rounds):
        self.joined, self.rounds = 0, rounds
        self.emit("item", data=0)

    @slot
    def again(self, joined):
        self.joined += joined
        self.rounds -= 1
        if self.rounds:
            self.emit("item", data=0)


class Join(Routine):
    """Gathers a round."""

    joined = Event("joined")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = self.define_slot("input", handler=self.gather, gather=width)

    def gather(self, data):
        self.emit("joined", joined=sum(data))


def fan_out(size: int, width: int) -> tuple[float, int]:
    flow, rounds, join = Flow("fan-out"), Rounds(), Join(width)
    flow.add_routine(rounds, "rounds")
    flow.add_routine(join, "join")
    flow.connect(join.joined, rounds.again)
    for number in range(width):
        branch = Add()
        flow.add_routine(branch, f"branch {number}")
        flow.connect(rounds.item, branch.input)
        flow.connect(branch.item, join.input)

    def run() -> int:
        flow.execute("rounds", {"rounds": size}).raise_for_status()
        return rounds.joined

    return repeated(run)


class Share(Routine):
    """Tells the editors how many edits each has to make."""

    share = Event("times")

    @slot
    def trigger(self, times):
        self.emit("share", times=times)


class Editor(Routine):
    """Edits a counter of the job so many times."""

    @slot
    def input(self, ctx: Context, times):
        for _ in range(times):
            with ctx.store.edit_state() as state:
                state["count"] = state.get("count", 0) + 1


def counter(size: int, workers: int) -> tuple[float, int]:
    with Flow("counter", execution_strategy="concurrent", max_workers=workers) as flow:
        share = Share()
        flow.add_routine(share, "share")
        for number in range(workers):
            editor = Editor()
            flow.add_routine(editor, f"editor {number}")
            flow.connect(share.share, editor.input)
        return repeated(lambda: flow.execute("share", {"times": size // workers}).get_shared_data("count"))


class LargeEditor(Routine):
    """Makes a change to a large state, so many times, and finishes with the seconds that it took."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        super().__init__()
        self.change = change

    @slot
    def input(self, ctx: Context, edits):
        started = time.perf_counter()
        for _ in range(edits):
            with ctx.store.edit_state() as state:
                self.change(state)
        ctx.finish(time.perf_counter() - started)


def edit(initial_state: dict[str, Any], change: Callable[[Any], None], edits: int) -> tuple[float, JobState]:
    """Run a job that edits such a state; return the seconds of its edits, and the state of the job."""
    flow = Flow("edit")
    flow.add_routine(LargeEditor(change), "editor")
    job_state = flow.execute("editor", {"edits": edits}, initial_state=initial_state)
    return job_state.result, job_state


def edit_keys(size: int, edits: int) -> tuple[float, int]:
    def change(state):
        state["key0"] += 1

    seconds, job_state = edit({f"key{number}": 0 for number in range(size)}, change, edits)
    return seconds, job_state.get_shared_data("key0")


def edit_list(size: int, edits: int) -> tuple[float, int]:
    def change(state):
        state["items"][0]["value"] += 1

    items = [{"name": f"item {number}", "value": 0} for number in range(size)]
    seconds, job_state = edit({"items": items}, change, edits)
    return seconds, job_state.get_shared_data("items")[0]["value"]


class Sleeper(Routine):
    """Blocks its worker for a while."""

    def __init__(self, seconds: float, workers: int) -> None:
        super().__init__()
        self.seconds = seconds
        self.input = self.define_slot("input", handler=self.sleep, concurrency=workers)

    def sleep(self, data):
        time.sleep(self.seconds)


def waits(size: int, seconds: float, workers: int) -> tuple[float, int]:
    def run() -> int:
        return flow.execute("r0", {"count": size}).performance("r1").count

    with line(Source(), Sleeper(seconds, workers), execution_strategy="concurrent", max_workers=workers) as flow:
        return repeated(run)


def two_routines(size: int) -> tuple[dict[str, float], int]:
    flow = line(Add(), Sink())

    def measure() -> tuple[float, int]:
        seconds, job_state = timed(lambda: flow.execute("r0", {"data": 0}))
        return seconds, last(job_state, "r1")

    return spread(measure, size)


def jobs(size: int) -> tuple[float, int]:
    def run() -> list[JobState]:
        job_states = [flow.start("r0", {"data": 0}) for _ in range(size)]
        for job_state in job_states:
            job_state.wait()
        return job_states

    with line(Add(), Sink()) as flow:
        seconds, job_states = repeated(run)
    return seconds, sum(last(job_state, "r1") for job_state in job_states)


def imports(size: int) -> tuple[float, int]:
    return importing("from routilux import Flow, Routine", size)  # `import routilux` alone imports none of it


def typed_imports(size: int) -> tuple[float, int]:
    return importing("from routilux import Event, Flow, Routine; Event(number=int)", size)


def save_and_load(size: int, items: int) -> tuple[float, int]:
    flow = line(Source(), Sink())
    state = {f"key{number}": {"number": number, "name": f"item {number}"} for number in range(items)}
    job_state = flow.execute("r0", {"count": size - 1}, initial_state=state)

    def there_and_back(path: Path) -> JobState:
        job_state.save(path)
        return flow.load(path)

    with tempfile.TemporaryDirectory() as folder:
        seconds, loaded = repeated(lambda: there_and_back(Path(folder, "job.json")))
    return seconds, len(loaded.get_execution_history())


class Quiet(Source):
    """Emits None so many times, so that all memory that a record takes is that of the record."""

    @slot
    def trigger(self, count):
        for _ in range(count):
            self.emit("item", data=None)


class Ignore(Sink):
    """Does nothing."""

    @slot
    def input(self, data=None, **kwargs):
        pass


def memory(size: int) -> tuple[float, int]:
    flow = line(Quiet(), Ignore())
    kept, job_state = held(lambda: flow.execute("r0", {"count": size - 1}), size)
    return kept, len(job_state.get_execution_history())


class Countdown(Routine):
    """Counts down to 1, one number per activation."""

    next = Event("number")

    @slot
    def trigger(self, number):
        if number > 1:
            self.emit("next", number=number - 1)


@contextmanager
def engine(synchronous: str) -> Iterator[Engine]:
    """Give an engine with a new store in a file, which has run a job, as it opens its lease with the first."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/jobs.db?synchronous={synchronous}"
        with Engine(store=open_store(url)) as made:
            countdown(made, "first").execute("countdown", {"number": 1})
            yield made


def countdown(engine: Engine, flow_id: str = "countdown", **options: Any) -> Flow:
    """Return a flow whose jobs are durable."""
    flow, routine = Flow(flow_id, engine=engine, **options), Countdown()
    flow.add_routine(routine, "countdown")
    flow.connect(routine.next, routine.trigger)
    return flow


def durable(size: int, synchronous: str) -> tuple[float, int]:
    with engine(synchronous) as made:
        flow = countdown(made)
        seconds, job_state = repeated(lambda: flow.execute("countdown", {"number": size}))
        return seconds, job_state.performance("countdown").count


def durable_jobs(size: int, jobs: int, synchronous: str) -> tuple[float, int]:
    with engine(synchronous) as made:
        flow = countdown(made, max_workers=jobs)

        def run() -> list[JobState]:
            job_states = [flow.start("countdown", {"number": size}) for _ in range(jobs)]
            for job_state in job_states:
                job_state.wait()
            return job_states

        seconds, job_states = repeated(run)
        return seconds, sum(job_state.performance("countdown").count for job_state in job_states)


def add_one(value: int) -> int:
    return value + 1


def durable_steps(size: int, synchronous: str) -> tuple[float, int]:
    @workflow
    def steps(ctx: Context, count: int) -> int:
        value = 0
        for number in range(count):
            value = ctx.step.run(f"step {number}", add_one, value)
        return value

    with engine(synchronous) as made:
        made.register(steps)
        return repeated(lambda: steps.run(size))
