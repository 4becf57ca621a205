"""D7, H2: memory stays bounded, whatever the length of the stream. Each run has a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from routilux import Flow, Routine

class Source(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("trigger", handler=self.generate)
        self.define_event("output", ["data"])
    def generate(self, count):
        for number in range(count):
            self.emit("output", data=number)

class Transform(Routine):
    def __init__(self):
        super().__init__()
        self.define_slot("input", handler=self.process)
        self.define_event("output", ["data"])
    def process(self, data=None, **kwargs):
        self.emit("output", data=data + 1)

class Sink(Routine):
    def __init__(self):
        super().__init__()
        self.total = 0
        self.define_slot("input", handler=self.process)
    def process(self, data=None, **kwargs):
        self.total += data

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def run(count, workers):
    options = {"execution_strategy": "concurrent", "max_workers": workers} if workers > 1 else {}
    sink = Sink()
    with Flow(max_pending=1000, history_limit=1000, **options) as flow:
        for name, routine in (("source", Source()), ("transform", Transform()), ("sink", sink)):
            flow.add_routine(routine, name)
        flow.connect("source", "output", "transform", "input")
        flow.connect("transform", "output", "sink", "input")
        state = flow.execute("source", {"count": count})
        assert state.status == "completed", state.error
        assert sink.total == count * (count + 1) // 2
        assert state.performance("sink").count == count
        assert len(state.get_execution_history()) == 1000

count, workers = int(sys.argv[1]), int(sys.argv[2])
before = peak()
run(count, workers)
print(peak() - before)
"""


@pytest.mark.parametrize(("items", "workers"), [(1_000_000, 1), (250_000, 4)])
def test_d7_a_million_items_take_less_than_60_mb(items, workers):
    """A quarter of them would take more than that if they were kept, which is enough for several workers."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(items), str(workers)], capture_output=True, text=True, timeout=110
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 60
