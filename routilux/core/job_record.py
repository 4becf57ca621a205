"""The record of a job: everything that is true of it, and nothing else.

A record changes only through the transitions in `machine`, one per kind of fact; folding the same facts in the same
order under the same plan gives an equal record. It has one owner, the job that runs it, which holds its lock around
every transition. Times are whole nanoseconds on the job's clock; adding ``epoch`` to one gives nanoseconds of UTC.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from .gathers import Gathers, Part
from .history import History
from .plan import EventPlan, Plan, SlotPlan
from .points import Point, Wait
from .records import ErrorRecord, Logged, Sent
from .status import JobStatus


class Delivery(NamedTuple):
    """One emission on its way to one slot. ``origin`` is the delivery whose activation emitted it (0: from outside).

    One that was gathered is made of ``parts``; its origin is that of the last one.

    While it waits it is a plain tuple of these fields, a `Row`, which is made in a seventh of the time.
    """

    id: int
    slot: SlotPlan
    payload: dict[str, Any]
    isolate: bool
    at: int
    origin: int
    parts: tuple[Part, ...] = ()


Row: TypeAlias = tuple[int, SlotPlan, dict[str, Any], bool, int, int, tuple[Part, ...]]


class Activation:
    """One attempt of a handler for one delivery, while it runs or waits for its turn to run again.

    ``id`` is the number of the delivery, ``row`` the delivery as it waited. A new attempt is a new object, so that a
    late operation of an older attempt can be told from one of the current.
    """

    __slots__ = (
        "attempt",
        "data",
        "due",
        "emitted",
        "event",
        "first",
        "id",
        "isolate",
        "owner",
        "payload",
        "row",
        "slot",
        "spent",
        "started",
        "wait",
    )

    def __init__(self, row: Row, started: int = 0, owner: int = 0) -> None:
        self.row = row
        self.id, self.slot, self.payload, self.isolate, _, _, _ = row
        self.attempt = 1
        self.started = started
        self.owner = owner  # whatever the one that runs it is known by, for the time being
        self.first: int | None = None  # when the first attempt started, once there is a second
        self.spent = 0  # nanoseconds that the attempts before this one ran
        self.due = 0  # when a retry may start
        self.wait: Wait | None = None  # what it waits for inside its turn
        self.emitted = 0
        self.event: str | None = None
        self.data: dict[str, Any] | None = None

    @property
    def merged(self) -> bool:
        """Whether the payload is no more that of the delivery, but what the slot has merged it to."""
        return self.payload is not self.row[2]

    @property
    def shown(self) -> dict[str, Any]:
        """The data that the history shows for it: what it emitted last, or what was delivered."""
        return self.row[2] if self.data is None else self.data

    @property
    def delivery(self) -> Delivery:
        """The delivery that the handler is called for."""
        return Delivery._make(self.row)

    def anew(self) -> Activation:
        """Return a first attempt for the same delivery, with the payload as it was merged."""
        new = Activation(self.row)
        new.payload, new.isolate = self.payload, self.isolate
        return new

    def again(self, spent: int) -> Activation:
        """Return the next attempt, after this one ran for ``spent`` nanoseconds: same delivery, same payload."""
        new = self.later(spent)
        new.attempt = self.attempt + 1
        return new

    def later(self, spent: int) -> Activation:
        """Return what goes on with this attempt, which ran for ``spent`` nanoseconds; what it emitted still counts."""
        new = self.anew()
        new.attempt = self.attempt
        new.first = self.started if self.first is None else self.first
        new.spent = self.spent + spent
        new.emitted, new.event, new.data = self.emitted, self.event, self.data
        return new

    def interrupt(self, spent: int) -> None:
        """Note that the attempt ran for ``spent`` nanoseconds, and will go on later."""
        self.first = self.started if self.first is None else self.first
        self.spent += spent

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__ if name != "owner"
        )

    __hash__ = None  # type: ignore[assignment]


class Held(NamedTuple):
    """An emission that leaves when the job is resumed. ``origin`` is the delivery whose activation made it."""

    event: EventPlan
    data: dict[str, Any]
    isolate: bool
    origin: int


@dataclass(slots=True)
class Mailbox:
    """The deliveries that wait for one routine, or for one of its slots that handles several at a time.

    ``listing`` is where it is listed when it may take a turn: the record's ``ready``, or its ``on_loop`` when all of
    its handlers are coroutine functions. ``tickets`` counts its listings plus the turns it has out; it never exceeds
    ``limit``. A turn that waits for its retry keeps its ticket, which is what holds back the deliveries behind it.
    """

    index: int
    limit: int
    timed: bool
    listing: deque[Mailbox] = field(repr=False, compare=False)
    queue: deque[Row] = field(default_factory=deque)
    resumed: deque[Activation] = field(default_factory=deque)
    tickets: int = field(default=0, compare=False)

    def deliveries(self) -> list[Delivery]:
        """Return what waits in the queue."""
        return [Delivery._make(row) for row in self.queue]


@dataclass(slots=True, eq=True)
class JobRecord:
    """The fold of a job's facts. ``open``: handlers may start. ``closed``: what handlers still do is dropped.

    ``holds`` counts those who keep new handlers of a running job from starting for a while; it is no fact of the job.

    ``durable``: the job has a store. ``waiting`` are the activations that wait inside their turns, ``points`` those of
    turns that have not ended, by delivery, ``events`` what was published before anybody waited for it. ``inbox`` is
    the number of the last message that was seen to. ``inputs`` are the external slots that are open, by index,
    each with the time at which it closes by itself, if it does. ``gathers`` is None when no slot gathers.

    ``stopped`` are the activations whose failure ended the job; they run again when it is resumed. ``life`` counts
    those resumptions: a turn of an earlier life has no ticket to give back.
    """

    plan: Plan = field(compare=False)
    job_id: str
    epoch: int
    created: int
    session_id: str | None = None
    user_id: str | None = None
    parent_job_id: str | None = None
    durable: bool = field(default=False, compare=False)
    history: History = field(default_factory=History)

    status: JobStatus = JobStatus.PENDING
    open: bool = False
    holds: int = field(default=0, compare=False)
    closed: bool = False
    started: int | None = None
    finished: int | None = None
    result: Any = None
    reason: str = ""
    errors: list[ErrorRecord] = field(default_factory=list)
    failure: ErrorRecord | None = None

    mailboxes: list[Mailbox] = field(init=False)
    ready: deque[Mailbox] = field(default_factory=deque, compare=False)
    on_loop: deque[Mailbox] = field(default_factory=deque, compare=False)
    queued: int = 0
    running: dict[int, Activation] = field(default_factory=dict)
    retrying: dict[int, Activation] = field(default_factory=dict)
    waiting: dict[int, Activation] = field(default_factory=dict)
    points: dict[int, list[Point]] = field(default_factory=dict)
    events: dict[str, list[Any]] = field(default_factory=dict)
    inbox: int = 0
    stopped: list[Activation] = field(default_factory=list)
    deferred: list[Held] = field(default_factory=list)
    inputs: dict[int, int | None] = field(default_factory=dict)
    gathers: Gathers | None = field(init=False)
    life: int = 0
    next_id: int = 1

    routine_states: dict[str, dict[str, Any]] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    revision: int = 0
    versions: dict[tuple[str | None, str], int] = field(default_factory=dict)
    buffers: dict[int, dict[str, Any]] = field(default_factory=dict)
    log: list[Logged] = field(default_factory=list)
    outputs: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.mailboxes = [
            Mailbox(index, box.limit, box.timed, self.on_loop if box.on_loop else self.ready)
            for index, box in enumerate(self.plan.mailboxes)
        ]
        self.gathers = None if self.plan.reach is None else Gathers(self.plan.reach)

    @property
    def outstanding(self) -> int:
        """How many deliveries have no end yet: queued, gathered, running, or waiting, for a retry or in their turns."""
        gathered = 0 if self.gathers is None else sum(self.gathers.held)
        return self.queued + gathered + len(self.running) + len(self.retrying) + len(self.waiting)

    @property
    def at_rest(self) -> bool:
        """Whether no handler runs and none will until somebody outside changes the job, or what it waits for comes."""
        return not self.running and self.status not in (JobStatus.RUNNING, JobStatus.PENDING)
