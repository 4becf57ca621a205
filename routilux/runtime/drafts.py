"""Working copies of the shared data, which copy a value when it is first touched and know what has changed.

A draft begins with the values as they are in the record, which replaces values and never changes them in place. So the
value that was there when a key was first touched is also what tells, in the end, whether the copy was changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from pydantic import BaseModel

from ..core.copying import ATOMS, copy_value
from ..graph.schema import StateSchema

Assign = Callable[[dict[str, Any], tuple[str, ...]], None]


class Draft:
    """One working copy.

    Args:
        values: the values as they are, in a dict that becomes the draft's own.
        touch: called with a key when it is first read.
        assign: called with what is set, and the keys that are removed, to write it through; without it they are only
            noted as changes.
        check: called with a key before it is set.
    """

    def __init__(
        self,
        values: dict[str, Any],
        touch: Callable[[str], None],
        assign: Assign | None = None,
        check: Callable[[str], None] | None = None,
    ) -> None:
        self.values = values
        self.before: dict[str, Any] = {}  # of the keys that were touched; those that were not there are missing
        self.set: set[str] = set()
        self.removed: dict[str, None] = {}
        self._touch = touch
        self._assign = assign
        self._check = check

    def load(self, key: str) -> Any:
        """Return the draft's copy of a value. Raises KeyError when there is none."""
        value = self.values[key]
        if key not in self.before and key not in self.set:
            self._touch(key)
            self.before[key] = value
            if value.__class__ not in ATOMS:
                value = self.values[key] = copy_value(value)
        return value

    def put(self, key: str, value: Any) -> None:
        """Set a key."""
        if self._check is not None:
            self._check(key)
        if self._assign is not None:
            self._assign({key: value}, ())
        else:
            self.set.add(key)
            self.removed.pop(key, None)
            self.values[key] = value

    def remove(self, key: str) -> None:
        """Remove a key. Raises KeyError when it is not there."""
        if key not in self.values:
            raise KeyError(key)
        if self._assign is not None:
            self._assign({}, (key,))
        else:
            del self.values[key]
            self.set.discard(key)
            self.removed[key] = None

    def renew(self, values: Mapping[str, Any], removed: tuple[str, ...]) -> None:
        """Take over what was written to the record by other means."""
        for key in (*values, *removed):
            self.before.pop(key, None)
            self.set.discard(key)
            self.values.pop(key, None)
        self.values.update(values)

    def committed(self, recorded: Mapping[str, Any]) -> None:
        """Note that the changes are in the record, as these values; what handlers hold stays the draft's."""
        for key, value in recorded.items():
            if _same(self.values.get(key), value):
                self.before[key] = value
                self.set.discard(key)
            else:  # a validator has made another value of it
                self.renew({key: value}, ())

    def changes(self) -> dict[str, Any]:
        """Return the values that were set, or changed in place."""
        changed = {key: self.values[key] for key in self.set}
        for key, before in self.before.items():
            if key in self.values and key not in changed and before.__class__ not in ATOMS:
                now = self.values[key]
                if now is not before and not _same(now, before):
                    changed[key] = now
        return changed


def _same(now: Any, before: Any) -> bool:
    try:
        return now.__class__ is before.__class__ and bool(now == before)
    except Exception:  # values that cannot be compared, such as containers of arrays: count as changed
        return False


class StateMapping(MutableMapping[str, Any]):
    """The state of a flow without a schema, as a mapping: keys of the shared data and their values."""

    __slots__ = ("_draft",)

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    def __getitem__(self, key: str) -> Any:
        return self._draft.load(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._draft.put(key, value)

    def __delitem__(self, key: str) -> None:
        self._draft.remove(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._draft.values)

    def __len__(self) -> int:
        return len(self._draft.values)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, which becomes ``default`` when there is none."""
        if key not in self._draft.values:
            self._draft.put(key, default)
        return self._draft.load(key)

    def __repr__(self) -> str:
        return repr(self._draft.values)


def typed_face(schema: StateSchema) -> type[BaseModel]:
    """Return a subclass of the state model whose instances are the faces of drafts."""
    fields, check_field = schema.fields, schema.check_field

    class Face(schema.model):  # type: ignore[name-defined, misc]
        __slots__ = ("_draft_",)
        __doc__ = schema.model.__doc__

        def __getattribute__(self, name: str) -> Any:
            if name in fields:
                return object.__getattribute__(self, "_draft_").load(name)
            return super().__getattribute__(name)

        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                super().__setattr__(name, value)
                return
            check_field(name)
            object.__getattribute__(self, "_draft_").put(name, value)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, schema.model) and self.__dict__ == other.__dict__

        __hash__ = None  # type: ignore[assignment]

    Face.__name__ = Face.__qualname__ = schema.model.__name__
    return Face


def face_of(draft: Draft, schema: StateSchema | None) -> Any:
    """Return what a handler works with: a model with a schema, a mapping without one."""
    if schema is None:
        return StateMapping(draft)
    made = schema.instance(draft.values, schema.face)
    object.__setattr__(made, "_draft_", draft)
    return made
