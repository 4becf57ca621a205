"""Processes with durable jobs, to be killed; and the soak that kills them, which can also be run by hand.

``python tests/soak_worker.py --kills 200 --seed 1`` runs 16 jobs over one SQLite file, round after round, kills the
process that runs them at random moments, also while it recovers, and prints what has been counted. What is checked is
in `Soak`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from crashing import outcome

from routilux import Context, Engine, ErrorHandler, Flow, Routine, StoreError, open_store
from routilux.store.journal import SEAL

JOBS = 16
ITEMS = 8
WORKERS = 6


def append_line(path, line):
    """Append a line to a file, in one piece and whoever else does so."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def store_at(folder):
    return open_store(f"sqlite:///{folder}/jobs.db?synchronous=NORMAL")


# --- the jobs of the soak ------------------------------------------------------------------------------------------


class Part(Routine):
    """A routine whose handler tells a file that it has begun, and whose steps append their keys to another."""

    def __init__(self, folder, **slot_options):
        super().__init__()
        self.folder = folder
        self.define_slot("trigger", handler=self.go, **slot_options)
        self.define_event("out", ["n"])
        self.set_error_handler(ErrorHandler("retry", max_retries=3, retry_delay=0.0))

    def go(self, ctx: Context, n: int):
        if self.folder is not None:
            append_line(f"{self.folder}/runs", f"{ctx.job_id}/{ctx._turn.activation.id}/{ctx.attempt}")
        self.handle(ctx, n)

    def step(self, ctx, name, result):
        def call():
            if self.folder is not None:
                append_line(f"{self.folder}/steps", ctx.step.key)
            return result

        return ctx.step.run(name, call)


class FanOut(Part):
    def handle(self, ctx, n):
        self.step(ctx, "begin", n)
        for index in range(ITEMS):
            self.emit("out", n=index)


class Work(Part):
    def handle(self, ctx, n):
        first = self.step(ctx, "first", n + 1)
        if n % 3 == 0 and ctx.attempt == 1:
            raise ValueError("not at the first attempt")
        with ctx.store.edit_state() as state:
            state["sum"] = state.get("sum", 0) + first
            state["seen"] = sorted([*state.get("seen", []), n])
        second = self.step(ctx, "second", first * first)
        ctx.job_state.append_to_shared_log({"worked": n})
        self.emit("out", n=second)


class FanIn(Part):
    def go(self, ctx: Context, n: list):
        super().go(ctx, n)

    def handle(self, ctx, n):
        ctx.job_state.update_routine_state(ctx.routine_id, {"got": sorted(n)})
        if len(n) == ITEMS:
            self.emit("out", n=sum(n))


class Finish(Part):
    def handle(self, ctx, n):
        total = self.step(ctx, "total", n)
        ctx.job_state.update_shared_data("total", total)


def soak_flow(engine, folder):
    flow = Flow("soak", engine=engine, execution_strategy="concurrent", max_workers=WORKERS)
    flow.add_routine(FanOut(folder), "src")
    flow.add_routine(Work(folder, concurrency=2), "work")
    flow.add_routine(FanIn(folder, merge_strategy="append"), "join")
    flow.add_routine(Finish(folder), "end")
    for source, target in (("src", "work"), ("work", "join"), ("join", "end")):
        flow.connect(source, "out", target, "trigger")
    return flow


def undisturbed():
    """Return what a job comes to that nobody disturbs, and how many attempts that takes."""
    with Engine(store=open_store("memory:")) as engine:
        flow = soak_flow(engine, None)
        end = outcome(flow.execute("src", {"n": 0}))
        flow.shutdown()
    assert end["status"] == "completed"
    return end, sum(count * key[4] for key, count in end["history"].items())


def work(folder):
    """Run the jobs of the soak to their end: begin those that are not there, go on with those that are."""
    with Engine(store=store_at(folder), detect_poison=False, max_workers=WORKERS) as engine:
        flow = soak_flow(engine, folder)
        print("recovering", flush=True)
        engine.recover()
        states = [flow.start("src", {"n": 0}, job_id=f"job{number}") for number in range(JOBS)]
        for state in states:
            state.wait()
        flow.shutdown()
    print("done", flush=True)


# --- the soak ------------------------------------------------------------------------------------------------------


class Soak:
    """Kills the process that runs the jobs, again and again, and checks after each kill what it has left.

    No step runs whose outcome was in the store at an earlier kill. An activation runs anew only if it was running at
    the kill: it had begun, and its end is not in the store.

    Args:
        folder: where the files are.
        kills: how many times to kill at the most; a round is over when its jobs are.
        chance: decides about the moments.
    """

    def __init__(self, folder, kills, chance):
        self.folder = Path(folder)
        self.kills = kills
        self.chance = chance
        self.figures = Counter()

    def run(self):
        """Run rounds of jobs until enough kills were made; return the figures."""
        expected, attempts = undisturbed()
        while self.figures["kills"] < self.kills:
            folder = self.folder / f"round{self.figures['rounds']}"
            folder.mkdir()
            self._round(folder)
            self._check_end(folder, expected, attempts)
            self.figures["rounds"] += 1
        return dict(self.figures)

    def _round(self, folder):
        recorded, begun, running = set(), set(), set()
        read = {"steps": 0, "runs": 0}
        while True:
            killed = self._process(folder, self.figures["kills"] < self.kills)
            steps, runs = (self._new_lines(folder, name, read) for name in ("steps", "runs"))
            again = [key for key in steps if key in recorded]
            assert not again, f"steps ran again whose outcomes were recorded: {again}"
            anew = [run for run in runs if run in begun]
            assert set(anew) <= running, f"ran anew, and did not run at the kill: {set(anew) - running}"
            assert len(anew) == len(set(anew))
            self.figures["activations run anew"] += len(anew)
            self.figures["steps called"] += len(steps)
            if not killed:
                return
            begun.update(runs)
            recorded, ended = self._recorded(folder)
            now = set(runs) - ended
            running = begun - ended  # now, or at an earlier kill, and not begun since
            self.figures["handlers running at kills"] += len(now)

    def _process(self, folder, kill):
        """Let a process run the jobs, and kill it; return whether it was killed before it was through."""
        worker = subprocess.Popen(
            [sys.executable, __file__, "work", str(folder)], stdout=subprocess.PIPE, text=True, env=environment()
        )
        try:
            assert worker.stdout.readline() == "recovering\n"
            if kill:
                self._await_moment(worker, folder)
                worker.kill()
            rest = worker.stdout.read()
            code = worker.wait(60)
        finally:
            worker.kill()
            worker.stdout.close()
            worker.wait()
        if code == -signal.SIGKILL:
            self.figures["kills"] += 1
            return True
        assert (code, rest) == (0, "done\n"), f"the process ended with {code}: {rest}"
        return False

    def _await_moment(self, worker, folder):
        if self.chance.random() < 0.25:
            self.figures["kills while it recovers, or soon after"] += 1
            time.sleep(self.chance.random() * 0.03)
            return
        steps = folder / "steps"
        target = size_of(steps) + self.chance.randrange(10, 1500)
        while worker.poll() is None and size_of(steps) < target:
            time.sleep(0.0005)

    def _new_lines(self, folder, name, read):
        path = folder / name
        data = path.read_bytes()[read[name] :] if path.exists() else b""
        read[name] += len(data)
        return data.decode().splitlines()

    def _recorded(self, folder):
        """Return the keys of steps whose outcomes are in the store, and the attempts that have ended there."""
        store = store_at(folder)
        steps, ended = set(), set()
        for head in store.heads():
            base, snapshot, entries = store.read(head.job_id)
            assert (base, snapshot) == (0, None), "the journals of the soak are too short for snapshots"
            attempts = Counter()
            for entry in entries:
                fact = json.loads(entry[SEAL.size :])
                where = f"{head.job_id}/{fact.get('delivery')}"
                if fact.get("kind") == "step":
                    steps.add(f"{where}/{fact['name']}")
                elif fact.get("kind") in ("retry", "end"):
                    attempts[where] += 1
                    ended.add(f"{where}/{attempts[where]}")
        store.close()
        return steps, ended

    def _check_end(self, folder, expected, attempts):
        with Engine(store=store_at(folder)) as engine:
            flow = soak_flow(engine, folder)
            heads = engine.jobs()
            assert len(heads) == JOBS
            for head in heads:
                end = outcome(engine.get(head.job_id))
                assert end == expected, f"{head.job_id}: {end}"
            flow.shutdown()
        runs = (folder / "runs").read_text().splitlines()
        assert len(set(runs)) == JOBS * attempts
        self.figures["jobs"] += JOBS
        self.figures["attempts"] += len(runs)


def size_of(path):
    return path.stat().st_size if path.exists() else 0


def environment():
    """Return the environment of a process that imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


# --- other processes -----------------------------------------------------------------------------------------------


class Ready(Routine):
    """Tells a file which job it runs for, in which process."""

    def __init__(self, folder, handle=None):
        super().__init__()
        self.folder = folder
        self.handle = handle
        self.define_slot("trigger", handler=self.go)

    def go(self, ctx: Context):
        append_line(f"{self.folder}/runs", f"{ctx.job_id} {os.getpid()}")
        if self.handle is not None:
            self.handle(ctx)


def flow_with(engine, folder, handle=None, flow_id="ready"):
    flow = Flow(flow_id, engine=engine)
    flow.add_routine(Ready(folder, handle), "only")
    return flow


def poison(folder, *, first=False):
    """Run a job that kills the process, beside jobs that wait until it has done so twice."""
    path = Path(folder) / "runs"
    deaths = path.read_text().count("poison ") if path.exists() else 0

    def die(ctx):
        os.kill(os.getpid(), signal.SIGKILL)

    def hold(ctx):
        if deaths < 2:
            threading.Event().wait()
        append_line(path, f"through {ctx.job_id}")

    with Engine(store=store_at(folder), max_workers=WORKERS) as engine:
        bad = flow_with(engine, folder, die, "bad")
        good = flow_with(engine, folder, hold, "good")
        jobs = [(good, f"good{number}") for number in range(3)]
        for flow, job_id in [(bad, "poison"), *jobs] if first else [*jobs, (bad, "poison")]:
            engine.submit(flow, job_id=job_id)
        for state in engine.recover():
            state.wait()
    print("done", flush=True)


def poison_first(folder):
    """Do as `poison` does, and take the job that kills the process before the others."""
    poison(folder, first=True)


def woken(folder):
    """Run a job that kills the process when its wait is over."""

    def die(ctx):
        ctx.step.wait_for("a moment", seconds=0.01)
        append_line(f"{folder}/woken", ctx.job_id)
        os.kill(os.getpid(), signal.SIGKILL)

    with Engine(store=store_at(folder)) as engine:
        engine.submit(flow_with(engine, folder, die), job_id="poison")
        for state in engine.recover():
            state.wait()


def recover(folder):
    """Recover all jobs that nobody runs, when told to, and see them to their end."""
    with Engine(store=store_at(folder), lease=30.0) as engine:
        flow = flow_with(engine, folder)
        print("ready", flush=True)
        sys.stdin.readline()
        states = engine.recover()
        for state in states:
            state.wait()
        print(len(states), flush=True)
        flow.shutdown()


def slow(folder):
    """Run a job whose handler goes on when the process is told to; then tell how that went."""

    def handle(ctx):
        ctx.step.run("before", int)
        print("ready", flush=True)
        sys.stdin.readline()
        ctx.step.run("after", lambda: append_line(f"{folder}/after", str(os.getpid())))

    engine = Engine(store=store_at(folder), lease=0.5, store_patience=0)
    try:
        flow_with(engine, folder, handle).execute("only", job_id="slow")
        print("completed", flush=True)
    except StoreError as error:
        print(type(error).__name__, flush=True)
    engine.close()


def take(folder):
    """Run the job of another process as soon as its lease is over."""

    def handle(ctx):
        ctx.step.run("before", int)
        ctx.step.run("after", lambda: append_line(f"{folder}/after", str(os.getpid())))

    with Engine(store=store_at(folder), lease=0.5) as engine:
        flow = flow_with(engine, folder, handle)
        while not (found := engine.recover()):
            time.sleep(0.02)
        found[0].wait()
        print(found[0].status, flush=True)
        flow.shutdown()


def gated_flow(engine, folder):
    def handle(ctx):
        ctx.finish(ctx.step.wait_for_event("gate", "gate"))

    return flow_with(engine, folder, handle, "gated")


def serve(folder):
    """Serve until the process is told to end."""
    engine = Engine(store=store_at(folder))
    flow = gated_flow(engine, folder)
    stop = threading.Event()
    thread = threading.Thread(target=engine.serve, args=[stop])
    thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    stop.set()
    thread.join()
    flow.shutdown()
    engine.close()
    print("done", flush=True)


def main():
    modes = {each.__name__: each for each in (work, poison, poison_first, woken, recover, slow, take, serve)}
    if len(sys.argv) == 3 and sys.argv[1] in modes:
        modes[sys.argv[1]](sys.argv[2])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = Soak(folder, options.kills, random.Random(options.seed)).run()
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    print(f"seconds: {time.monotonic() - began:.0f}")


if __name__ == "__main__":
    main()
