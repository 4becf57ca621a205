"""What handlers see of a draft: a mapping when the state has no schema, a model of `typed_faces` when it has one."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn

from ..core.copying import StandIn, copy_payload
from ..errors import StateError
from ..graph.origins import bare
from .drafts import Draft


class StateMapping(MutableMapping[str, Any], StandIn):
    """The state of a flow without a schema, as a mapping: keys of the shared data and their values."""

    __slots__ = ("_draft",)
    _draft: Draft

    def __init__(self, draft: Draft) -> None:
        object.__setattr__(self, "_draft", draft)

    def __getitem__(self, key: str) -> Any:
        return self._draft.load(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise StateError(f"{self._draft.where()}: the state has string keys, not {key!r}")
        self._draft.put(key, value)

    def __delitem__(self, key: str) -> None:
        self._draft.remove(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._draft.has(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._draft.keys())

    def __len__(self) -> int:
        return len(self._draft.keys())

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of a key, which becomes ``default`` when there is none."""
        if not self._draft.has(key):
            self[key] = default
        return self._draft.load(key)

    def clear(self) -> None:
        """Remove all keys."""
        for key in list(self):
            self._draft.remove(key)

    def plain(self) -> dict[str, Any]:
        """Return a dict of copies of the values."""
        return copy_payload(self._draft.load_all())

    def __copy__(self) -> dict[str, Any]:
        return self.plain()

    def __deepcopy__(self, memo: Any) -> dict[str, Any]:
        return self.plain()

    def __reduce__(self) -> Any:
        return dict, (self.plain(),)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"the state has no attribute {name!r}; {_keys(name)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise StateError(f"{self._draft.where()}: the state has no attributes to set; {_keys(name)}")

    def __repr__(self) -> str:
        return repr(self._draft.load_all())


def _keys(name: str) -> str:
    return f"its values are under keys: state[{name!r}], or give the flow a state_schema"


def face_of(draft: Draft) -> Any:
    """Return what a handler works with: a model with a schema, a mapping without one."""
    schema = draft.schema
    if schema is None:
        return StateMapping(draft)
    assert schema.face is not None
    made = bare(schema.face, draft.values)
    object.__setattr__(made, "_draft_", draft)
    return made
