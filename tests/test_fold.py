"""The pure core: what the facts of a job add up to, one after the other, whatever the flow looks like."""

from __future__ import annotations

import copy
from collections import Counter
from random import Random

import pytest
from generated import examples
from hypothesis import given, strategies as st

from routilux import ErrorHandler, ErrorRecord, ExecutionError, Flow, JobStatus, Routine, StatusError
from routilux.core.fold import apply, fold
from routilux.core.job_record import JobRecord
from routilux.core.machine import released
from routilux.core.records import (
    Began,
    Cancelled,
    Deferred,
    Due,
    Emitted,
    Ended,
    Failed,
    Logged,
    Merged,
    Paused,
    Resumed,
    Retried,
    Sent,
    Started,
    Wrote,
)
from routilux.core.status import check_change

BOOM = ErrorRecord("Boom", "it broke", "")


def retried(delivery, spent):
    return Retried(delivery, spent, 7)


def new_record(plan):
    return JobRecord(plan=plan, job_id="job", epoch=0, created=0)


# --- generated flows ----------------------------------------------------------------------------------------------


def merge(old, new):
    return {**old, **new}


SLOT = st.tuples(st.sampled_from([1, 1, 2, 3]), st.sampled_from(["override", "append", merge]))
ROUTINE = st.tuples(
    st.lists(SLOT, min_size=1, max_size=2), st.sampled_from([None, "continue", "retry", "skip"]), st.booleans()
)


@st.composite
def plans(draw):
    """A compiled flow of up to four routines with one or two slots and events each, wired at random."""
    flow = Flow("generated")
    ends = []
    for number, (slots, strategy, second_event) in enumerate(draw(st.lists(ROUTINE, min_size=1, max_size=4))):
        routine = Routine()
        for index, (concurrency, how) in enumerate(slots):
            routine.define_slot(f"s{index}", merge_strategy=how, concurrency=concurrency)
            ends.append((f"r{number}", f"s{index}"))
        for name in ["e0", "e1"] if second_event else ["e0"]:
            routine.define_event(name)
        if strategy:
            routine.set_error_handler(ErrorHandler(strategy))
        flow.add_routine(routine, f"r{number}")
    sources = [(name, "e0") for name in flow.routines]  # nothing listens to e1
    wires = draw(
        st.lists(
            st.tuples(st.sampled_from(sources), st.sampled_from(ends), st.sampled_from([None, {"a": "c"}])),
            min_size=1,
            max_size=8,
            unique_by=repr,
        )
    )
    for source, target, mapping in wires:
        flow.connect(*source, *target, mapping)
    return flow.plan()


def whereabouts(record):
    """Where each delivery without an end is. Fails when one is in two places."""
    found = [
        *((delivery.id, "queued") for box in record.mailboxes for delivery in box.deliveries()),
        *((activation.id, "due") for box in record.mailboxes for activation in box.resumed),
        *((number, "running") for number in record.running),
        *((number, "retrying") for number in record.retrying),
        *((activation.id, "stopped") for activation in record.stopped),
    ]
    # One that is due may still be listed among those that wait for their retry.
    places = {number: place for number, place in reversed(found) if place != "due"}
    assert len(places) == sum(place != "due" for _, place in found)
    places.update((number, place) for number, place in found if place == "due")
    return places


MOVES = {
    Began: {("queued", "running"), ("due", "running")},
    Retried: {("running", "retrying")},
    Due: {("retrying", "due")},
    Ended: {("running", "stopped")},
    Failed: {("running", "stopped")},
    Resumed: {("stopped", "due")},
}


class Run:
    """One history of a job: draws legal facts, applies them to a record, and checks what must hold at every step."""

    def __init__(self, plan, choices):
        self.plan = plan
        self.record = new_record(plan)
        self.facts = []
        self.choices = iter(choices)
        self.clock = 0
        self.ended = 0
        self.finished = False

    def pick(self, options):
        return options[next(self.choices) % len(options)]

    def tick(self):
        self.clock += 1
        return self.clock

    def go(self):
        try:
            while options := self.legal():
                self.step(self.pick(options)())
        except StopIteration:
            pass
        return self

    # --- which facts are legal now ---------------------------------------------------------------------------------

    def legal(self):
        record, options = self.record, []
        if record.status is JobStatus.PENDING:
            return [self.start] * 30 + [self.cancel]
        if record.open:
            options += [lambda box=box: self.begin(box) for box in record.mailboxes if box in record.ready] * 3
            options += [lambda each=each: Due(each) for each in record.retrying if self.waits(each)]
            options += self.rarely([self.cancel, self.fail, self.pause, self.pause])
        elif record.status is JobStatus.PAUSED or (record.status is JobStatus.FAILED and not record.running):
            options += [self.resume]
        for activation in record.running.values():
            options += [lambda it=activation, how=how: how(it) for how in self.doings(activation)]
        return options

    def rarely(self, options):
        """What ends a job would end nearly every run at once."""
        return options if next(self.choices) % 12 == 0 else []

    def waits(self, delivery):
        return whereabouts(self.record)[delivery] == "retrying"

    def doings(self, activation):
        # A run grows at first and then comes to its end, which is where the counts matter.
        growing = len(self.facts) < 40 and self.record.outstanding < 5
        doings = [*[self.emit] * (12 if growing else 1), *[self.complete] * (1 if growing else 4), self.survive]
        doings += self.rarely([self.stop, self.stop, self.finish])
        if not self.record.closed:
            doings += [self.write, self.log, self.send, self.defer]
            if callable(activation.slot.merge):
                doings.append(self.merge)
            if activation.slot.policy.strategy == "retry":
                doings += [self.retry] * 4
        return doings

    def start(self):
        leading_on = [slot for slot in self.plan.slots if any(each.routes for each in slot.node.events.values())]
        slot = self.pick(leading_on or self.plan.slots)
        return Started(slot.index, {"a": [0]}, True, self.tick())

    def begin(self, box):
        """A thread takes the mailbox out of the ready queue; it may find it empty, and gives up its ticket then."""
        if not box.queue and not box.resumed:
            self.record.ready.remove(box)
            released(self.record, box)
            return None
        self.record.ready.remove(box)
        return Began(box.index, self.tick())

    def emit(self, activation):
        events = activation.slot.node.events.values()
        connected = [event.name for event in events if event.routes] * 3
        event = self.pick(connected + [event.name for event in events])
        number = next(self.choices)
        return Emitted(activation.id, event, {"a": [number], "b": number}, True, self.tick())

    def defer(self, activation):
        event = self.pick([event.name for event in activation.slot.node.events.values()])
        return Deferred(activation.id, event, {"a": [next(self.choices)]}, True)

    def pause(self):
        return Paused("a break")

    def resume(self):
        return Resumed(self.tick())

    def write(self, activation):
        area = self.pick([None, activation.slot.routine_id])
        return Wrote(area, {self.pick(["x", "y"]): [next(self.choices)]})

    def log(self, activation):
        return Logged({"n": next(self.choices)}, self.tick())

    def send(self, activation):
        return Sent(activation.slot.routine_id, "kind", {"n": next(self.choices)}, self.tick())

    def merge(self, activation):
        return Merged(activation.id, {"merged": [next(self.choices)]})

    def retry(self, activation):
        return retried(activation.id, 5)

    def complete(self, activation):
        return self.end(activation, "completed")

    def survive(self, activation):
        return self.end(activation, self.pick(["failed", "skipped"]), BOOM)

    def stop(self, activation):
        return self.end(activation, "failed", BOOM, stop=True)

    def finish(self, activation):
        return self.end(activation, "completed", finish=(["result"],))

    def end(self, activation, status, error=None, stop=False, finish=None):
        return Ended(activation.id, status, 3, self.tick(), error, stop, finish)

    def fail(self):
        return Failed(BOOM, self.tick())

    def cancel(self):
        return Cancelled("enough", self.tick())

    # --- what must hold --------------------------------------------------------------------------------------------

    def step(self, fact):
        if fact is not None:
            record = self.record
            before, next_id, was_open, was_closed = whereabouts(record), record.next_id, record.open, record.closed
            deferred = sum(len(held.event.routes) for held in record.deferred)
            may_finish = not was_closed and record.status is not JobStatus.FAILED
            queues = {each.id: each for box in record.mailboxes for each in box.deliveries()}
            box = self.mailbox_of(fact)
            head = next((each.id for each in (*box.resumed, *box.deliveries())), None) if box else None
            apply(record, fact)
            self.facts.append(fact)
            after = whereabouts(record)
            self.check_moves(fact, before, after, next_id, queues, was_closed, may_finish, deferred)
            if isinstance(fact, Began):
                assert before[head] in ("queued", "due")
                assert after[head] == "running"
            if isinstance(fact, Ended):
                self.turn_ends(box, was_open)
        self.check_counts()

    def mailbox_of(self, fact):
        if isinstance(fact, Began):
            return self.record.mailboxes[fact.mailbox]
        if isinstance(fact, Ended):
            return self.record.mailboxes[self.record.running[fact.delivery].slot.mailbox]
        return None

    def turn_ends(self, box, was_open):
        """The thread goes on with the same mailbox, or gives it back."""
        if was_open and self.record.open and (box.queue or box.resumed) and next(self.choices, 0) % 2:
            self.step(Began(box.index, self.tick()))
        else:
            released(self.record, box)

    def check_moves(self, fact, before, after, next_id, queues, was_closed, may_finish, deferred):
        """No delivery is lost or made twice: each appears and disappears by the facts that say so, and no other."""
        made, gone = after.keys() - before.keys(), before.keys() - after.keys()
        routes = 0
        lost = set()
        if isinstance(fact, Started):
            routes = 1
        elif isinstance(fact, Emitted) and not was_closed:
            node = self.record.running[fact.delivery].slot.node
            routes = len(node.events[fact.event].routes)
        elif isinstance(fact, Ended):
            lost = {fact.delivery}
            self.ended += 1
            if may_finish and fact.finish:
                lost |= {number for number, place in before.items() if place != "running"}
                self.finished = True
            elif fact.stop and not was_closed:
                lost = {number for number, each in queues.items() if each.origin == fact.delivery}
        elif isinstance(fact, Failed):
            self.ended += sum(place == "running" for place in before.values())
        elif isinstance(fact, Resumed):
            routes = deferred
        elif isinstance(fact, Cancelled):
            lost = {number for number, place in before.items() if place != "running"}
        assert gone == lost
        assert made == set(range(next_id, next_id + routes))
        assert all(after[number] == "queued" for number in made)
        moved = {number for number in before.keys() & after.keys() if before[number] != after[number]}
        for number in moved:
            assert (before[number], after[number]) in MOVES[type(fact)]
        assert len(moved) <= 1 or isinstance(fact, (Failed, Resumed))

    def check_counts(self):
        record = self.record
        live = whereabouts(record)
        waiting = sum(len(box.queue) for box in record.mailboxes)
        assert waiting <= record.queued <= waiting + sum(len(box.resumed) for box in record.mailboxes)
        assert record.outstanding + len(record.stopped) == len(live)
        assert len(record.history) == self.ended
        if record.open:
            assert live, "a running job has something left to do"
        if record.status is JobStatus.COMPLETED and not self.finished:
            assert not live, "a job completes when nothing is left, or by finish"
        busy = Counter(each.slot.mailbox for each in record.running.values())
        held = Counter(each.slot.mailbox for each in record.retrying.values() if self.waits(each.id))
        for box in record.mailboxes:
            ids = [each.id for each in box.deliveries()]
            assert ids == sorted(ids), "in order of arrival"
            assert 0 <= box.tickets <= box.limit
            assert busy[box.index] <= box.limit
            if record.open:
                listed = sum(each is box for each in record.ready)
                assert box.tickets == listed + busy[box.index] + held[box.index]
                assert box.tickets == box.limit or listed >= min(1, len(box.queue) + len(box.resumed))


def choices_of(seed, count):
    random = Random(seed)
    return [random.randrange(10_000) for _ in range(count)]


# Short runs and long ones; a seed makes long ones cheap.
CHOICES = st.one_of(
    st.lists(st.integers(0, 50), max_size=20), st.builds(choices_of, st.integers(0, 2**32), st.integers(20, 250))
)


@examples(300)
@given(plans(), CHOICES)
def test_d6_no_delivery_is_lost_or_doubled_and_the_counts_hold_at_every_step(plan, choices):
    Run(plan, choices).go()


@examples(200)
@given(plans(), CHOICES, st.floats(0, 1))
def test_j1_folding_a_prefix_and_then_the_rest_equals_folding_all(plan, choices, share):
    run = Run(plan, choices).go()
    facts = run.facts
    kept = copy.deepcopy(facts)
    cut = int(share * len(facts))
    part = fold(new_record(plan), facts[:cut])
    resumed = fold(copy.deepcopy(part), facts[cut:])
    assert resumed == fold(new_record(plan), facts) == run.record
    assert part == fold(new_record(plan), facts[:cut]), "the copy shares nothing that changes"
    assert facts == kept, "folding leaves the facts as they are"


@examples(100)
@given(plans(), CHOICES)
def test_j1_records_of_different_facts_differ(plan, choices):
    """The equality that the test above rests on sees each fact."""
    facts = Run(plan, choices).go().facts
    record = new_record(plan)
    for fact in facts:
        before = copy.deepcopy(record)
        ignored = record.closed and isinstance(fact, Emitted)
        apply(record, fact)
        assert (record == before) is ignored


def test_d6_a_retry_is_outstanding_while_it_waits_and_when_it_is_due_until_it_has_ended():
    """One routine's retry waits, then is due; before a thread takes it up, the last other handlers end."""
    record = fold(new_record(fan_out()), RETRYING)
    assert record.outstanding == 2
    apply(record, end(3, 9))
    assert (record.status, record.outstanding) == ("running", 1)
    fold(record, [Due(2)])
    assert (record.status, record.outstanding) == ("running", 1)
    fold(record, [Began(1, 10), end(2, 11)])
    assert (record.status, record.outstanding) == ("completed", 0)

    record = fold(new_record(fan_out()), [*RETRYING, Due(2), end(3, 9)])
    assert (record.status, record.outstanding) == ("running", 1)


@pytest.mark.parametrize("due", [[], [Due(2)]], ids=["waiting", "due"])
def test_l2_a_retry_is_dropped_when_the_job_is_cancelled_or_finishes(due):
    for last in (Cancelled("", 9), end(3, 9, finish=(None,))):
        record = fold(new_record(fan_out()), [*RETRYING, *due, last])
        assert record.status.ended
        assert not whereabouts(record).keys() - {3}, "only what runs goes on"


# --- L1 -----------------------------------------------------------------------------------------------------------

LIFE = {
    "pending": {"running", "cancelled"},
    "running": {"waiting", "paused", "completed", "failed", "cancelled"},
    "waiting": {"running", "paused", "cancelled"},
    "paused": {"running", "failed", "cancelled"},
    "failed": {"running"},
    "completed": set(),
    "cancelled": set(),
}


@pytest.mark.parametrize("new", list(JobStatus))
@pytest.mark.parametrize("old", list(JobStatus))
def test_l1_a_change_of_status_is_in_the_table_or_raises(old, new):
    if new.value in LIFE[old.value]:
        check_change("job 'j'", old, new)
    else:
        rest = rf"; it can become: {', '.join(sorted(LIFE[old.value]))}" if LIFE[old.value] else rf": a {old} job stays"
        with pytest.raises(StatusError, match=rf"^job 'j' is {old} and cannot become {new}{rest}"):
            check_change("job 'j'", old, new)


def test_l1_ended_means_completed_failed_or_cancelled():
    assert [status.value for status in JobStatus if status.ended] == ["completed", "failed", "cancelled"]


def fan_out():
    """Three routines: the first one's event goes to both others."""
    flow = Flow("fan")
    for name in "abc":
        routine = Routine()
        routine.define_slot("s")
        routine.define_event("e")
        flow.add_routine(routine, name)
    flow.connect("a", "e", "b", "s")
    flow.connect("a", "e", "c", "s")
    return flow.plan()


def end(delivery, at, finish=None):
    return Ended(delivery, "completed", 1, at, None, False, finish)


START = [Started(0, {"a": 1}, False, 1)]
RUN = [*START, Began(0, 2)]
RETRYING = [*RUN, Emitted(1, "e", {}, False, 3), end(1, 4), Began(1, 5), retried(2, 1), Began(2, 6)]
REACHED = {
    "pending": [],
    "running": RUN,
    "completed": [*RUN, end(1, 3)],
    "failed": [*RUN, Ended(1, "failed", 1, 3, BOOM, True, None)],
    "cancelled": [*RUN, Cancelled("", 3)],
}


@pytest.mark.parametrize(
    ("status", "fact"),
    [
        *((status, START[0]) for status in ("running", "completed", "cancelled")),
        *((status, Cancelled("why", 9)) for status in ("completed", "failed", "cancelled")),
        *((status, Failed(BOOM, 9)) for status in ("pending", "completed", "failed", "cancelled")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_l1_a_fact_that_the_status_does_not_allow_raises_and_changes_nothing(status, fact):
    plan = fan_out()
    record, untouched = fold(new_record(plan), REACHED[status]), fold(new_record(plan), REACHED[status])
    assert record.status == status
    with pytest.raises(StatusError, match="job 'job' is"):
        apply(record, fact)
    assert record == untouched


def test_l1_nothing_begins_unless_the_job_runs():
    plan = fan_out()
    for facts in (REACHED["failed"], REACHED["cancelled"], REACHED["completed"]):
        record, untouched = fold(new_record(plan), facts), fold(new_record(plan), facts)
        apply(record, Began(0, 9))
        assert record == untouched


@pytest.mark.parametrize(
    "fact",
    [
        Emitted(7, "e", {}, False, 9),
        Merged(7, {}),
        retried(7, 1),
        Due(7),
        end(7, 9),
        Due(1),  # it runs, and does not wait for a retry
    ],
    ids=repr,
)
def test_j1_a_fact_about_an_unknown_delivery_is_an_error_and_changes_nothing(fact):
    plan = fan_out()
    record = fold(new_record(plan), RUN)
    with pytest.raises(ExecutionError, match=f"job 'job'.*delivery {fact.delivery}, which is not there"):
        apply(record, fact)
    assert record == fold(new_record(plan), RUN)


def test_j1_a_delivery_that_has_not_begun_cannot_act():
    record = fold(new_record(fan_out()), START)
    with pytest.raises(ExecutionError, match="delivery 1, which is not there"):
        apply(record, Emitted(1, "e", {}, False, 9))


# --- what single facts add up to ------------------------------------------------------------------------------------


def test_l2_finish_completes_the_job_drops_the_rest_and_keeps_the_result():
    record = fold(new_record(fan_out()), [*RUN, Emitted(1, "e", {}, False, 3), end(1, 4, finish=(5,))])
    assert (record.status, record.result, record.outstanding, record.finished) == ("completed", 5, 0, 4)


def test_l2_an_activation_that_outlives_a_cancelled_job_is_recorded_as_cancelled_and_adds_nothing():
    facts = [*RUN, Cancelled("why", 3), Emitted(1, "e", {}, False, 4), Ended(1, "failed", 1, 5, BOOM, True, None)]
    record = fold(new_record(fan_out()), facts)
    assert (record.status, record.reason, record.finished, record.outstanding) == ("cancelled", "why", 3, 0)
    assert record.errors == []
    assert [entry[7] for entry in record.history.kept()] == ["cancelled"]


def test_e2_the_first_failure_is_the_jobs_and_later_ones_are_recorded():
    late = ErrorRecord("Late", "too", "")
    facts = [
        *RUN,
        Emitted(1, "e", {}, False, 3),
        Began(1, 4),
        Began(2, 4),
        Ended(2, "failed", 1, 5, BOOM, True, None),
        Ended(3, "failed", 1, 6, late, True, None),
        end(1, 7),
    ]
    record = fold(new_record(fan_out()), facts)
    assert (record.status, record.failure, record.errors, record.finished) == ("failed", BOOM, [BOOM, late], 5)


def test_e2_a_retry_keeps_its_payload_and_counts_its_attempts_from_its_first_start():
    facts = [*RUN, retried(1, 10), Due(1), Began(0, 50), Ended(1, "completed", 4, 54, None, False, None)]
    record = fold(new_record(fan_out()), facts)
    (entry,) = record.history.kept()
    _, _, event, data, began, duration, waited, _, _, attempt, _ = entry
    assert (event, data, began, duration, waited, attempt) == ("s", {"a": 1}, 2, 14, 1, 2)


def test_b7_append_collects_each_key_and_leaves_the_delivery_as_it_came():
    flow = Flow("append")
    routine = Routine()
    routine.define_slot("s", merge_strategy="append")
    routine.define_event("e")
    flow.add_routine(routine, "r")
    flow.connect("r", "e", "r", "s")
    record = fold(
        new_record(flow.plan()),
        [Started(0, {"a": 1}, False, 1), Began(0, 2), Emitted(1, "e", {"a": 2, "b": 3}, False, 3)],
    )
    fold(record, [end(1, 4), Began(0, 5)])
    activation = record.running[2]
    assert activation.payload == {"a": [1, 2], "b": [3]}
    assert activation.delivery.payload == {"a": 2, "b": 3}
    activation.payload["a"].append("changed")
    assert record.buffers == {0: {"a": [1, 2], "b": [3]}}
