"""A turn of a durable job: what its handler does is put together, and committed at its end and at its points.

A turn that has points and runs again replays them: until its handler is past the last of them, what it does is dropped,
what it reads is what it read before, and steps return what they returned. `reach` is asked at every point whether it
is one of those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.commits import committed
from ..core.copying import copy_payload
from ..core.job_record import Activation
from ..core.plan import SlotPlan
from ..core.points import Committed, Point, Read, Wait
from ..core.policy import ErrorStrategy
from ..core.records import ErrorRecord
from ..errors import PayloadError, ReplayError
from ..routine.binding import shortened
from .batching import COPY, LOOK, PendingBatch
from .describing import describe
from .drafts import MISSING
from .durable_state import DurableState

REPLAYING = (
    "up to its last step or wait, a handler must do the same things in the same order when it runs again: take times, "
    "random values and ids from ctx.step, and keep the order of steps when the code changes while jobs wait"
)

REFUSED = object()


class Durable(DurableState):
    """What turns of durable jobs have in common on threads and on the event loop.

    ``spoiled`` is set when the handler was given up. It may still be anywhere in here, on its own thread or on one that
    commits for it; what it has done and not committed, and what it still does, is nothing any more.
    """

    spoiled = False

    # --- points -------------------------------------------------------------------------------------------------------

    def is_over(self, point: Point) -> bool:
        """Whether what a point waits for has come."""
        wait = point.wait
        if point.done or wait is None:  # without a wait: jobs were to be started, and it had not begun to wait for them
            return point.done
        if wait.due is not None and wait.due <= self.job.now():
            return True
        return len(point.arrived) == len(set(wait.jobs)) if wait.jobs else point.form is not None

    def reach(self, kind: str, name: str | None) -> Point | None:
        """Come to a point; return it if the handler has been there before, None when it is new.

        Raises ReplayError, which fails the job, when it was another one that came here before.
        """
        self.commit_draft()
        if not self.replaying:
            return None
        point = self.points[self.place]
        if (point.kind, point.name) != (kind, name):
            assert self.activation is not None
            error = ReplayError(
                f"{self.where(self.activation.slot)}: the handler came to {_spelled(kind, name)} where it had come to "
                f"{_spelled(point.kind, point.name)} before; {REPLAYING}"
            )
            self.refused = error
            raise error
        self.place += 1
        self._clear()
        return point

    def _clear(self) -> None:
        held, self.pending = self.held, PendingBatch()
        assert self.activation is not None
        self.held = held if self.keeps_emissions(self.activation.slot) else []

    def keeps_emissions(self, slot: SlotPlan) -> bool:
        """Whether emissions leave at the end of the turn only: under SKIP, when it has succeeded."""
        return slot.policy.strategy is ErrorStrategy.SKIP

    def encode(self, value: Any, what: str) -> Any:
        """Return the JSON form of a value. Raises SaveError when it has none."""
        return self.job.encode(value, what)

    def decode(self, form: Any, what: str) -> Any:
        """Return the value with this JSON form."""
        return self.job.decode(form, what)

    def commit(self, kind: str, name: str | None = None, outcome: Any = None) -> Any:
        """Commit what was put together, as a point of this kind. Any thread may call it for the handler, which waits.

        Raises what refuses the commit; the activation fails with it then, whatever the handler does. ContextError when
        the handler was given up meanwhile: all that it did since its last point is committed, or nothing of it.
        """
        activation = self.activation
        if activation is None:  # a coroutine was given up before the thread that commits for it came to this
            raise self.not_acting(f"the commit at its {kind}")
        try:
            # What is dropped is dropped after `spoiled` is set: as long as it is not, everything here is of one batch.
            result = self._commit_fact(activation, kind, name, outcome, self._reads(), lambda: not self.spoiled)
            if result is REFUSED:
                raise self.too_late(activation)
        except Exception as error:
            if not self.spoiled:
                self.refused = error
            raise
        finally:
            if not self.spoiled:
                self._clear()
        self.job.tell()
        return result

    def _reads(self) -> tuple[Read, ...]:
        """Return what the handler has read since the last point, in the form in which it is kept."""
        for (area, key), (value, revision) in self.pending.looked.items():
            self._keep_read(area, key, value, revision, LOOK)
        draft = self.draft
        if draft is not None:
            self._note_draft(draft, self.copied, self.copy_noted, COPY)
        return tuple(self.pending.reads)

    def _commit_fact(
        self,
        activation: Activation,
        kind: str,
        name: str | None,
        outcome: Any,
        reads: tuple[Read, ...] = (),
        only_if: Callable[[], bool] | None = None,
    ) -> Any:
        job, record, slot = self.job, self.record, activation.slot
        delivery = activation.id
        held, pending = self.held, self.pending
        if self.spoiled:  # nothing of the handler is part of how its attempt ends
            held, pending = [], PendingBatch()
        if kind not in ("end", "retry") and self.keeps_emissions(slot):
            held = None
        with job.commits:
            # Without the lock, because nobody ends an activation without holding `commits`.
            if job.halted is not None:
                raise job.halted
            if record.running.get(delivery) is not activation:
                raise self.too_late(activation)
            if only_if is not None and not only_if():
                return REFUSED
            if pending.areas:
                self._agree(activation, pending)
            batch = pending.batch(held)
            at = outcome[2] if kind == "end" else job.now()
            fact = Committed(delivery, slot.index, activation.started, kind, name, outcome, batch, reads, at)
            if kind == "end" and outcome[5] is not None:
                job.keep_begun(activation)
            job.keep(fact, activation)
            with job.lock:
                result = committed(record, activation, fact)
                for wrote in batch.writes:
                    for key in (*wrote.values, *wrote.removed):
                        self.own[wrote.area, key] = record.versions[wrote.area, key]
                        self.touched = True
                job.committed(fact, activation, result)
            if job.journal.bytes_since_snapshot > job.most_before_snapshot:
                job.compact()
        return result

    def _agree(self, activation: Activation, pending: PendingBatch) -> None:
        """Raise ConflictError for a write that would lose somebody else's; let validators see what others wrote."""
        schema = self.schema
        for (area, key), seen in pending.seen.items():
            self.check_conflict(activation, area, key, seen)
        own = pending.own(None)
        if not own or schema is None or not schema.checked.looks_around:
            return
        shared = self.record.shared
        looked = ((key, pending.looked.get((None, key))) for key in schema.checked.fields if key not in own)
        if any(known is not None and shared[key] is not known[0] for key, known in looked):
            fields = {key: value for key, value in own.items() if value is not MISSING}
            own.update(schema.changed(shared, fields, (), {}, self.where(activation.slot)))

    def drop_state(self) -> None:
        """Drop what an attempt that was given up has not committed, and what it does from now on."""
        self.spoiled = True
        super().drop_state()
        self.drop()

    # --- the end ------------------------------------------------------------------------------------------------------

    def to_merge(self, activation: Activation) -> bool:
        """Whether the slot has still to merge the payload."""
        return activation.slot.merge != "override" and not activation.merged

    def arguments(self, slot: SlotPlan, activation: Activation) -> dict[str, Any]:
        """Return the arguments for the handler: the payload, merged as the slot says, and bound."""
        if self.to_merge(activation):
            self.commit_merge(slot, activation)
        return super().arguments(slot, activation)

    def commit_merge(self, slot: SlotPlan, activation: Activation) -> None:
        """Let the slot merge the payload, which happens once."""
        if slot.merge == "append":
            self._commit_fact(activation, "merge", None, None)
            return
        isolated = copy_payload if self.job.plan.copy_payloads else dict
        buffers = self.record.buffers
        merged = False
        while not merged:  # again when another turn of the slot was faster
            old = buffers.get(slot.index)
            buffer = slot.merge(isolated(old or {}), isolated(activation.payload))
            if not isinstance(buffer, Mapping) or not all(isinstance(key, str) for key in buffer):
                raise PayloadError(
                    f"{self.where(slot)}: the merge function must return a dict, not {shortened(buffer)}"
                )
            buffer = isolated(buffer)
            merged = self._commit_merged(activation, buffer, old)

    def _commit_merged(self, activation: Activation, buffer: dict[str, Any], old: dict[str, Any] | None) -> bool:
        """Commit what a merge function has made of a buffer, if that is still the slot's; return whether it was."""

        def unchanged() -> bool:
            return self.record.buffers.get(activation.slot.index) is old

        return self._commit_fact(activation, "merge", None, buffer, only_if=unchanged) is not REFUSED

    def conclude(self, activation: Activation, error: BaseException | None, at: int) -> bool:
        """Commit the end of an attempt, or its wait; return whether the attempt is retried.

        Raises StoreError when that cannot be kept: the job halts then.
        """
        if self.spoiled:  # by now, the handler may have said that it waits
            error = self.refused or error
            assert error is not None
            return self._fail(activation, error, at)
        waits_for, self.waits_for = self.waits_for, None
        if waits_for is not None:
            error = None  # the handler was left, which is none
        error = self.refused or error
        if self.replaying and self.refused is None:
            self.drop()  # it was committed before
            error = error or self._too_short(activation)
        if error is None:
            try:
                if waits_for is None:
                    self._end(activation, "completed", at, None)
                else:
                    self._suspend(activation, waits_for, at)
                return False
            except Exception as refused:
                self.job.check_going()
                error = refused
                self.drop()
        elif self.refused is not None:
            self.drop()
        return self._fail(activation, error, at)

    def _suspend(self, activation: Activation, waits_for: tuple[str, Wait], at: int) -> None:
        name, wait = waits_for
        outcome = (wait, at - activation.started - self.nested)
        self._commit_fact(activation, "wait", name, outcome, self._reads())

    def _too_short(self, activation: Activation) -> ReplayError:
        point = self.points[self.place]
        return ReplayError(
            f"{self.where(activation.slot)}: the handler came to its end where it had come to "
            f"{_spelled(point.kind, point.name)} before; {REPLAYING}"
        )

    def _end(self, activation: Activation, status: str, at: int, error: ErrorRecord | None, stop: bool = False) -> None:
        spent = at - activation.started - self.nested
        finish = self.finish_with if error is None else None
        self._commit_fact(activation, "end", None, (status, spent, at, error, stop, finish))

    def _fail(self, activation: Activation, error: BaseException, at: int) -> bool:
        """Commit an attempt that failed, as its policy says; return whether it is retried."""
        job, slot = self.job, activation.slot
        fatal = isinstance(error, (KeyboardInterrupt, SystemExit))
        stops = fatal or isinstance(error, ReplayError)
        action = ErrorStrategy.STOP if stops else slot.policy.decide(error, activation.attempt)
        if action is not ErrorStrategy.CONTINUE:
            self.held = []
        if action is ErrorStrategy.RETRY and not self.record.closed:
            delay = slot.policy.delay(activation.attempt, f"{self.record.job_id}:{activation.id}")
            spent = at - activation.started - self.nested
            job.retry_error = error
            self._try_failing(
                activation, lambda: self._commit_fact(activation, "retry", None, (spent, at + int(delay * 1e9)))
            )
            return activation.id in self.record.retrying
        described = describe(error, slot, activation.attempt)
        stop = action is ErrorStrategy.STOP
        if stop and not self.record.status.ended:
            job.failure = error
        if fatal:
            job.note_fatal(error)
        status = "skipped" if action is ErrorStrategy.SKIP else "failed"
        self._try_failing(activation, lambda: self._end(activation, status, at, described, stop))
        return False

    def _try_failing(self, activation: Activation, commit: Any) -> None:
        """Commit a failed attempt; if what it wrote is refused, without that."""
        try:
            commit()
        except Exception:
            self.job.check_going()
            if self.record.running.get(activation.id) is not activation:
                return
            self.drop()
            commit()


def _spelled(kind: str, name: str | None) -> str:
    return f"the {kind} {name!r}" if name is not None else {"flush": "ctx.flush()", "edit": "edit_state()"}[kind]
