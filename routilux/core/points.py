"""The facts of durable jobs, and what is known of turns that have not ended.

In a job without a store every operation of a handler is a fact of its own, and is forgotten once folded. In a durable
job a turn is a transaction: what a handler does becomes one fact, `Committed`, at the end of the turn and at each point
inside it. The points of a turn that has not ended are kept, so that it can be run again from its start and find each
step, wait and edit as it was.
"""

# Annotations are evaluated here: a NamedTuple compiles those that are strings, one by one, when it is made.
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .records import ErrorRecord, Logged, Sent, Wrote


class Emission(NamedTuple):
    """What a turn emits when it commits. ``later``: when the job is resumed."""

    event: str
    data: dict[str, Any]
    isolate: bool
    later: bool = False


class Batch(NamedTuple):
    """What a turn did since its last point."""

    emissions: tuple[Emission, ...] = ()
    writes: tuple[Wrote, ...] = ()
    log: tuple[Logged, ...] = ()
    outputs: tuple[Sent, ...] = ()


class Read(NamedTuple):
    """What a turn read: a key of an area (see `Wrote`), and of which revision it was; a key of None is the whole area.

    ``form`` is a list of the JSON form of the value, empty when there was none. ``source`` tells how it was read: by
    a ``look``, through the working ``copy`` of the state, or in an ``edit``.
    """

    area: str | None
    key: str | None
    form: list[Any]
    revision: int
    source: str


class Wait(NamedTuple):
    """What a turn waits for: a time (``due``, nanoseconds on the job's clock), an event, or other jobs.

    A wait for an event ends without one when it is ``due``.
    """

    due: int | None = None
    topic: str | None = None
    jobs: tuple[str, ...] = ()


@dataclass(slots=True)
class Point:
    """A place inside a turn where it has committed.

    Args:
        kind: ``step``, ``wait``, ``invoke``, ``edit`` or ``flush``.
        name: the name that the handler gave it; None for edits and flushes.
        reads: what the handler read between the point before and this one.
        form: the outcome, as it is kept (see `store`): a 1-tuple, or None while there is none.
        error: what the step failed with, when it has failed for good.
        failures: how many attempts of the step have failed.
        wait: what the turn waits for, or waited for.
        arrived: for each of the jobs that it waits for, how that ended.
        done: whether the handler went on from here.
        own: which revisions of which keys (see `Wrote`) the turn itself has written up to here, since the point before.
    """

    kind: str
    name: str | None
    reads: tuple[Read, ...] = ()
    form: tuple[Any] | None = None
    error: ErrorRecord | None = None
    failures: int = 0
    wait: Wait | None = None
    arrived: dict[str, Any] = field(default_factory=dict)
    done: bool = False
    own: dict[tuple[str | None, str], int] = field(default_factory=dict)


class Committed(NamedTuple):
    """A turn, or the part of it up to a point, was committed.

    ``started`` is when the attempt began. What the ``outcome`` is depends on the ``kind``:

    - ``end``: the activation is over, (status, spent, at, error, stop, finish) as in `Ended`;
    - ``begin``: the attempt runs; kept only where the job is about to forget what has not begun, None;
    - ``given up``: nobody waits for it any more, (error, at);
    - ``retry``: the attempt failed, (spent, due) as in `Retried`;
    - ``merge``: the slot merged the payload, None or, for a merge function, the new buffer;
    - ``start``: a step began, or other jobs are about to be, None or the forms of their ids;
    - ``failure``: an attempt of the step failed and another follows, an ErrorRecord;
    - ``step``: the step is over, the form of its outcome in a 1-tuple, or an ErrorRecord;
    - ``wait``: the turn waits, (a Wait, nanoseconds spent);
    - ``edit`` and ``flush``: None.
    """

    delivery: int
    slot: int
    started: int
    kind: str
    name: str | None
    outcome: Any
    batch: Batch = Batch()
    reads: tuple[Read, ...] = ()
    at: int = 0


class Published(NamedTuple):
    """An event was published for the job: ``form`` is its payload, ``keep`` whether it is kept for a later wait.

    Waits that were due ``at`` that time are over, and do not get it. ``message`` is the number of the message that
    brought it, 0 without one.
    """

    topic: str
    form: Any
    keep: bool
    at: int
    message: int = 0


class Answered(NamedTuple):
    """A job that a turn waits for has ended; ``answer`` tells how."""

    delivery: int
    job_id: str
    answer: Any


class Noted(NamedTuple):
    """A message to the job was seen to, and is not to be seen to again."""

    message: int


DurableFact = Committed | Published | Answered | Noted
