"""The context of functions of which it is not said whether they are coroutine functions.

Each operation has the signature that it has in `step_faces`, and returns ``Any``, so that type checkers accept both a
plain call and an awaited one. It is an annotation only: what a function is given is a `Context` or an `AsyncContext`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

from .context import HandlerContext, State
from .invoking import Invocable
from .step_faces import InitialState, Retryable


class EitherSteps(Protocol):
    """The operations of `Steps`, to be awaited in coroutine functions."""

    @property
    def key(self) -> str:
        """See `Steps.key`."""

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
        """See `Steps.run`."""

    def uuid(self, name: str) -> Any:
        """See `Steps.uuid`."""

    def now(self, name: str) -> Any:
        """See `Steps.now`."""

    def random(self, name: str) -> Any:
        """See `Steps.random`."""

    def wait_for(self, name: str, *, seconds: float = 0, minutes: float = 0, hours: float = 0, days: float = 0) -> Any:
        """See `Steps.wait_for`."""

    def wait_until(self, name: str, when: datetime) -> Any:
        """See `Steps.wait_until`."""

    def wait_for_event(self, name: str, topic: str, *, timeout: float | None = None) -> Any:
        """See `Steps.wait_for_event`."""

    def invoke(
        self,
        name: str,
        flow: Invocable,
        payload: Any = None,
        *,
        initial_state: InitialState = None,
        entry: str | None = None,
    ) -> Any:
        """See `Steps.invoke`."""

    def invoke_and_wait(
        self,
        name: str,
        flow: Invocable,
        payload: Any = None,
        *,
        initial_state: InitialState = None,
        entry: str | None = None,
    ) -> Any:
        """See `Steps.invoke_and_wait`."""

    def invoke_all_and_wait(
        self,
        name: str,
        flow: Invocable,
        payloads: Sequence[Any],
        *,
        initial_state: InitialState = None,
        entry: str | None = None,
    ) -> Any:
        """See `Steps.invoke_all_and_wait`."""


class WorkflowContext(HandlerContext[State]):
    """The annotation of the first parameter of a workflow: ``ctx: WorkflowContext``, or ``WorkflowContext[Model]``.

    A coroutine function is given an `AsyncContext` and awaits ``ctx.step``, ``ctx.store``, ``ctx.resource`` and
    ``ctx.flush``; a plain function is given a `Context` and calls them. Annotate one of these two instead, and type
    checkers know what each operation returns.
    """

    __slots__ = ()

    @property
    def step(self) -> EitherSteps:
        """See `Context.step`."""
        raise NotImplementedError

    @property
    def store(self) -> Any:
        """See `Context.store`."""
        raise NotImplementedError

    def resource(self, name: str) -> Any:
        """See `Context.resource`."""
        raise NotImplementedError

    def flush(self) -> Any:
        """See `Context.flush`."""
        raise NotImplementedError
