"""Models that can also be unpacked with ``**``, as a mapping can: the results of jobs that a handler has invoked.

A model with items or keys of its own stays as it is: what it does by itself comes first.
"""

from __future__ import annotations

from typing import Any

from ..core.models import BaseModel, Quiet, is_model, model_base


def plain_kind(kind: type) -> type:
    """Return the class that a class was derived from here, or itself."""
    found: type = vars(kind).get("__plain_kind__", kind)
    return found


_mapping_classes: dict[type, type] = {}


def as_mapping(result: Any) -> Any:
    """Return a model as an instance of a subclass that unpacks with ``**`` too, anything else as it is."""
    kind = type(result)
    if not is_model(result) or plain_kind(kind) is not kind or _has_items(result):
        return result
    made = _mapping_classes.get(kind)
    if made is None:
        names: dict[str, Any] = {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__plain_kind__": kind,
        }
        made = _mapping_classes[kind] = type(kind.__name__, (_Unpacking, kind), names)
    return _with_values_of(result, made)


def _has_items(model: BaseModel) -> bool:
    """Whether items or keys of a model are something already: by its class, as a field, or as an extra value."""
    kind = type(model)
    if hasattr(kind, "__getitem__") or hasattr(kind, "keys") or "keys" in kind.model_fields:
        return True
    return "keys" in (model.__pydantic_extra__ or ())


def _with_values_of(model: BaseModel, kind: type) -> Any:
    """Return an instance of a class that has the very values of a model."""
    new: Any = object.__new__(kind)
    for name in ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__"):
        object.__setattr__(new, name, getattr(model, name))
    return new


class _Unpacking(Quiet):
    """Makes a model a mapping, as far as ``**`` asks; in all else it is like the one that it was made from."""

    def keys(self: Any) -> list[str]:
        """Return the names of the fields, and of extra values."""
        return [name for name, _ in model_base().__iter__(self)]

    def __getitem__(self: Any, name: str) -> Any:
        return dict(model_base().__iter__(self))[name]

    def __eq__(self, other: object) -> bool:
        return bool(_original(self) == (_original(other) if isinstance(other, _Unpacking) else other))

    def __hash__(self) -> int:
        return hash(_original(self))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _itself, (_original(self),)


def _original(model: Any) -> BaseModel:
    return _with_values_of(model, plain_kind(type(model)))  # type: ignore[no-any-return]


def _itself(model: BaseModel) -> BaseModel:
    return model
