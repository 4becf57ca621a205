"""What durable jobs tell one another, and are told from outside: answers, events and messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ..core.points import Answered, Published
from ..core.status import JobStatus
from ..errors import (
    RoutiluxError,
    StoreError,
)
from ..store.base import Inbox, JobHead
from ..store.known_types import KnownTypes
from ..store.values import Writer
from .durable_job import DurableJob
from .invoking import answer_of
from .job import PARENT_CANCELLED, Job
from .owning import UNFINISHED
from .sleeping import Sleeping


class Corresponding(Sleeping):
    """The correspondence of one engine. For the arguments see `Keeping`."""

    def tell_parent(self, job: Job) -> None:
        """Tell the job that waits for this one how it has ended."""
        parent_id, answer = job.record.parent_job_id or "", answer_of(job)
        try:
            parent = self.find(parent_id)
            if parent is not None:
                self.answer(parent, job.record.job_id, answer)
            else:
                self.send([(parent_id, message(do="answer", job=job.record.job_id, answer=answer))])
        except RoutiluxError:  # whoever recovers the parent looks for itself
            pass

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
            except RoutiluxError:  # the parent halts, or whoever recovers it looks for itself
                pass

        self.engine.committers.submit(look)

    def look_after(self, parent: DurableJob, children: Iterable[str]) -> None:
        """Tell a job that has begun to wait for others, or was taken up, how those of them that have ended did so."""
        for child in children:
            live = self.live.get(child)
            if live is not None and live.halted is None:
                if live.record.status.ended:
                    self.answer(parent, child, answer_of(live))
                continue
            for head in self.store.heads(job_id=child):
                if JobStatus(head.status).ended:
                    self.answer(parent, child, answer_of(self.foreign(head)))

    def cancel_children(self, job: DurableJob) -> None:
        """Cancel the jobs that a job's handlers have started, as far as they run here."""
        for job_id in [*self.held, *self.sleepers]:
            child = self.find(job_id) if job_id.startswith(f"{job.record.job_id}/") else None
            if child is not None and child.record.parent_job_id == job.record.job_id:
                try:
                    child.cancel_unless_ended(PARENT_CANCELLED)
                except RoutiluxError:  # it has halted
                    pass

    def publish(self, topic: str, payload: Any, job_id: str | None) -> int:
        """Give an event to one job, or to all that wait for it; see `Engine.publish`."""
        if job_id is not None:
            job = self.find(job_id)
            here, heads = ([job], []) if job is not None else ([], [self.head_of(job_id)])
        else:
            asleep = [
                self.find(name)
                for name, each in list(self.sleepers.items())
                if any(topic == wait.topic for wait in each.waits)
            ]
            here = [job for job in list(self.held.values()) if job.awaits(topic)]
            here += [job for job in asleep if job is not None and job not in here]
            heads = [head for head in self.store.heads(statuses=UNFINISHED) if not self.runs_here(head.job_id)]
        keep = job_id is not None
        for job in here:
            job.publish(Published(topic, job.encode(payload, f"the event {topic!r}"), keep))
        if heads:
            messages = []
            for head in heads:
                form = self._form(head, payload, topic)
                messages.append((head.job_id, message(do="publish", topic=topic, form=form, keep=keep)))
            self.send(messages)
        return len(here) + len(heads)

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
        if not isinstance(store, Inbox):
            raise StoreError(f"{type(store).__name__} has no inbox, through which other processes could be reached")
        store.send(messages)


def message(**parts: Any) -> bytes:
    """Return the body of a message to a job."""
    return orjson.dumps(parts)
