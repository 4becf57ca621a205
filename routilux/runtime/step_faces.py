"""``ctx.step`` as handlers see it: called in plain handlers, awaited in coroutine handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from ..core.models import BaseModel
from . import steps
from .invoking import ChildHandle, Invocable, invocation_of
from .steps import Call, StepOptions, Work, drive, drive_async

Retryable = type[BaseException] | tuple[type[BaseException], ...]
InitialState = Mapping[str, Any] | BaseModel | None


class StepWork:
    """The operations, as work that has yet to be done."""

    __slots__ = ("_turn",)

    def __init__(self, turn: Any) -> None:
        self._turn = turn

    @property
    def key(self) -> str:
        """A key of the step whose function runs now, the same whenever it runs again.

        Outside services can use it to tell a call that is repeated after a crash from a new one.

        Raises:
            StepError: outside the function of a step.
        """
        return self._turn.key()  # type: ignore[no-any-return]

    def _run(self, name: str, call: Call, options: StepOptions) -> Work:
        return steps.run(self._turn, name, call, options)

    def _value(self, name: str, what: str) -> Work:
        makers: dict[str, Callable[[], Any]] = {
            "uuid": steps.new_uuid,
            "random": steps.new_random,
            "now": partial(steps.now_of, self._turn),
        }
        return steps.value(self._turn, name, what, makers[what])

    def _wait_for(self, name: str, **parts: float) -> Work:
        return steps.wait_until(self._turn, name, lambda: steps.due_in(self._turn, name, **parts), "wait_for")

    def _wait_until(self, name: str, when: datetime) -> Work:
        return steps.wait_until(self._turn, name, lambda: steps.due_at(self._turn, name, when), "wait_until")

    def _invoke(self, name: str, target: Invocable, payload: Any, state: InitialState, entry: str | None) -> Work:
        return steps.invoke(self._turn, name, invocation_of(target, payload, state, entry))

    def _invoke_and_wait(
        self, name: str, target: Invocable, payload: Any, state: InitialState, entry: str | None
    ) -> Work:
        found = [invocation_of(target, payload, state, entry)]
        return steps.invoke_and_wait(self._turn, name, found, "invoke_and_wait")

    def _invoke_all_and_wait(
        self, name: str, target: Invocable, payloads: Sequence[Any], state: InitialState, entry: str | None
    ) -> Work:
        found = [invocation_of(target, payload, state, entry) for payload in payloads]
        return steps.invoke_and_wait(self._turn, name, found, "invoke_all_and_wait")


class Steps(StepWork):
    """Steps, waits and other jobs, in a plain handler.

    The outcome of every operation is recorded under its name, and never computed again: when the handler runs again,
    after a crash, a retry or a wait, it is given what was recorded. Names must be unique within one activation. In a
    job without a store nothing is recorded, and plain handlers cannot wait.

    All operations raise StepError for a name that is no non-empty string or was used before, ContextError outside the
    handler's turn, StateError inside ``edit_state()`` and ReplayError when the handler, running again, comes to
    another operation than before.
    """

    __slots__ = ()

    def run(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        max_retries: int = 2,
        base_delay: float = 1.0,
        max_delay: float = 10.0,
        retryable: Retryable = Exception,
        timeout: float | None = None,
        jitter: float = 0.0,
        **kwargs: Any,
    ) -> Any:
        """Call ``function(*args, **kwargs)`` and return what it returns, or what it gives when that can be awaited.

        Args:
            name: the name of the step.
            function: what to call; it does not use the context.
            args: its arguments; so are ``kwargs``.
            max_retries: how many times it is called again after it has raised.
            base_delay: seconds before the first retry; they double with each further one.
            max_delay: the longest pause, in seconds.
            retryable: the exceptions after which it is called again.
            timeout: seconds after which a call counts as failed with `StepTimeoutError`.
            jitter: the largest share of a pause that is taken off it, from 0 to 1; the same whenever it runs again.
            kwargs: further arguments.

        Raises:
            StepExecutionError: when all attempts have failed, or what it returned cannot be recorded.
        """
        options = StepOptions(max_retries, base_delay, max_delay, retryable, timeout, jitter)
        return drive(self._turn, self._run(name, Call(function, args, kwargs, timeout), options))

    def uuid(self, name: str) -> str:
        """Return a random UUID as a string: the same one whenever the handler runs again."""
        return drive(self._turn, self._value(name, "uuid"))  # type: ignore[no-any-return]

    def now(self, name: str) -> datetime:
        """Return the time, in UTC: the same one whenever the handler runs again."""
        return drive(self._turn, self._value(name, "now"))  # type: ignore[no-any-return]

    def random(self, name: str) -> float:
        """Return a random number from 0 to 1: the same one whenever the handler runs again."""
        return drive(self._turn, self._value(name, "random"))  # type: ignore[no-any-return]

    def wait_for(self, name: str, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> None:
        """Wait for so long. The thread is let go; the handler runs again, past this point, when the time has come."""
        drive(self._turn, self._wait_for(name, seconds=seconds, minutes=minutes, hours=hours, days=days))

    def wait_until(self, name: str, when: datetime) -> None:
        """Wait until a time, an aware datetime. Raises StepError for a naive one."""
        drive(self._turn, self._wait_until(name, when))

    def wait_for_event(self, name: str, topic: str, *, timeout: float | None = None) -> Any:
        """Wait for an event that ``engine.publish(topic, payload)`` publishes, and return its payload.

        Raises:
            StepTimeoutError: when ``timeout`` seconds pass before; with 0, when it has not come yet.
        """
        return drive(self._turn, steps.wait_for_event(self._turn, name, topic, timeout))

    def invoke(
        self,
        name: str,
        flow: Invocable,
        payload: Any = None,
        *,
        initial_state: InitialState = None,
        entry: str | None = None,
    ) -> ChildHandle:
        """Start a job of a flow, or a workflow, and return a handle on it at once.

        Args:
            name: the name of the step.
            flow: a `Flow`, or what ``@workflow`` has made.
            payload: what it begins with: the parameters of a flow's first delivery, or the payload of a workflow.
            initial_state: values of its shared data to begin with.
            entry: the routine that a flow starts with, when that is not clear.

        Raises:
            ContextError: when this job is over: it was cancelled, or another handler has finished it.
        """
        return drive(self._turn, self._invoke(name, flow, payload, initial_state, entry))  # type: ignore[no-any-return]

    def invoke_and_wait(
        self,
        name: str,
        flow: Invocable,
        payload: Any = None,
        *,
        initial_state: InitialState = None,
        entry: str | None = None,
    ) -> Any:
        """Start a job as `invoke` does, wait until it has ended, and return its result.

        A result that is a pydantic model can also be unpacked with ``**``; one whose class has items or ``keys`` of its
        own is what it is.

        Raises:
            StepExecutionError: when the job failed, or was cancelled.
        """
        return drive(self._turn, self._invoke_and_wait(name, flow, payload, initial_state, entry))[0]

    def invoke_all_and_wait(
        self,
        name: str,
        flow: Invocable,
        payloads: Sequence[Any],
        *,
        initial_state: InitialState = None,
        entry: str | None = None,
    ) -> list[Any]:
        """Start one job for each payload, wait until all have ended, and return their results in the same order.

        Raises:
            StepExecutionError: when one of them failed, or was cancelled.
        """
        work = self._invoke_all_and_wait(name, flow, payloads, initial_state, entry)
        return drive(self._turn, work)  # type: ignore[no-any-return]


class AsyncSteps(StepWork):
    """Steps, waits and other jobs, in a coroutine handler: the operations of `Steps`, awaited."""

    __slots__ = ()

    async def run(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        max_retries: int = 2,
        base_delay: float = 1.0,
        max_delay: float = 10.0,
        retryable: Retryable = Exception,
        timeout: float | None = None,
        jitter: float = 0.0,
        **kwargs: Any,
    ) -> Any:
        """Call a function once and for all; see `Steps.run`. One that is no coroutine function runs on a thread."""
        options = StepOptions(max_retries, base_delay, max_delay, retryable, timeout, jitter)
        return await drive_async(self._turn, self._run(name, Call(function, args, kwargs, timeout), options))

    async def uuid(self, name: str) -> str:
        """Return a random UUID as a string: the same one whenever the handler runs again."""
        return await drive_async(self._turn, self._value(name, "uuid"))  # type: ignore[no-any-return]

    async def now(self, name: str) -> datetime:
        """Return the time, in UTC: the same one whenever the handler runs again."""
        return await drive_async(self._turn, self._value(name, "now"))  # type: ignore[no-any-return]

    async def random(self, name: str) -> float:
        """Return a random number from 0 to 1: the same one whenever the handler runs again."""
        return await drive_async(self._turn, self._value(name, "random"))  # type: ignore[no-any-return]

    async def wait_for(
        self, name: str, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0
    ) -> None:
        """Wait for so long; see `Steps.wait_for`."""
        await drive_async(self._turn, self._wait_for(name, seconds=seconds, minutes=minutes, hours=hours, days=days))

    async def wait_until(self, name: str, when: datetime) -> None:
        """Wait until a time, an aware datetime. Raises StepError for a naive one."""
        await drive_async(self._turn, self._wait_until(name, when))

    async def wait_for_event(self, name: str, topic: str, *, timeout: float | None = None) -> Any:
        """Wait for an event, and return its payload; see `Steps.wait_for_event`."""
        return await drive_async(self._turn, steps.wait_for_event(self._turn, name, topic, timeout))

    async def invoke(
        self,
        name: str,
        flow: Invocable,
        payload: Any = None,
        *,
        initial_state: InitialState = None,
        entry: str | None = None,
    ) -> ChildHandle:
        """Start a job and return a handle on it; see `Steps.invoke`."""
        work = self._invoke(name, flow, payload, initial_state, entry)
        return await drive_async(self._turn, work)  # type: ignore[no-any-return]

    async def invoke_and_wait(
        self,
        name: str,
        flow: Invocable,
        payload: Any = None,
        *,
        initial_state: InitialState = None,
        entry: str | None = None,
    ) -> Any:
        """Start a job, wait for it and return its result; see `Steps.invoke_and_wait`."""
        work = self._invoke_and_wait(name, flow, payload, initial_state, entry)
        return (await drive_async(self._turn, work))[0]

    async def invoke_all_and_wait(
        self,
        name: str,
        flow: Invocable,
        payloads: Sequence[Any],
        *,
        initial_state: InitialState = None,
        entry: str | None = None,
    ) -> list[Any]:
        """Start one job for each payload, wait for all and return their results; see `Steps.invoke_all_and_wait`."""
        work = self._invoke_all_and_wait(name, flow, payloads, initial_state, entry)
        return await drive_async(self._turn, work)  # type: ignore[no-any-return]
