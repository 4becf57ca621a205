"""``ctx.step``: operations whose outcome is recorded and never computed again, and waits that hold no thread.

Each operation is written once, as a generator: it yields what has to be done, and is sent what came of it. A plain
handler does these things on its thread, a coroutine handler awaits them (see `drive` and `drive_async`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from ..core.frozen import Frozen
from ..core.numbers import LONGEST_SECONDS, real, seconds, whole
from ..core.points import Point, Wait
from ..core.policy import MOST_RETRIES, ErrorHandler, ErrorStrategy
from ..core.records import ErrorRecord
from ..errors import DeclarationError, ExecutionError, SaveError, StepError, StepExecutionError, StepTimeoutError
from .clock import nanoseconds, utc
from .describing import describe, rebuilt
from .invoking import ChildHandle, Invocation, result_of

Arguments = tuple[Any, ...]


class Do(NamedTuple):
    """Something that may take a while and does not depend on the handler's thread."""

    work: Callable[[], Any]


class Call(NamedTuple):
    """A call of the user's function; what it returns is awaited when it can be."""

    function: Callable[..., Any]
    args: Arguments
    kwargs: Mapping[str, Any]
    timeout: float | None


class Sleep(NamedTuple):
    """A pause between two attempts, in seconds."""

    seconds: float


class Halt(NamedTuple):
    """A wait; in a job in memory, the handler goes on from here."""

    name: str
    wait: Wait


Effect = Do | Call | Sleep | Halt
Work = Generator[Effect, Any, Any]


class Stepping(Protocol):
    """A turn, as far as steps know it."""

    job: Any
    in_step: list[str]

    def name(self, name: str, what: str) -> None:
        """Raise unless a point of this activation may have this name."""

    def reach(self, kind: str, name: str | None) -> Point | None:
        """Come to a point; return it if the handler has been there before."""

    def commit(self, kind: str, name: str | None = None, outcome: Any = None) -> Any:
        """Commit what was put together, as a point of this kind."""

    def is_over(self, point: Point) -> bool:
        """Whether what a point waits for has come."""

    def place_of(self, name: str) -> tuple[str, str]:
        """Return the handler and step as they stand in messages, and the key of the step."""

    def encode(self, value: Any, what: str) -> Any:
        """Return the form in which a value is kept."""

    def decode(self, form: Any, what: str) -> Any:
        """Return the value of a form."""

    def arrived(self, name: str) -> Point | None:
        """Return the point at which the handler has waited in memory."""


class StepOptions(Frozen):
    """How often, and after which pauses, a step's function is called again."""

    max_retries: int = 2
    base_delay: float = 1.0
    max_delay: float = 10.0
    retryable: type[BaseException] | tuple[type[BaseException], ...] = Exception
    timeout: float | None = None
    jitter: float = 0.0

    def check(self, where: str) -> None:
        """Raise DeclarationError for a number out of range, or something that is no exception class."""
        whole(self.max_retries, f"{where}: max_retries", 0, MOST_RETRIES)
        real(self.base_delay, f"{where}: base_delay", 0.0)
        real(self.max_delay, f"{where}: max_delay", 0.0)
        seconds(self.timeout, f"{where}: timeout")
        real(self.jitter, f"{where}: jitter", 0.0, 1.0)
        kinds = self.retryable if isinstance(self.retryable, tuple) else (self.retryable,)
        for kind in kinds:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise DeclarationError(f"{where}: retryable takes exception classes, not {kind!r}")

    def policy(self) -> ErrorHandler:
        """Return the policy; its delays are ``min(base_delay * 2**n, max_delay)`` seconds after failure n, from 0."""
        return ErrorHandler(
            ErrorStrategy.RETRY,
            max_retries=self.max_retries,
            retry_delay=self.base_delay,
            retry_backoff=2.0,
            max_delay=self.max_delay,
            jitter=self.jitter,
            retryable_exceptions=self.retryable,  # type: ignore[arg-type]
        )


# --- steps --------------------------------------------------------------------------------------------------------


def run(turn: Stepping, name: str, call: Call, options: StepOptions) -> Work:
    """Call a function once and for all; see `Steps.run`."""
    turn.name(name, f"step.run({name!r})")
    where, key = turn.place_of(name)
    in_step = turn.in_step
    options.check(where)
    if not callable(call.function):
        raise StepError(f"{where}: a step needs a function to call, not {call.function!r}")
    turn.job.learn(call.function)
    point = turn.reach("step", name)
    if point is not None and point.form is not None:
        return turn.decode(point.form[0], f"the outcome of step {name!r}")
    if point is not None and point.error is not None:
        raise _failure(where, name, point.failures, point.error) from rebuilt(point.error)
    failures = 0 if point is None else point.failures
    if point is None:
        yield Do(lambda: turn.commit("start", name))
    while True:
        in_step.append(key)
        try:
            result = yield call
        except Exception as error:
            failures += 1
            described, policy = describe(error), options.policy()
            if policy.decide(error, failures) is not ErrorStrategy.RETRY:
                yield Do(lambda: turn.commit("step", name, described))  # noqa: B023 - called before the next round
                raise _failure(where, name, failures, described) from error
            yield Do(lambda: turn.commit("failure", name, described))  # noqa: B023
            yield Sleep(policy.delay(failures, key))
        else:
            break
        finally:
            in_step.clear()
    try:
        form = turn.encode(result, f"the outcome of step {name!r}")
    except SaveError as error:
        described = describe(error)
        yield Do(lambda: turn.commit("step", name, described))
        raise _failure(where, name, failures + 1, described) from error
    yield Do(lambda: turn.commit("step", name, (form,)))
    return result


def _failure(where: str, name: str, attempts: int, error: ErrorRecord) -> StepExecutionError:
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    message = f"{where}: the step failed after {tries}: {error.type}: {error.message}"
    return StepExecutionError(message, name, attempts, error)


def value(turn: Stepping, name: str, what: str, make: Callable[[], Any]) -> Work:
    """Make a value once and for all: an id, a time, a random number."""
    turn.name(name, f"step.{what}({name!r})")
    point = turn.reach("step", name)
    if point is not None and point.form is not None:
        return turn.decode(point.form[0], f"the value {name!r}")
    made = make()
    form = turn.encode(made, f"the value {name!r}")
    yield Do(lambda: turn.commit("step", name, (form,)))
    return made


def new_uuid() -> str:
    """Return a random UUID as a string."""
    from uuid import uuid4

    return str(uuid4())


def new_random() -> float:
    """Return a random number from 0 to 1."""
    import random

    return random.random()


# --- waits --------------------------------------------------------------------------------------------------------


def wait_until(turn: Stepping, name: str, due: Callable[[], int], what: str) -> Work:
    """Wait until a time on the job's clock, which is asked for once."""
    turn.name(name, f"step.{what}({name!r})")
    point = turn.reach("wait", name)
    if point is None:
        yield Halt(name, Wait(due()))
    elif not turn.is_over(point):
        yield Halt(name, _wait_of(point))


def wait_for_event(turn: Stepping, name: str, topic: str, timeout: float | None) -> Work:
    """Wait for an event, and return its payload."""
    turn.name(name, f"step.wait_for_event({name!r})")
    where, _ = turn.place_of(name)
    if not isinstance(topic, str) or not topic:
        raise StepError(f"{where}: a topic is a non-empty string, not {topic!r}")
    limit = seconds(timeout, f"{where}: timeout", above=False)
    point = turn.reach("wait", name)
    if point is None:
        now = turn.job.now()
        yield Halt(name, Wait(None if limit is None else now + int(limit * 1e9), topic))
        point = turn.arrived(name)
    elif not turn.is_over(point):
        yield Halt(name, _wait_of(point))
        point = turn.arrived(name)
    if point is None or point.form is None:
        raise StepTimeoutError(f"{where}: no event {topic!r} came in time")
    return turn.decode(point.form[0], f"the event {topic!r}")


def invoke(turn: Stepping, name: str, invocation: Invocation) -> Work:
    """Start another job, and return a handle on it."""
    turn.name(name, f"step.invoke({name!r})")
    _, key = turn.place_of(name)
    point = turn.reach("invoke", name)
    if point is None:
        yield Do(lambda: turn.commit("start", name, [key]))
    if point is None or not point.done:
        yield Do(lambda: invocation.begin(turn.job, key))
    return ChildHandle(key, invocation.flow.flow_id, turn.job.engine)


def invoke_and_wait(turn: Stepping, name: str, invocations: Sequence[Invocation], what: str) -> Work:
    """Start other jobs, wait for all of them, and return their results."""
    turn.name(name, f"step.{what}({name!r})")
    where, key = turn.place_of(name)
    keys = [key] if what == "invoke_and_wait" else [f"{key}.{index}" for index in range(len(invocations))]
    if not keys:
        return []
    point = turn.reach("invoke", name)
    if point is None:
        yield Do(lambda: turn.commit("start", name, keys))
    if point is None or point.wait is None:
        yield Do(lambda: _begin_all(turn, invocations, keys))
    if point is None or not turn.is_over(point):
        yield Halt(name, Wait(jobs=tuple(keys)))
        point = turn.arrived(name)
    assert point is not None
    results = []
    for each, child in zip(invocations, keys, strict=True):
        try:
            results.append(result_of(each, child, point.arrived[child], durable=turn.job.record.durable))
        except ExecutionError as error:
            message = f"{where}: job {child!r} of flow {each.flow.flow_id!r} {error}"
            raise StepExecutionError(message, name, 1) from rebuilt(error.__cause__ or error)
    return results


def _begin_all(turn: Stepping, invocations: Sequence[Invocation], keys: Sequence[str]) -> None:
    turn.job.expect(keys)
    for invocation, key in zip(invocations, keys, strict=True):
        invocation.begin(turn.job, key)


def _wait_of(point: Point) -> Wait:
    assert point.wait is not None
    return point.wait


SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}


def due_in(turn: Stepping, name: str, **parts: float) -> int:
    """Return the time on the job's clock after so many seconds, minutes, hours and days."""
    where, _ = turn.place_of(name)
    delay = sum(real(amount, f"{where}: {unit}", 0.0) * SECONDS[unit] for unit, amount in parts.items())
    return turn.job.now() + int(min(delay, LONGEST_SECONDS) * 1e9)  # type: ignore[no-any-return]


def due_at(turn: Stepping, name: str, when: datetime) -> int:
    """Return the time on the job's clock of an aware datetime."""
    where, _ = turn.place_of(name)
    if not isinstance(when, datetime) or when.utcoffset() is None:
        raise StepError(f"{where}: wait_until takes a datetime with a time zone, not {when!r}")
    now: int = turn.job.now()
    due: int = nanoseconds(when) - turn.job.record.epoch
    return max(now, min(due, now + int(LONGEST_SECONDS * 1e9)))  # no farther from now than a store can tell


def now_of(turn: Stepping) -> datetime:
    """Return the time of the job's clock, in UTC."""
    return utc(turn.job.now() + turn.job.record.epoch)


def too_long(timeout: float) -> StepTimeoutError:
    """Return the error of a function that took longer than it may."""
    return StepTimeoutError(f"the step's function ran longer than its timeout of {timeout:g} seconds")


# --- doing it -----------------------------------------------------------------------------------------------------


def drive(turn: Any, work: Work) -> Any:
    """Do what an operation asks for, on this thread, and return what it returns."""
    return _drive(work, turn.effects())


def _drive(work: Work, effects: Callable[[Effect], Any]) -> Any:
    send: Any = work.send
    argument: Any = None
    try:
        while True:
            try:
                effect = send(argument)
            except StopIteration as stop:
                return stop.value
            try:
                send, argument = work.send, effects(effect)
            except BaseException as error:
                send, argument = work.throw, error
    finally:
        argument = None  # an exception refers to this frame


async def drive_async(turn: Any, work: Work) -> Any:
    """Do what an operation asks for, awaiting it, and return what it returns."""
    send: Any = work.send
    argument: Any = None
    try:
        while True:
            try:
                effect = send(argument)
            except StopIteration as stop:
                return stop.value
            try:
                send, argument = work.send, await turn.perform(effect)
            except BaseException as error:
                send, argument = work.throw, error
    finally:
        argument = None  # an exception refers to this frame
