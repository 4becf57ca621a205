"""Models of pydantic, for whoever need not import it.

To import pydantic takes longer than to import all that programs begin with. So only what compiles types, or works with
the inside of models, does that, when it is first needed. Everybody else asks here whether something is a model: as long
as nobody has imported pydantic, nothing is. Annotations name the `BaseModel` here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from pydantic import BaseModel as BaseModel, ValidationError
else:

    class _Kinds(type):
        def __instancecheck__(cls, value):
            return is_model(value)

        def __subclasscheck__(cls, kind):
            return is_model_class(kind)

    class BaseModel(metaclass=_Kinds):
        """Stands for pydantic's in annotations, which few programs ever evaluate."""

        __module__ = "pydantic.main"


class Quiet:
    """The first base of a class that is made from a user's model, whose class hooks are not to see it."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        pass

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        pass

    @classmethod
    def __pydantic_on_complete__(cls) -> None:
        pass


_base: Any = ()  # pydantic's BaseModel, once somebody has imported it


def is_model(value: object) -> TypeGuard[BaseModel]:
    """Whether a value is an instance of a pydantic model."""
    return isinstance(value, _base or model_base())


def is_model_class(kind: type) -> TypeGuard[type[BaseModel]]:
    """Whether a class is that of a pydantic model, or pydantic's ``BaseModel`` itself."""
    return issubclass(kind, _base or model_base())


def model_base() -> Any:
    """Return pydantic's ``BaseModel``, or an empty tuple, of which nothing is an instance, when there is none yet."""
    global _base
    # Where another thread is in the midst of importing it, there is no such name yet.
    _base = getattr(sys.modules.get("pydantic.main"), "BaseModel", ())
    return _base


def validation_error() -> type[ValidationError]:
    """Return what pydantic's validators raise. Only for those who have a validator, and thus have imported pydantic."""
    import pydantic_core

    return pydantic_core.ValidationError
