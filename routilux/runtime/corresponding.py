"""What durable jobs tell one another, and are told from outside: answers, events and messages."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

from ..core.points import Answered
from ..core.status import JobStatus
from ..errors import RoutiluxError, StoreError
from ..store.base import FactStore, Inbox, JobHead, Message, fits
from ..store.known_types import KnownTypes
from ..store.values import Writer
from .durable_job import DurableJob
from .invoking import answer_of
from .job import PARENT_CANCELLED, Job
from .messages import do_what_it_asks, message
from .owning import RESUMABLE, UNFINISHED
from .sleeping import Sleeping

logger = logging.getLogger("routilux")


class Corresponding(Sleeping):
    """The correspondence of one engine. For the arguments see `Keeping`."""

    def __init__(self, engine: Any, store: FactStore, lease: float, patience: float) -> None:
        super().__init__(engine, store, lease, patience)
        self._seeing_to = threading.RLock()  # what was sent first is seen to first
        self.resuming: set[str] = set()  # jobs that somebody here is about to resume

    def reachable(self, job_id: str) -> DurableJob | None:
        """Return a job that can be given something here: one that runs here, see `find`, or one that has failed here.

        None for any other, and for one that has failed and of which nothing is in memory.
        """
        job = self.find(job_id)
        if job is None and job_id in self.live:
            for head in self.store.heads(job_id=job_id):
                job = self.failed_here(head) or self.held.get(job_id)  # somebody may just have resumed it
        return job

    def see_to(self, job: DurableJob, asked: Message) -> None:
        """Do what a message asks of a job that is here; one that is of no use is logged.

        Raises StoreError when that cannot be kept, and what has made the job, or its flow, go on here no more: the
        message is for whoever goes on with the job then, and so are those that were sent after it.
        """
        with self._seeing_to:
            try:
                do_what_it_asks(job, asked, self)
            except StoreError:
                raise
            except RoutiluxError as error:
                if job.halted is not None or job.flow._jobs.are_shut_down:
                    raise
                logger.warning("a message to job %r is of no use: %s", asked.job_id, error)

    def messages_to(self, jobs: Collection[str]) -> dict[str, list[Message]]:
        """Return the messages that lie in the inbox for jobs, by job, in the order in which they were sent."""
        found: dict[str, list[Message]] = {}
        store = self.engine.store
        if jobs and fits(store, Inbox):
            for each in store.receive(0):
                if each.job_id in jobs:
                    found.setdefault(each.job_id, []).append(each)
        return found

    def attend(self, job: DurableJob) -> None:
        """See to the messages that lie in the inbox for a job that is here, before something else is done to it.

        Raises StoreError when the inbox cannot be read, and what `see_to` raises.
        """
        job_id = job.record.job_id
        with self._seeing_to:
            messages = self.messages_to({job_id}).get(job_id, [])
            for each in messages:
                self.see_to(job, each)
            if messages:
                self.engine.store.discard([each.number for each in messages])

    def tell_parent(self, job: Job) -> None:
        """Tell the job that waits for this one how it has ended; not one that has ended for good, or is gone."""
        parent_id = job.record.parent_job_id or ""
        try:
            answer = answer_of(job)
            parent = self.reachable(parent_id)
            if parent is not None:
                self.answer(parent, job.record.job_id, answer)
            elif not self.is_final(parent_id):
                self.send([(parent_id, message(do="answer", job=job.record.job_id, answer=answer))])
        except StoreError:
            self.again(partial(self.tell_parent, job))
        except RoutiluxError as error:  # whoever recovers the parent looks for itself
            logger.info("job %r cannot be told of job %r now: %s", parent_id, job.record.job_id, error)

    def answer(self, parent: DurableJob, job_id: str, answer: Mapping[str, Any]) -> None:
        """Give a job the answer of one that it waits for."""
        for delivery, activation in list(parent.record.waiting.items()):
            if activation.wait is not None and job_id in activation.wait.jobs:
                parent.answer(Answered(delivery, job_id, answer))
                return

    def begun_to_wait(self, parent: DurableJob, children: tuple[str, ...]) -> None:
        """See to it that a job hears of those that have ended before it began to wait for them."""

        def look() -> None:
            try:
                self.look_after(parent, children)
            except StoreError:
                if parent.halted is None:
                    self.again(look)
            except RoutiluxError as error:  # the parent halts, or whoever recovers it looks for itself
                logger.info("%s cannot be told of other jobs now: %s", parent.subject, error)

        self.engine.committers.submit(look)

    def look_after(self, parent: DurableJob, children: Iterable[str]) -> None:
        """Tell a job that has begun to wait for others, or was taken up, how those of them that have ended did so."""
        for child in children:
            live = self.live.get(child)
            if live is not None and live.halted is None:
                if live.record.status.ended:
                    self.answer(parent, child, answer_of(live))
                continue
            heads = self.store.heads(job_id=child)
            if not heads:  # it was pruned: to wait for it is to wait for ever
                gone = ["ExecutionError", f"job {child!r} is not in the store any more", ""]
                self.answer(parent, child, {"status": "failed", "reason": "", "error": gone, "result": None})
            elif JobStatus(heads[0].status).ended:
                self.answer(parent, child, answer_of(self.foreign(heads[0])))

    def cancel_children(self, job: DurableJob) -> None:
        """Cancel the jobs that a job's handlers have started, here or elsewhere."""
        begin = f"{job.record.job_id}/"
        try:
            for head in self.store.heads(statuses=UNFINISHED):
                if head.job_id.startswith(begin):
                    child = self.find(head.job_id)
                    if child is None:
                        self.send([(head.job_id, message(do="cancel", reason=PARENT_CANCELLED))])
                    elif child.record.parent_job_id == job.record.job_id:
                        child.cancel_unless_ended(PARENT_CANCELLED)
        except StoreError:
            self.again(partial(self.cancel_children, job))
        except RoutiluxError as error:  # it has halted, and is cancelled when it is taken up again
            logger.info("what %s has started cannot be cancelled now: %s", job.subject, error)

    def publish(self, topic: str, payload: Any, job_id: str | None) -> int:
        """Give an event to one job, or to all that wait for it; see `Engine.publish`."""
        if job_id is not None:
            job = self.reachable(job_id)
            here, heads = ([job], []) if job is not None else ([], self._open(job_id))
        else:
            with self._lock:  # at once, since they wake and fall asleep
                held, sleepers = list(self.held.values()), list(self.sleepers.items())
            asleep = [self.find(name) for name, each in sleepers if any(topic == wait.topic for wait in each.waits)]
            here = [job for job in held if job.awaits(topic)]
            here += [job for job in asleep if job is not None and job not in here]
            heads = [head for head in self.store.heads(statuses=UNFINISHED) if not self.runs_here(head.job_id)]
        keep = job_id is not None
        for job in here:
            job.publish(topic, job.encode(payload, f"the event {topic!r}"), keep=keep)
        if heads:
            messages = []
            for head in heads:
                form = self._form(head, payload, topic)
                messages.append((head.job_id, message(do="publish", topic=topic, form=form, keep=keep)))
            self.send(messages)
        return len(here) + len(heads)

    def _open(self, job_id: str) -> list[JobHead]:
        """Return the head of a job that has not ended for good; raise ExecutionError when there is no such job."""
        head = self.head_of(job_id)
        return [head] if head.status in RESUMABLE else []

    def _form(self, head: JobHead, payload: Any, topic: str) -> Any:
        flow = self.flows.get(head.flow_id)
        where = f"flow {head.flow_id!r}: job {head.job_id!r}"
        known = flow.known_types if flow is not None else lambda: KnownTypes(where)
        return Writer(where, known, None).value(payload, f"the event {topic!r}")

    def tell(self, job_id: str, **what: Any) -> None:
        """Ask something of a job that runs elsewhere."""
        self.send([(job_id, message(**what))])

    def send(self, messages: list[tuple[str, bytes]]) -> None:
        """Send messages to jobs that run elsewhere. Raises StoreError when the store has no inbox."""
        store = self.engine.store
        if not fits(store, Inbox):
            raise StoreError(f"{type(store).__name__} has no inbox, through which other processes could be reached")
        store.send(messages)
