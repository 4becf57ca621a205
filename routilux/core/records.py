"""The facts of a job: one small record for each thing that can happen to it.

A fact holds plain data only: slots and mailboxes are named by their index in the plan, activations by the id of their
delivery. `machine.apply` folds one into a `JobRecord`. Times (``at``) are nanoseconds on the job's
clock, ``spent`` is a duration in nanoseconds.
"""

# Annotations are evaluated here: a NamedTuple compiles those that are strings, one by one, when it is made.
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An error of a job, as it is kept: readable without the exception object or its class.

    ``routine_id``, ``slot`` and ``attempt`` are None for an error of the job as a whole, such as its timeout.
    """

    type: str
    message: str
    traceback: str
    routine_id: str | None = None
    slot: str | None = None
    attempt: int | None = None

    def __str__(self) -> str:
        where = f" in {self.routine_id}.{self.slot}" if self.routine_id else ""
        attempt = f", attempt {self.attempt}" if self.attempt and self.attempt > 1 else ""
        return f"{self.type}: {self.message}{where}{attempt}"


class Started(NamedTuple):
    """The job began with a delivery to its entry slot."""

    slot: int
    payload: dict[str, Any]
    isolate: bool
    at: int


class Began(NamedTuple):
    """An attempt of the next activation of a mailbox began."""

    mailbox: int
    at: int


class Merged(NamedTuple):
    """A slot's own merge function gave the slot a new buffer, for this activation."""

    delivery: int
    buffer: dict[str, Any]


class Emitted(NamedTuple):
    """An activation emitted an event. ``isolate`` tells that the data hold something a reader must copy."""

    delivery: int
    event: str
    data: dict[str, Any]
    isolate: bool
    at: int


class Wrote(NamedTuple):
    """Keys were set and removed: in the state of the routine named by ``area``, or in the shared data for None."""

    area: str | None
    values: dict[str, Any]
    removed: tuple[str, ...] = ()


class Logged(NamedTuple):
    """An entry was appended to the shared log."""

    entry: dict[str, Any]
    at: int


class Sent(NamedTuple):
    """A handler sent an output out of the flow."""

    routine_id: str
    output_type: str
    data: dict[str, Any]
    at: int


class Deferred(NamedTuple):
    """An activation emitted an event that leaves when the job is resumed."""

    delivery: int
    event: str
    data: dict[str, Any]
    isolate: bool


class Retried(NamedTuple):
    """An attempt failed, and the activation will have another at ``due`` (nanoseconds on the job's clock)."""

    delivery: int
    spent: int
    due: int


class Due(NamedTuple):
    """The wait before an activation's next attempt is over."""

    delivery: int


class Ended(NamedTuple):
    """An activation ended. ``stop`` tells that its error fails the job; a 1-tuple ``finish`` completes it."""

    delivery: int
    status: str
    spent: int
    at: int
    error: ErrorRecord | None
    stop: bool
    finish: tuple[Any] | None


class Failed(NamedTuple):
    """The job as a whole failed: it ran out of time, or the process was told to stop. Running activations end."""

    error: ErrorRecord
    at: int


class GivenUp(NamedTuple):
    """Nobody waits any more for the activations that still run in a job that has ended or failed."""

    error: ErrorRecord
    at: int


class Paused(NamedTuple):
    """The job was paused: handlers that run go on to their end, no more start."""

    reason: str


class Resumed(NamedTuple):
    """A paused or failed job goes on."""

    at: int


class Cancelled(NamedTuple):
    """The job was cancelled."""

    reason: str
    at: int


class Received(NamedTuple):
    """A delivery to a slot came from outside. ``message`` is the number of the message that brought it, 0 without."""

    slot: int
    payload: dict[str, Any]
    isolate: bool
    at: int
    message: int = 0


class InputClosed(NamedTuple):
    """An external slot was closed: no more is waited for there."""

    slot: int
    at: int
    message: int = 0


Fact = (
    Started
    | Began
    | Merged
    | Emitted
    | Deferred
    | Wrote
    | Logged
    | Sent
    | Retried
    | Due
    | Ended
    | Failed
    | GivenUp
    | Paused
    | Resumed
    | Cancelled
    | Received
    | InputClosed
)
