"""``ctx.store`` in coroutine handlers: the same store, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from pydantic import BaseModel

from ..core.job_record import Activation
from .drafts import Draft, face_of
from .store import MISSING, Store
from .store import Acting as StoreActing


class Acting(StoreActing, Protocol):
    """A turn on the event loop, as far as a store knows it."""

    async def begin_edit_async(self) -> Activation:
        """Become the only one that edits, and return it."""


class AsyncStore:
    """The shared data of the job that a coroutine handler runs in. See `Store` for paths and errors."""

    __slots__ = ("_store", "_turn")

    def __init__(self, turn: Acting) -> None:
        self._turn = turn
        self._store = Store(turn)

    async def get(self, path: str, default: Any = MISSING) -> Any:
        """Return a copy of what a path leads to, or ``default``. Raises what `Store.get` does."""
        return self._store.get(path, default)

    async def set(self, path: str, value: Any) -> None:
        """Set what a path leads to. Raises what `Store.set` does."""
        self._store.set(path, value)

    async def get_state(self) -> Any:
        """Return a copy of the whole state: a model with a schema, a dict without one."""
        return self._store.get_state()

    async def set_state(self, state: BaseModel | Mapping[str, Any]) -> None:
        """Replace the whole state. Raises what `Store.set_state` does."""
        self._store.set_state(state)

    async def clear(self) -> None:
        """Remove all keys; with a schema, give every field its default."""
        self._store.clear()

    @asynccontextmanager
    async def edit_state(self) -> AsyncIterator[Any]:
        """Edit the state atomically: ``async with ctx.store.edit_state() as state: state.count += 1``.

        The same as `Store.edit_state`; other handlers go on while this one waits for its turn to edit.
        """
        turn = self._turn
        activation = await turn.begin_edit_async()
        draft: Draft | None = None
        since = 0
        try:
            values, since = turn.snapshot()
            schema = turn.job.plan.state_schema
            if schema is not None:
                values = schema.fields_of(values)
            draft = Draft(values, touch=lambda key: None)
            yield face_of(draft, schema)
        except BaseException:
            draft = None
            raise
        finally:
            turn.end_edit(activation, draft, since)
