"""``ctx.store`` in coroutine handlers: the same store, awaited."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, Protocol

from ..core.job_record import Activation
from ..core.models import BaseModel
from ..errors import StateError
from .drafts import MISSING, EditDraft
from .store import Acting as StoreActing, PendingEdit, Store


class Acting(StoreActing, Protocol):
    """A turn on the event loop, as far as a store knows it."""

    async def begin_edit_async(self, activation: Activation) -> EditDraft:
        """Become the only one that edits, and return the draft of the edit."""

    async def end_edit_async(self, draft: EditDraft, *, keep: bool) -> None:
        """Commit an edit, or drop it."""


class AsyncStore:
    """The shared data of the job that a coroutine handler runs in. See `Store` for paths and errors."""

    __slots__ = ("_activation", "_store", "_turn")

    def __init__(self, turn: Acting, activation: Activation) -> None:
        self._turn = turn
        self._activation = activation
        self._store = Store(turn, activation)

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

    def edit_state(self) -> AsyncEdit:
        """Edit the state atomically: ``async with ctx.store.edit_state() as state: state.count += 1``.

        The same as `Store.edit_state`; other handlers go on while this one waits for its turn to edit.
        """
        self._turn.acting_for(self._activation, "store.edit_state()")
        return AsyncEdit(self._turn, self._activation)


class AsyncEdit(PendingEdit):
    """An edit of the state by a coroutine handler. Made by `AsyncStore.edit_state`; ``async with`` gives the state."""

    __slots__ = ()
    _turn: Acting
    _usage = "async with ctx.store.edit_state() as state:"

    async def __aenter__(self) -> Any:
        return self._begun(await self._turn.begin_edit_async(self._activation))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._turn.end_edit_async(self._ended(), keep=kind is None)

    def __enter__(self) -> NoReturn:
        raise StateError(f"{self._where()}: this is a coroutine handler: use '{self._usage}'")

    def __exit__(self, *raised: object) -> None:
        pass
