"""What handlers see of the draft of a state with a schema: a model that reads and writes the draft.

Only flows with a ``state_schema`` import this module: making a class of models is dear.
"""

from __future__ import annotations

from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from ..core.copying import copy_payload
from ..errors import StateError
from ..graph.models import derived
from ..graph.schema import StateSchema
from .drafts import Draft


class _Access(BaseModel):
    """Stands behind the user's model in the order of bases, so that what the model does itself comes first."""

    __slots__ = ()
    model_config = ConfigDict(defer_build=True)  # to build a schema is dear, and this class is validated by no one

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
            return
        draft = draft_of(self)
        if draft.schema is not None and name not in draft.schema.fields:
            descriptor = getattr(type(self), name, None)
            if hasattr(descriptor, "__set__"):  # a property
                descriptor.__set__(self, value)  # type: ignore[union-attr]
                return
        draft.put(name, value)

    def __delattr__(self, name: str) -> None:
        where = draft_of(self).where()
        raise StateError(f"{where}: {name!r} cannot be deleted from the state {type(self).__name__}; assign a value")

    def __getitem__(self, key: Any) -> NoReturn:
        self._refuse(key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        self._refuse(key)

    def _refuse(self, key: Any) -> NoReturn:
        where = draft_of(self).where()
        raise StateError(f"{where}: the state {type(self).__name__} has fields, not keys: use state.{key}")


def typed_face(schema: StateSchema) -> type[BaseModel]:
    """Return a subclass of the state model whose instances are the faces of drafts.

    Only what a handler has touched lies in an instance's ``__dict__``; whoever asks for all of it gets all of it.
    """
    fields = schema.fields

    def __getattribute__(self: Any, name: str) -> Any:
        if name in fields:
            return object.__getattribute__(self, "_draft_").load(name)
        if name == "__dict__":
            return object.__getattribute__(self, "_draft_").load_all()
        if name == "__pydantic_private__":
            return _private(self, schema)
        if name == "__pydantic_fields_set__":
            return set(fields)
        return object.__getattribute__(self, name)

    def plain(self: Any) -> BaseModel:
        made = schema.instance(copy_payload({name: self.__dict__[name] for name in schema.checked.fields}))
        if (private := self.__pydantic_private__) is not None:
            object.__setattr__(made, "__pydantic_private__", copy_payload(private))
        return made

    def model_copy(self: Any, *, update: Any = None, deep: bool = False) -> BaseModel:
        return plain(self).model_copy(update=update)

    def __eq__(self: Any, other: object) -> bool:
        return isinstance(other, schema.model) and plain(self) == (
            plain(other) if isinstance(other, _Access) else other
        )

    return derived(  # type: ignore[no-any-return]
        schema.model,
        _Access,
        __slots__=("_draft_",),
        __getattribute__=__getattribute__,
        __eq__=__eq__,
        __hash__=None,
        __copy__=plain,
        __deepcopy__=lambda self, memo: plain(self),
        __reduce_ex__=lambda self, protocol: (_itself, (plain(self),)),
        model_copy=model_copy,
    )


def _itself(value: Any) -> Any:
    return value


def _private(face: Any, schema: StateSchema) -> Any:
    """Return the private attributes of a face, which are set up when they are first asked for."""
    private = object.__getattribute__(face, "__pydantic_private__")
    if private is None and schema.model.__private_attributes__:
        draft_of(face).owner.admit(draft_of(face))
        own = schema.model.model_post_init.__name__ != "init_private_attributes"
        made = schema.instance(copy_payload(face.__dict__) if own else {})
        private = made.__pydantic_private__
        object.__setattr__(face, "__pydantic_private__", private)
    return private


def draft_of(face: Any) -> Draft:
    """Return the draft behind the face of a model."""
    found: Draft = object.__getattribute__(face, "_draft_")
    return found
