"""What an engine does that serves: it takes jobs that nobody runs, and sees to messages from other processes.

This is the only place where anything is looked at again and again, because nothing in a file wakes another process.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from ..errors import RoutiluxError, StoreError
from ..store.base import Inbox, Message, fits
from .durable_job import DurableJob
from .owning import UNFINISHED

logger = logging.getLogger("routilux")
AT_ONCE = 500  # jobs that are taken together
EVERY = 0.05  # seconds between two looks at the inbox
ORPHANS_EVERY = 2.0  # seconds between two looks for jobs whose process has died


class Serving:
    """The serving of one engine."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._keeping = engine.keeping
        self._running = 0
        self._idle = threading.Condition()
        self._refused: set[str] = set()
        self._tried: dict[str, float] = {}  # when jobs that there were messages for were last tried to be taken
        self._staying: set[str] = set()  # jobs to which messages could not be given at the last look

    def run(self, stop: threading.Event | None) -> None:
        """Serve until the engine is closed, or ``stop`` is set."""
        with self._idle:
            self._running += 1
        looked = -ORPHANS_EVERY
        try:
            while not self._engine.closing.is_set() and not (stop is not None and stop.is_set()):
                try:
                    if time.monotonic() - looked >= ORPHANS_EVERY or not fits(self._engine.store, Inbox):
                        looked = time.monotonic()  # also when it fails: messages are read in between
                        self._take_orphans()
                    self._read_messages()
                except StoreError as error:
                    logger.warning("the store cannot be looked at for jobs and messages: %s", error)
                self._engine.closing.wait(EVERY)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def join(self) -> None:
        """Wait until nobody serves any more."""
        with self._idle:
            while self._running:
                self._idle.wait()

    def _take_orphans(self) -> None:
        keeping = self._keeping
        heads = keeping.store.heads(statuses=UNFINISHED)
        keeping.forget_suspects(heads)
        free = [
            head.job_id
            for head in heads
            if head.flow_id in keeping.flows and not keeping.runs_here(head.job_id) and head.job_id not in self._refused
        ]
        if free:
            self._take(free)

    def _take(self, jobs: list[str]) -> dict[str, DurableJob]:
        """Go on with jobs, each by itself, so that one that cannot go on keeps no other from it; return them."""
        taken: dict[str, DurableJob] = {}
        jobs = [job_id for job_id in jobs if job_id not in self._keeping.left]
        for place in range(0, len(jobs), AT_ONCE):
            some = jobs[place : place + AT_ONCE]
            if self._keeping.set_apart:
                break
            try:
                found = self._keeping.recover(jobs=some)
            except StoreError:
                raise
            except RoutiluxError as error:
                if len(some) == 1:
                    self._refused.add(some[0])
                    logger.warning(str(error))
                else:
                    for job_id in some:
                        taken.update(self._take([job_id]))
            else:
                taken.update((job.record.job_id, job) for job in found if isinstance(job, DurableJob))
        return taken

    def _read_messages(self) -> None:
        store, keeping = self._engine.store, self._keeping
        if not fits(store, Inbox):
            return
        messages = store.receive(0)
        now = time.monotonic()
        self._tried = {each: at for each, at in self._tried.items() if now - at < ORPHANS_EVERY}
        wanted = {each.job_id for each in messages if not keeping.runs_here(each.job_id)} - self._refused
        wanted = {job_id for job_id in wanted if self._may_try(job_id)}
        taken = self._take(sorted(wanted))
        done = []
        stay: dict[str, RoutiluxError | None] = {}  # jobs that messages stay for, with what keeps them from being given
        for each in messages:
            if each.job_id in stay:  # they are given to it in the order in which they were sent
                continue
            try:
                if self._is_done_with(each, taken):
                    done.append(each.number)
                else:
                    stay[each.job_id] = None
            except RoutiluxError as error:
                stay[each.job_id] = error
        if done:
            store.discard(done)
        self._note_staying({job_id: error for job_id, error in stay.items() if error is not None})

    def _is_done_with(self, message: Message, taken: dict[str, DurableJob]) -> bool:
        """See to a message; return False when it is for a job that is not here. Raises what keeps it from being given.

        ``taken`` are the jobs that were just taken.
        """
        job = self._keeping.reachable(message.job_id) or taken.get(message.job_id)
        if job is None:
            return self._keeping.is_final(message.job_id)  # type: ignore[no-any-return]
        self._keeping.see_to(job, message)
        return True

    def _note_staying(self, stay: dict[str, RoutiluxError]) -> None:
        """Log what keeps messages from being given to jobs, once for as long as it does."""
        for job_id, error in stay.items():
            if job_id not in self._staying:
                logger.warning("messages to job %r stay in the inbox: %s", job_id, error)
        self._staying = set(stay)

    def _may_try(self, job_id: str) -> bool:
        """Whether to try to take a job that there is a message for: again only after a while, if another has it."""
        now = time.monotonic()
        if now - self._tried.get(job_id, -ORPHANS_EVERY) < ORPHANS_EVERY:
            return False
        self._tried[job_id] = now
        return True
