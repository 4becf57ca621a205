"""A process that dies after so many facts, and the same job in the next one: what tests of crashes share."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import orjson

from routilux import Engine, RoutiluxError, StoreError
from routilux.store.base import FactStore
from routilux.store.journal import SEAL
from routilux.store.memory import MemoryStore

WAIT = 20.0  # seconds, for what should have come long before


class Mortal:
    """A store whose process dies: it takes so many appends and snapshots, and then refuses everything.

    Args:
        store: where the facts are kept, which lives on.
        left: how many are taken; None for all.
        heard: whether the process hears that the last one was taken; else it dies in the middle of that call.
        keep: told of every fact that is kept, and of the job.
    """

    def __init__(self, store: FactStore, left: int | None = None, *, heard: bool = True, keep: Any = None) -> None:
        self.store = store
        self.left = left
        self.heard = heard
        self.keep = keep
        self.dead = threading.Event()
        self.written = 0
        self._lock = threading.RLock()

    def _write(self, name: str, *arguments: Any) -> None:
        with self._lock:
            if self.left is not None and self.written >= self.left:
                self.dead.set()
            self._live()
            getattr(self.store, name)(*arguments)
            self.written += 1
            if name == "append" and self.keep is not None:
                for entry in arguments[2]:
                    self.keep(arguments[0], orjson.loads(entry[SEAL.size :]))
            if not self.heard and self.written == self.left:
                self.dead.set()
            self._live()

    def _live(self) -> None:
        if self.dead.is_set():
            raise StoreError("this process is dead")

    def append(self, *arguments: Any) -> None:
        self._write("append", *arguments)

    def put_snapshot(self, *arguments: Any) -> None:
        self._write("put_snapshot", *arguments)

    def claim(self, *arguments: Any) -> Any:
        self._live()
        return self.store.claim(*arguments)

    def heads(self, **which: Any) -> Any:
        self._live()
        return self.store.heads(**which)

    def read(self, job_id: str) -> Any:
        self._live()
        return self.store.read(job_id)

    def let_go(self, *arguments: Any) -> None:
        self._live()
        self.store.let_go(*arguments)

    def prune(self, *arguments: Any) -> int:
        self._live()
        return self.store.prune(*arguments)

    def send(self, messages: Any) -> None:
        self._live()
        self.store.send(messages)

    def receive(self, after: int) -> Any:
        self._live()
        return self.store.receive(after)

    def discard(self, numbers: Any) -> None:
        self._live()
        self.store.discard(numbers)

    def close(self) -> None:
        """Leave the facts to the next process."""


class World:
    """What lives longer than a process: the store, and what step functions have done outside of the job.

    Args:
        build: makes the flows of an engine in this world, the one that is executed first.
        options: of the engines.
    """

    def __init__(self, build: Any, **options: Any) -> None:
        self.store = MemoryStore()
        self.build = build
        self.options = {"store_patience": 0, "detect_poison": False, **options}
        self.calls: Counter[str] = Counter()
        self.recorded: set[str] = set()
        self.again: list[str] = []
        self.processes = 0
        self.writes: list[int] = []
        self.engine: Engine | None = None

    def call(self, key: str, result: Any) -> Any:
        """Do what a step does: count the call, and whether it comes after its outcome was recorded."""
        self.calls[key] += 1
        if key in self.recorded:
            self.again.append(key)
        return result

    def _keep(self, job_id: str, fact: dict[str, Any]) -> None:
        if fact.get("kind") == "step":
            self.recorded.add(f"{job_id}/{fact['delivery']}/{fact['name']}")

    def process(self, left: int | None, live: Any, *, heard: bool = True) -> Any:
        """Let a new process live, which dies after ``left`` facts: call ``live(engine, flow)``; return what it returns.

        Returns None for a process that has died.
        """
        store = Mortal(self.store, left, heard=heard, keep=self._keep)
        engine = self.engine = Engine(store=store, **self.options)
        self.processes += 1
        try:
            return live(engine, self.build(self, engine))
        except RoutiluxError:
            if not store.dead.is_set():
                raise
            return None
        finally:
            if store.dead.is_set():
                self.bury(engine)
            engine.close()
            self.writes.append(store.written)

    def bury(self, engine: Engine) -> None:
        """Let the next process see that one is dead."""
        self.store.claim("the undertaker", 0.0, 0.0, (), [engine.keeping.owner])


def life_of(payload: Any = None, *, entry: str = "src", job_id: str = "j") -> Any:
    """Return what a process does for a job: it starts it, or goes on with it, and sees it to its end."""

    def live(engine: Any, flow: Any) -> Any:
        found = {head.job_id: head for head in engine.jobs()}
        if job_id not in found:
            flow.start(entry, payload, job_id=job_id)
        engine.recover()
        state = engine.get(job_id)
        while not state.status.ended:
            state.wait(WAIT)
            if state.status == "paused":
                flow.resume(state)
            else:
                assert state.status.ended, f"the job is {state.status} after 20 seconds"
        return outcome(state)

    return live


def outcome(state: Any) -> dict[str, Any]:
    """Return all that a job has come to, without times and without the order of what ran at the same time."""
    return {
        "status": str(state.status),
        "result": state.result,
        "shared": ordered(state._record.shared),
        "routines": ordered(state._record.routine_states),
        "log": multiset([{**each, "timestamp": ""} for each in state.get_shared_log()]),
        "outputs": multiset([(each.routine_id, each.output_type, each.data) for each in state.outputs]),
        "errors": multiset(
            [(each.type, each.message, each.routine_id, each.slot, each.attempt) for each in state.errors]
        ),
        "history": history(state),
    }


def history(state: Any) -> Counter[Any]:
    """Return the activations of a job, in no order."""
    return Counter(
        (each.routine_id, each.slot, each.event_name, str(each.status), each.attempt, each.emitted)
        for each in state.get_execution_history()
    )


def multiset(rows: list[Any]) -> list[str]:
    return sorted(map(repr, map(ordered, rows)))


def ordered(value: Any) -> Any:
    """Return a value with all lists in it sorted: they tell what was done, in whatever order."""
    if isinstance(value, dict):
        return {key: ordered(each) for key, each in sorted(value.items())}
    return sorted(map(ordered, value), key=repr) if isinstance(value, list) else value
