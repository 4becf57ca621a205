"""Durable jobs of real processes: killed at random moments, stopped past their lease, two at once, and serving.

What the processes do is in `soak_worker`.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import soak_worker
from soak_worker import Soak, environment, flow_with, gated_flow, store_at

from routilux import Engine

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there are no such signals here")
SOON = 30.0  # seconds: for what should have come long before
WORKER = Path(soak_worker.__file__)


@contextmanager
def process(mode, folder):
    """Run a process of `soak_worker`; what is left of it is killed."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, WORKER, mode, folder], text=True, env=environment(), **pipes)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def tell(child):
    child.stdin.write("\n")
    child.stdin.flush()


def lines(folder, name):
    path = Path(folder) / name
    return path.read_text().splitlines() if path.exists() else []


def until(what):
    """Look again until something of another process is there."""
    end = time.monotonic() + SOON
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
    return found


def test_j2_j4_jobs_killed_at_random_moments_come_to_the_same_end_and_repeat_no_step(tmp_path, capsys):
    figures = Soak(tmp_path, 10, random.Random(4)).run()
    with capsys.disabled():
        print("", *(f"{name}: {figure}" for name, figure in figures.items()), sep="\n  ")
    assert figures["kills"] == 10
    assert figures["activations run anew"] <= figures["handlers running at kills"]


def test_j10_a_job_that_kills_its_processes_runs_alone_after_two_and_is_failed_after_three(tmp_path):
    for deaths in range(1, 4):
        with process("poison", tmp_path) as child:
            assert child.wait(SOON) == -signal.SIGKILL
        runs = lines(tmp_path, "runs")
        assert sum(line.startswith("poison ") for line in runs) == deaths
        through = sorted(line for line in runs if line.startswith("through"))
        assert through == ([f"through good{n}" for n in range(3)] if deaths == 3 else [])
    assert lines(tmp_path, "runs")[-1].startswith("poison "), "the others are through before it runs once more"
    with process("poison", tmp_path) as child:
        assert child.wait(SOON) == 0
    with Engine(store=store_at(tmp_path)) as engine:
        mended = flow_with(engine, tmp_path, flow_id="bad")
        good = flow_with(engine, tmp_path, flow_id="good")
        state = engine.get("poison")
        assert (state.status, state.error.type) == ("failed", "PoisonError")
        assert [engine.get(f"good{number}").status for number in range(3)] == ["completed"] * 3
        state = mended.resume(state)
        assert state.wait(SOON)
        assert state.status == "completed"
        for flow in (mended, good):
            flow.shutdown()


def test_j10_jobs_that_did_not_run_when_the_poison_killed_alone_are_not_failed_with_it(tmp_path):
    for deaths in range(1, 4):
        with process("poison_first", tmp_path) as child:
            assert child.wait(SOON) == -signal.SIGKILL
        runs = lines(tmp_path, "runs")
        assert sum(line.startswith("poison ") for line in runs) == deaths
    assert not any(line.startswith("through") for line in runs), "the third process has run nothing else"
    with process("poison_first", tmp_path) as child:
        assert child.wait(SOON) == 0
    with Engine(store=store_at(tmp_path)) as engine:
        found = {head.job_id: head.status for head in engine.jobs()}
    assert found == {"poison": "failed", **{f"good{number}": "completed" for number in range(3)}}


def test_j10_a_job_that_kills_its_processes_when_it_is_woken_is_failed_after_three_that_woke_it_at_once(tmp_path):
    for deaths in range(1, 5):  # the first one wakes it later, and nobody knows that it does
        with process("woken", tmp_path) as child:
            assert child.wait(SOON) == -signal.SIGKILL
        assert len(lines(tmp_path, "woken")) == deaths
    with process("woken", tmp_path) as child:
        assert child.wait(SOON) == 0
    with Engine(store=store_at(tmp_path)) as engine:
        assert [(head.job_id, head.status) for head in engine.jobs()] == [("poison", "failed")]


def test_j7_two_processes_that_recover_the_same_jobs_at_once_run_each_of_them_once(tmp_path):
    count = 300
    with Engine(store=store_at(tmp_path)) as engine:
        flow = flow_with(engine, tmp_path)
        for number in range(count):
            engine.submit(flow, job_id=f"job{number}")
    with process("recover", tmp_path) as first, process("recover", tmp_path) as second:
        both = (first, second)
        for child in both:
            assert child.stdout.readline() == "ready\n"
        for child in both:
            tell(child)
        shares = [int(child.stdout.readline()) for child in both]
        assert [child.wait(SOON) for child in both] == [0, 0]
    assert sum(shares) == count
    runs = Counter(line.split()[0] for line in lines(tmp_path, "runs"))
    assert runs == {f"job{number}": 1 for number in range(count)}
    with Engine(store=store_at(tmp_path)) as engine:
        assert len(engine.jobs(status="completed")) == count


def test_j7_a_process_that_was_stopped_past_its_lease_commits_nothing_any_more(tmp_path):
    with process("slow", tmp_path) as slow:
        assert slow.stdout.readline() == "ready\n"
        slow.send_signal(signal.SIGSTOP)
        with process("take", tmp_path) as taker:
            assert taker.stdout.readline() == "completed\n"
            assert taker.wait(SOON) == 0
        store = store_at(tmp_path)
        before = store.read("slow"), store.heads()
        tell(slow)
        slow.send_signal(signal.SIGCONT)
        assert slow.stdout.readline() == "StaleWriterError\n"
        assert slow.wait(SOON) == 0
        assert (store.read("slow"), store.heads()) == before
        store.close()
    assert lines(tmp_path, "after") == [str(taker.pid)]


def test_j9_a_program_submits_to_and_steers_the_jobs_of_one_that_serves(tmp_path):
    with process("serve", tmp_path) as server, Engine(store=store_at(tmp_path)) as engine:
        flow = gated_flow(engine, tmp_path)
        assert server.stdout.readline() == "ready\n"
        states = {name: engine.submit(flow, job_id=name) for name in ("published", "paused", "cancelled")}
        until(lambda: len(engine.jobs(status="waiting")) == 3)
        assert {line.split()[1] for line in lines(tmp_path, "runs")} == {str(server.pid)}

        engine.publish("gate", {"n": 1}, job_id="published")
        assert states["published"].wait(SOON)
        assert states["published"].result == {"n": 1}

        flow.pause(states["paused"], "for now")
        until(lambda: engine.jobs(status="paused"))
        engine.publish("gate", {"n": 2}, job_id="paused")
        flow.resume(states["paused"])
        assert states["paused"].wait(SOON)
        assert states["paused"].result == {"n": 2}

        flow.cancel(states["cancelled"], "enough")
        assert states["cancelled"].wait(SOON)
        assert states["cancelled"].status == "cancelled"

        state = engine.submit(flow, job_id="last")
        engine.publish("gate", {"n": 3}, job_id="last")  # it may not even have begun
        assert state.wait(SOON)
        assert state.result == {"n": 3}
        tell(server)
        assert server.stdout.readline() == "done\n"
        assert server.wait(SOON) == 0
        flow.shutdown()
        assert engine.store.receive(0) == []
