"""Working copies of the shared data, which copy a value when it is first touched and know what has changed.

A draft begins with the values as they are in the record, which replaces values and never changes them in place. So the
value that was there when a key was first touched is also what tells, in the end, whether the copy was changed.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from ..core.comparing import same
from ..core.copying import ATOMS, copy_value
from ..core.job_record import Activation
from ..core.plan import SlotPlan
from ..errors import ConflictError, StateError
from ..graph.origins import Origins, paired
from ..graph.schema import StateSchema

MISSING: Any = object()
MOST_LOST = 8  # containers of one key that are looked after when they stand for nothing any more: the last ones


class Owner(Protocol):
    """A turn, as far as a draft knows it."""

    def admit(self, draft: Draft) -> None:
        """Raise unless this thread may use the draft now."""

    def where(self, slot: SlotPlan) -> str:
        """Return the flow, routine and slot as they stand in error messages."""

    def assign(self, draft: WorkingCopy, key: str, value: Any) -> None:
        """Write a value that was assigned in a working copy."""

    def unset(self, draft: WorkingCopy, key: str) -> None:
        """Write that a key was removed in a working copy."""


class Draft:
    """One copy of the shared data, isolated from the record.

    Args:
        owner: the turn that made it.
        activation: the activation that it was made for.
        base: the values as they are, in a dict that becomes the draft's own.
        since: the revision that they are of.
        schema: that of the state, if it has one.

    Attributes:
        values: what has been handed out or set. A handler may have hold of it, and may change it in place.
        read: the keys that the handler has looked at, also those that were not there; ``whole`` stands for all.
        origins: which instances of models in ``values`` are copies of which in ``base``.
    """

    __slots__ = ("activation", "base", "origins", "owner", "read", "schema", "since", "values", "whole")

    def __init__(
        self, owner: Owner, activation: Activation, base: dict[str, Any], since: int, schema: StateSchema | None
    ) -> None:
        self.owner = owner
        self.activation = activation
        self.base = base
        self.since = since
        self.schema = schema
        self.values: dict[str, Any] = {}
        self.read: set[str] = set()
        self.whole = False
        self.origins: Origins = {}

    def load(self, key: str) -> Any:
        """Return the draft's copy of a value. Raises KeyError when there is none."""
        self.owner.admit(self)
        try:
            return self.values[key]
        except KeyError:
            return self._fetch(key)

    def _fetch(self, key: str) -> Any:
        self.read.add(key)
        value = self.base[key]
        if value.__class__ not in ATOMS:
            original, value = value, copy_value(value)
            self._pair(key, value, original)
        self.values[key] = value
        return value

    def _pair(self, key: str, copied: Any, original: Any) -> None:
        if self.schema is not None and key in self.schema.checked.with_models:
            paired(copied, original, self.origins)

    def load_all(self) -> dict[str, Any]:
        """Return the values of all keys, in the order of the schema's fields or of the record."""
        self.owner.admit(self)
        self.whole = True
        for key in self.base:
            if key not in self.values:
                self._fetch(key)
        if self.schema is not None:
            order = self.schema.checked.fields
            if list(self.values)[: len(order)] != list(order):
                values = {**{key: self.values[key] for key in order}, **self.values}
                self.values.clear()
                self.values.update(values)
        return self.values

    def keys(self) -> list[str]:
        """Return all keys."""
        self.owner.admit(self)
        self.whole = True
        return [*self.base, *(key for key in self.values if key not in self.base)]

    def has(self, key: str) -> bool:
        """Whether there is such a key."""
        self.owner.admit(self)
        self.read.add(key)
        return key in self.values or key in self.base

    def put(self, key: str, value: Any) -> None:
        """Set a key."""
        raise NotImplementedError

    def remove(self, key: str) -> None:
        """Remove a key. Raises KeyError when it is not there."""
        raise NotImplementedError

    def check_settable(self, key: str, value: Any) -> None:
        """Raise unless this thread may set the key to the value now."""
        self.owner.admit(self)
        if self.schema is not None:
            if key not in self.schema.fields:
                self.schema.check_field(key, self.where())
            if key in self.schema.checked.frozen_fields:
                self.schema.check_settable(key, self.base[key], value, self.where())

    def where(self) -> str:
        """Return the handler as it stands in error messages."""
        return self.owner.where(self.activation.slot)

    def known(self) -> set[str]:
        """Return the keys that the handler knows something of: their values, or whether they were there."""
        return self.read

    def changed_in_place(self) -> dict[str, Any]:
        """Return the values that are not what they were."""
        changed = {}
        for key, now in self.values.items():
            before = self.base.get(key, MISSING)
            if now is not before and not same(now, before) and (self.schema is None or key in self.schema.fields):
                changed[key] = now
        return changed


class EditDraft(Draft):
    """The state inside ``edit_state()``, whose changes are committed together at its end."""

    __slots__ = ("assigned", "face", "looked_for", "removed")

    def __init__(
        self, owner: Owner, activation: Activation, base: dict[str, Any], since: int, schema: StateSchema | None
    ) -> None:
        super().__init__(owner, activation, base, since, schema)
        self.face: Any = None
        self.assigned: set[str] = set()
        self.removed: dict[str, None] = {}
        self.looked_for: set[str] = set()  # keys that were removed, or were not there to be

    def put(self, key: str, value: Any) -> None:
        """Set a key; the value is validated when the edit ends."""
        self.check_settable(key, value)
        self.assigned.add(key)
        self.removed.pop(key, None)
        self.values[key] = value

    def remove(self, key: str) -> None:
        """Remove a key. Raises KeyError when it is not there."""
        self.owner.admit(self)
        self.looked_for.add(key)
        if self.values.pop(key, MISSING) is MISSING and key not in self.base:
            raise KeyError(key)
        self.base.pop(key, None)
        self.assigned.discard(key)
        self.removed[key] = None

    def known(self) -> set[str]:
        """See `Draft.known`."""
        return self.read | self.looked_for

    def changes(self) -> dict[str, Any]:
        """Return the values that were set, or changed in place."""
        return {**{key: self.values[key] for key in self.assigned}, **self.changed_in_place()}


class Lost(NamedTuple):
    """What a handler may still hold and no longer stands for the value of a key, with what it was when it was lost."""

    held: Any
    was: Any
    by_another: bool


class WorkingCopy(Draft):
    """``ctx.state``: what is assigned is written at once, what is changed in place at the next commit.

    A handler may hold on to a list that it took from here. When the value of that key is replaced by other means, the
    list stands for nothing any more; a change of it then would be lost, so it is looked after, too.
    """

    __slots__ = ("lost", "newer")

    def __init__(
        self, owner: Owner, activation: Activation, base: dict[str, Any], since: int, schema: StateSchema | None
    ) -> None:
        super().__init__(owner, activation, base, since, schema)
        self.newer: dict[str, int] = {}  # the revisions of keys that are not as they were at the beginning
        self.lost: dict[str, list[Lost]] = {}

    def seen(self, key: str) -> int:
        """Return the revision of a key that the handler knows, -1 when it has not looked."""
        return self.newer.get(key, self.since) if self.whole or key in self.read else -1

    def put(self, key: str, value: Any) -> None:
        """Set a key, and write it."""
        self.check_settable(key, value)
        self.owner.assign(self, key, value)

    def remove(self, key: str) -> None:
        """Remove a key, and write it. Raises KeyError when it is not there."""
        if not self.has(key):
            raise KeyError(key)
        self.owner.unset(self, key)

    # --- what is written and read by other means ------------------------------------------------------------------

    def was_assigned(self, key: str, value: Any, recorded: Any, revision: int) -> None:
        """Note that an assigned value is in the record. The draft keeps the very object when nothing was coerced."""
        self._renew(key, recorded, revision)
        self.lost.pop(key, None)  # like a variable: what was assigned before is on its own
        if value is recorded:
            self.values[key] = value
            return
        if value.__class__ in ATOMS or not same(value, recorded):
            self.values.pop(key, None)
            self._lose(key, value, False)
        else:
            self.values[key] = value
            self._pair(key, value, recorded)

    def was_committed(self, key: str, recorded: Any, revision: int) -> None:
        """Note that a value changed in place is in the record; what the handler holds is brought to it."""
        held = self.values[key]
        self._renew(key, recorded, revision)
        if not same(held, recorded):  # a validator has made another value of it
            held = self.values[key] = self._brought(key, held, copy_value(recorded))
        if same(held, recorded):
            self._pair(key, held, recorded)

    def was_written(self, key: str, recorded: Any, revision: int, *, by_another: bool = False) -> None:
        """Note that a key has got this value, or none, by other means. What the handler itself took out is its own."""
        held, before = self.values.get(key, MISSING), self.base.get(key, MISSING)
        if recorded is before:
            self.newer[key] = revision
            return
        self._renew(key, recorded, revision)
        if recorded is MISSING and not by_another:
            self.values.pop(key, None)
            self.lost.pop(key, None)
            return
        if held is MISSING:
            return
        if held.__class__ not in ATOMS and same(held, recorded):
            self._pair(key, held, recorded)
            return
        del self.values[key]
        self._lose(key, held, by_another)

    def was_read(self, values: dict[str, Any], revision: int) -> None:
        """Note that the handler has read everything anew."""
        for key in [key for key in self.values if self.base.get(key, MISSING) is not values.get(key, MISSING)]:
            self.was_written(key, values.get(key, MISSING), revision, by_another=True)
        self.base = values
        self.since = revision
        self.newer.clear()

    def forget(self, key: str) -> None:
        """Let go of a value that was changed in place where it should not have been."""
        self.lost.setdefault(key, []).append(Lost(self.values.pop(key), self.base.get(key), False))

    def _renew(self, key: str, recorded: Any, revision: int) -> None:
        self.newer[key] = revision
        if recorded is MISSING:
            self.base.pop(key, None)
        else:
            self.base[key] = recorded

    def _lose(self, key: str, held: Any, by_another: bool) -> None:
        was = copy_value(held)
        if was is not held:  # it can change
            entries = self.lost.setdefault(key, [])
            del entries[: 1 - MOST_LOST]
            entries.append(Lost(held, was, by_another))

    def _brought(self, key: str, held: Any, now: Any) -> Any:
        """Bring a container that a handler holds to a new value, in place; what it held of the old one is lost."""
        if held.__class__ is not now.__class__ or held.__class__ not in (list, dict, set):
            self._lose(key, held, False)
            return now
        if held.__class__ is set:
            held.clear()
            held.update(now)
            return held
        before = held if held.__class__ is dict else dict(enumerate(held))
        after = now if now.__class__ is dict else dict(enumerate(now))
        kept = {name: before[name] if same(before.get(name, MISSING), item) else item for name, item in after.items()}
        for name, item in before.items():
            if kept.get(name) is not item:
                self._lose(key, item, False)
        held.clear()
        if isinstance(held, dict):
            held.update(kept)
        elif isinstance(held, list):
            held.extend(kept.values())
        return held

    def check_lost(self, besides: tuple[str, ...]) -> None:
        """Raise when a container that stands for nothing any more was changed; not for keys that are being written."""
        for key, entries in self.lost.items():
            for held, was, by_another in entries if key not in besides else ():
                if same(held, was):
                    continue
                kind = f"{self.where()}: the {type(held).__name__} that was taken from key {key!r} of the state"
                if by_another:
                    raise ConflictError(
                        f"{kind} was changed after another activation had changed that key, so that the change would "
                        f"be lost; change it inside 'with ctx.store.edit_state() as state:'"
                    )
                raise StateError(
                    f"{kind} was changed after that key had been written otherwise, so that the change would be lost; "
                    f"take it from ctx.state anew after each write"
                )
