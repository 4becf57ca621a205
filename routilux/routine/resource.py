"""Parameters of handlers that are resources: which, and what makes them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import DeclarationError

Factory = Callable[[], Any]

_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Resource:
    """Marks a handler's parameter as a resource of the flow: ``client: Annotated[Client, Resource(make_client)]``.

    A resource is made once for each flow, when a handler first needs it, and shared by all handlers of all jobs of that
    flow: wherever the same factory is named, the same object is handed over. It takes no part in binding the payload,
    is never copied and never saved. `Flow.shutdown` closes it. See `Flow.add_resource` for what a factory may be.

    Args:
        factory: a function without arguments; or the name under which `Flow.add_resource` has added one.

    Raises:
        DeclarationError: when it is neither, or the function needs an argument.
    """

    __slots__ = ("factory",)

    def __init__(self, factory: Factory | str) -> None:
        if isinstance(factory, str):
            check_resource_name(factory, "Resource")
        else:
            check_factory(factory, "Resource")
        self.factory = factory

    def __repr__(self) -> str:
        return f"Resource({self.factory!r})"


def check_resource_name(name: object, where: str) -> None:
    """Raise DeclarationError unless it is a non-empty string."""
    if not isinstance(name, str) or not name:
        raise DeclarationError(f"{where}: the name of a resource must be a non-empty string, not {name!r}")


def check_factory(factory: object, where: str) -> None:
    """Raise DeclarationError unless it can be called without arguments, as far as can be told."""
    if not callable(factory):
        raise DeclarationError(f"{where}: expected a function without arguments that makes it, not {factory!r}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise DeclarationError(
            f"{where}: {factory!r} would be called without arguments: {error}; wrap it in a function that has none"
        ) from error
    except ValueError:  # a callable whose signature cannot be read may be right all the same
        pass


def resource_of(hint: Any, parameter: inspect.Parameter, is_context: bool, where: str) -> Resource | None:
    """Return the resource that an annotation asks for, if it does.

    Raises:
        DeclarationError: when it asks in a way that cannot work.
    """
    marks = list(_marks(hint))
    if not marks:
        return None
    name = parameter.name
    outside = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Resource)]
    if outside != marks:
        wrong = "the class Resource itself" if Resource in marks else "Resource(...) somewhere inside"
        raise DeclarationError(
            f"{where}: the annotation of parameter {name!r} has {wrong}; write Annotated[its type, Resource(factory)], "
            f"with the Resource outside of any union"
        )
    if len(outside) > 1:
        raise DeclarationError(f"{where}: parameter {name!r} is two resources at once: {outside}; keep one of them")
    if is_context:
        raise DeclarationError(f"{where}: parameter {name!r} cannot be both the context and a resource")
    if parameter.kind in _STARRED:
        raise DeclarationError(
            f"{where}: a resource is one parameter; {str(parameter).partition(':')[0]} cannot be one"
        )
    return outside[0]


def _marks(hint: Any) -> Iterator[object]:
    """Yield what stands for a resource, at any depth of an annotation."""
    if hint is Resource or isinstance(hint, Resource):
        yield hint
    for each in typing.get_args(hint):
        yield from _marks(each)
