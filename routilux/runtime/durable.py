"""A turn of a durable job: what its handler does is gathered, and committed at its end and at its points.

A turn that has points and runs again replays them: until its handler is past the last of them, what it does is dropped,
what it reads is what it read before, and steps return what they returned. `reach` is asked at every point whether it
is one of those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..core.commits import committed
from ..core.copying import ATOMS, copy_payload
from ..core.job_record import Activation
from ..core.plan import SlotPlan
from ..core.points import Committed, Point, Read, Wait
from ..core.policy import ErrorStrategy
from ..core.records import ErrorRecord, Logged, Sent
from ..errors import ExecutionError, PayloadError, ReplayError, Suspend
from ..routine.binding import shortened
from .committing import Committing
from .describing import describe
from .drafts import MISSING, Draft, EditDraft
from .durable_job import DurableJob
from .gathering import COPY, EDIT, LOOK, Gathering, SharedView, over
from .state_writes import Area

NO_POINTS: list[Point] = []
NOTHING: dict[str, Any] = {}

REPLAYING = (
    "up to its last step or wait, a handler must do the same things in the same order when it runs again: take times, "
    "random values and ids from ctx.step, and keep the order of steps when the code changes while jobs wait"
)


class Durable(Committing):
    """What turns of durable jobs have in common on threads and on the event loop.

    ``points`` are those that the turn had when it began, ``place`` counts those that it has reached. ``waits_for`` is
    set when the handler is left because it waits, ``refused`` when a commit was refused, which fails the activation.
    """

    job: DurableJob
    gathered: Gathering
    points: list[Point]
    place: int
    waits_for: tuple[str, Wait] | None
    refused: Exception | None
    copied: dict[str, Any]
    copy_noted: set[str]
    edit_base: dict[str, Any]
    error: BaseException | None

    def prepare(self) -> None:
        """Make ready for the first activation."""
        self.gathered = Gathering()
        self.shared = SharedView(self)

    def begin(self, activation: Activation) -> None:
        """Make ready for an activation."""
        self.held = []
        if not self.gathered.clean:
            self.gathered = Gathering()
        points = self.record.points
        self.points = points.get(activation.delivery.id, NO_POINTS)[:] if points else NO_POINTS
        self.place = 0
        self.waits_for = None
        self.refused = None
        self.copied = NOTHING
        self.copy_noted = set()

    @property
    def replaying(self) -> bool:
        """Whether the handler is not yet past the last point that it had reached before."""
        return self.place < len(self.points)

    def check(self, activation: Activation) -> None:
        """Raise when the activation may not act any more."""
        if self.waits_for is not None:
            raise self.suspension()
        refused = self.refused or self.job.halted
        if refused is not None:
            raise refused
        if self.record.running.get(activation.delivery.id) is not activation:
            raise self.too_late(activation)

    def suspension(self) -> Suspend:
        """Return what leaves the handler because it waits."""
        assert self.waits_for is not None
        assert self.activation is not None
        return Suspend(
            f"{self.where(self.activation.slot)} waits at {self.waits_for[0]!r}: the handler is left, and runs again "
            f"from its start when that is over, with all steps as they were. This is no error: let it pass (catch "
            f"'Exception', never 'BaseException'); what a 'finally' block does to the job meanwhile is refused"
        )

    # --- what the handler does, gathered ------------------------------------------------------------------------------

    def emit(self, event_name: str, params: dict[str, Any]) -> None:
        """Emit an event of the routine when the turn commits; it does by itself when many wait for that."""
        activation, held = self.acting(f"emit({event_name!r})"), self.held
        assert held is not None
        self.check(activation)
        event = self._event(activation.slot, event_name, params)
        isolate = False
        if self.job.plan.copy_payloads:
            for value in params.values():
                if value.__class__ not in ATOMS:
                    params, isolate = copy_payload(params), True
                    break
        held.append((event, params, isolate, False))
        if len(held) >= self.job.max_pending and self.editing is None:
            self.overflow()

    def overflow(self) -> None:
        """Commit, because many emissions wait for it."""
        raise NotImplementedError

    def send_output(self, output_type: str, data: dict[str, Any]) -> None:
        """Append to the job's outputs when the turn commits."""
        activation = self.acting(f"send_output({output_type!r})")
        self.check(activation)
        if not isinstance(output_type, str):
            raise ExecutionError(f"{self.where(activation.slot)}: output_type must be a string, not {output_type!r}")
        self.gathered.outputs.append(Sent(activation.slot.routine_id, output_type, copy_payload(data), self.job.now()))

    def log(self, entry: dict[str, Any]) -> None:
        """Append to the shared log when the turn commits."""
        self.check(self.acting("append_to_shared_log()"))
        self.gathered.log.append(Logged(entry, self.job.now()))

    def own_log(self) -> list[Logged]:
        """Return what this turn has logged and not yet committed."""
        return self.gathered.log

    # --- the state, as this turn sees it ------------------------------------------------------------------------------

    def note_read(self, area: Area, key: str | None) -> None:
        """Remember which revision was read: that of the first look since the last point."""
        known = self.gathered.looked.get((area, key))
        self.reads[area, key] = self.record.revision if known is None else known[1]

    def look(self, area: Area, key: str, *, noting: bool = True) -> tuple[Any, int]:
        """Return the value of a key as this turn sees it, `MISSING` if it is not there, and of which revision it is."""
        own = self.gathered.own(area)
        if key in own:
            return own[key], self.record.revision
        value, revision = self._looked(area, key)
        if noting:
            self.reads[area, key] = revision
        return value, revision

    def _looked(self, area: Area, key: str | None) -> tuple[Any, int]:
        looked = self.gathered.looked
        known = looked.get((area, key))
        if known is None:
            known = self._recalled(area, key)
        if known is None:
            with self.job.lock:
                values: Mapping[str, Any] | None = self.record.shared
                if area is not None:
                    values = self.record.routine_states.get(area)
                if key is None:
                    known = (None if values is None else dict(values), self.record.revision)
                else:
                    known = ((values or {}).get(key, MISSING), self.record.revision)
        looked[area, key] = known
        return known

    def _recalled(self, area: Area, key: str | None) -> tuple[Any, int] | None:
        """Return what the handler saw when it came to the next point for the first time."""
        if self.replaying:
            for read in self.points[self.place].reads:
                if read.source == LOOK and (read.area, read.key) == (area, key):
                    return self._decoded(read), read.revision
        return None

    def _decoded(self, read: Read) -> Any:
        return self.job.decode(read.form[0], "a value that was read") if read.form else MISSING

    def routine_state(self, routine_id: str) -> dict[str, Any] | None:
        """Return the values of a routine's state as this turn sees it; None when it has none."""
        own = self.gathered.own(routine_id)
        state, revision = self._looked(routine_id, None)
        self.reads[routine_id, None] = revision
        return None if state is None and not own else over(state or {}, own)

    def snapshot(self, activation: Activation, *, read: bool = False) -> tuple[dict[str, Any], int]:
        """Return the values of the state as this turn sees them, and their revision."""
        own, schema = self.gathered.own(None), self.schema
        if read:
            values, revision = self._looked(None, None)
            self.reads[None, None] = revision
        else:
            with self.job.lock:
                self.still(activation)
                values, revision = dict(self.record.shared), self.record.revision
            for point in reversed(self.points[self.place :]):
                for each in reversed(point.reads):
                    if each.source == COPY and each.key is not None:
                        values[each.key] = self._decoded(each)
            self.copied = values
        values = over(values, own)
        return (values if schema is None else schema.fields_of(values)), revision

    def state(self) -> Any:
        """Return what a handler sees as ``ctx.state``."""
        made = self.draft is None and self.editing is None
        face = super().state()
        if made and self.draft is not None:
            for point in self.points[self.place :]:
                for each in point.reads:
                    if each.source == COPY and each.key is not None:
                        self.draft.newer.setdefault(each.key, each.revision)
        return face

    def path_seen(self, key: str) -> int:
        """Return the revision of a key that a change of a part of its value builds on."""
        looked = self.gathered.looked.get((None, key))
        return max(self.seen(key), -1 if looked is None else looked[1])

    def put(
        self,
        activation: Activation,
        area: Area,
        keys: tuple[str, ...],
        values: dict[str, Any],
        removed: tuple[str, ...],
        seen: Any,
    ) -> None:
        """Gather a write; whether it loses somebody else's is known when it is committed."""
        for key in keys:
            self.gathered.seen.setdefault((area, key), seen(key))
        self.gathered.put(area, values, removed)

    # --- edits --------------------------------------------------------------------------------------------------------

    def edit_values(self) -> dict[str, Any]:
        """Return the values that an edit begins with: those that it had, when it is replayed."""
        values = dict(self.record.shared)
        if self.replaying:
            for read in self.points[self.place].reads:
                if read.source == EDIT and read.key is not None:
                    values[read.key] = self._decoded(read)
        self.edit_base = values
        values = over(values, self.gathered.own(None))
        return values if self.schema is None else self.schema.fields_of(values)

    def writes_pending(self) -> bool:
        """Whether this turn has written to the shared data and not committed that."""
        self.commit_draft()
        return bool(self.gathered.own(None))

    def _commit_edit(self, draft: EditDraft) -> None:
        self._note_draft(draft, self.edit_base, set(), EDIT)
        super()._commit_edit(draft)

    def _note_draft(self, draft: Draft, base: Mapping[str, Any], noted: set[str], source: str) -> None:
        keys: Iterable[str] = {**base, **dict.fromkeys(draft.read)} if draft.whole else draft.read
        for key in sorted(keys):
            if key not in noted and (self.schema is None or key in self.schema.fields):
                noted.add(key)
                self.gathered.reads.append(self._read(None, key, base.get(key, MISSING), draft.since, source))

    def _read(self, area: Area, key: str | None, value: Any, revision: int, source: str) -> Read:
        form = [] if value is MISSING else [self.job.encode(value, "a value that was read")]
        return Read(area, key, form, revision, source)

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
        held, self.gathered = self.held, Gathering()
        assert self.activation is not None
        self.held = held if self.keeps_emissions(self.activation.slot) else []

    def keeps_emissions(self, slot: SlotPlan) -> bool:
        """Whether emissions leave at the end of the turn only: under SKIP, when it has succeeded."""
        return slot.policy.strategy is ErrorStrategy.SKIP

    def drop(self) -> None:
        """Forget what was gathered."""
        self.gathered = Gathering()
        self.held = []

    def encode(self, value: Any, what: str) -> Any:
        """Return the JSON form of a value. Raises SaveError when it has none."""
        return self.job.encode(value, what)

    def decode(self, form: Any, what: str) -> Any:
        """Return the value with this JSON form."""
        return self.job.decode(form, what)

    def commit(self, kind: str, name: str | None = None, outcome: Any = None) -> Any:
        """Commit what was gathered, as a point of this kind. Any thread may call it for the handler, which waits.

        Raises what refuses the commit; the activation fails with it then, whatever the handler does.
        """
        activation = self.activation
        assert activation is not None
        try:
            result = self._commit_fact(activation, kind, name, outcome, self._reads())
        except Exception as error:
            self.refused = error
            raise
        finally:
            self._clear()
        self.job.tell()
        return result

    def _reads(self) -> tuple[Read, ...]:
        """Return what the handler has read since the last point, in the form in which it is kept."""
        for (area, key), (value, revision) in self.gathered.looked.items():
            self.gathered.reads.append(self._read(area, key, value, revision, LOOK))
        if self.draft is not None:
            self._note_draft(self.draft, self.copied, self.copy_noted, COPY)
        return tuple(self.gathered.reads)

    def _commit_fact(
        self, activation: Activation, kind: str, name: str | None, outcome: Any, reads: tuple[Read, ...] = ()
    ) -> Any:
        job, record, slot = self.job, self.record, activation.slot
        delivery = activation.delivery.id
        held = self.held
        if kind not in ("end", "retry") and self.keeps_emissions(slot):
            held = None
        with job.commits:
            # Without the lock, because nobody ends an activation without holding `commits`.
            if job.halted is not None:
                raise job.halted
            if record.running.get(delivery) is not activation:
                raise self.too_late(activation)
            if self.gathered.areas:
                self._agree(activation)
            batch = self.gathered.batch(held)
            at = outcome[2] if kind == "end" else job.now()
            fact = Committed(delivery, slot.index, activation.started, kind, name, outcome, batch, reads, at)
            if kind == "end" and outcome[5] is not None:
                job.keep_begun(activation)
            job.keep(fact, activation)
            gate = job.lock
            if not gate.try_enter(False):
                gate.enter()
            try:
                result = committed(record, activation, fact)
                for wrote in batch.writes:
                    for key in (*wrote.values, *wrote.removed):
                        self.own[wrote.area, key] = record.versions[wrote.area, key]
                job.committed(fact, activation, result)
            finally:
                gate.leave()
                if gate.waiting:
                    gate.ring()
            if job.journal.bytes_since_snapshot > job.most_before_snapshot:
                job.compact()
        return result

    def _agree(self, activation: Activation) -> None:
        """Raise ConflictError for a write that would lose somebody else's; let validators see what others wrote."""
        gathered, schema = self.gathered, self.schema
        for (area, key), seen in gathered.seen.items():
            self.check_conflict(activation, area, key, seen)
        own = gathered.own(None)
        if not own or schema is None or not schema.checked.looks_around:
            return
        shared = self.record.shared
        looked = ((key, gathered.looked.get((None, key))) for key in schema.checked.fields if key not in own)
        if any(known is not None and shared[key] is not known[0] for key, known in looked):
            fields = {key: value for key, value in own.items() if value is not MISSING}
            own.update(schema.changed(shared, fields, (), {}, self.where(activation.slot)))

    # --- the end ------------------------------------------------------------------------------------------------------

    def to_merge(self, activation: Activation) -> bool:
        """Whether the slot has still to merge the payload."""
        return activation.slot.merge != "override" and activation.payload is activation.delivery.payload

    def arguments(self, slot: SlotPlan, activation: Activation) -> dict[str, Any]:
        """Return the arguments for the handler: the payload, merged as the slot says, and bound."""
        if self.to_merge(activation):
            self.commit_merge(slot, activation)
        return super().arguments(slot, activation)

    def commit_merge(self, slot: SlotPlan, activation: Activation) -> None:
        """Let the slot merge the payload, which happens once."""
        buffer = None
        if slot.merge != "append":
            isolated = copy_payload if self.job.plan.copy_payloads else dict
            buffer = slot.merge(isolated(self.record.buffers.get(slot.index) or {}), isolated(activation.payload))
            if not isinstance(buffer, Mapping) or not all(isinstance(key, str) for key in buffer):
                raise PayloadError(
                    f"{self.where(slot)}: the merge function must return a dict, not {shortened(buffer)}"
                )
            buffer = isolated(buffer)
        self._commit_fact(activation, "merge", None, buffer)

    def conclude(self, activation: Activation, error: BaseException | None, at: int) -> bool:
        """Commit the end of an attempt, or its wait; return whether the attempt is retried.

        Raises StoreError when that cannot be kept: the job halts then.
        """
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
            delay = slot.policy.delay(activation.attempt, f"{self.record.job_id}:{activation.delivery.id}")
            spent = at - activation.started - self.nested
            job.retry_error = error
            self._try_failing(
                activation, lambda: self._commit_fact(activation, "retry", None, (spent, at + int(delay * 1e9)))
            )
            return activation.delivery.id in self.record.retrying
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
            if self.record.running.get(activation.delivery.id) is not activation:
                return
            self.drop()
            commit()


def _spelled(kind: str, name: str | None) -> str:
    return f"the {kind} {name!r}" if name is not None else {"flush": "ctx.flush()", "edit": "edit_state()"}[kind]
