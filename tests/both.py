"""Functions that are written once and tested as plain functions and as coroutine functions."""

from __future__ import annotations

import functools
from typing import Any

KINDS = ("plain", "coroutine")


class Awaitable:
    """An object whose methods can be awaited, though they return what they return at once."""

    def __init__(self, around: Any) -> None:
        self.around = around

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.around, name)
        if not callable(found):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            return found(*args, **kwargs)

        return call


class PlainContext:
    """A `Context` that is used as an `AsyncContext` is."""

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ctx, name)

    @property
    def step(self) -> Any:
        return Awaitable(self.ctx.step)

    async def flush(self) -> None:
        self.ctx.flush()


def as_kind(kind: str, body: Any) -> Any:
    """Return ``async def body(ctx, ...)`` as a function of a kind; a plain one never suspends inside."""
    if kind == "coroutine":
        return body

    @functools.wraps(body)
    def plain(ctx: Any, *given: Any, **named: Any) -> Any:
        coroutine = body(PlainContext(ctx), *given, **named)
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("a plain function was suspended")

    return plain
