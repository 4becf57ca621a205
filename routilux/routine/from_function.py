"""From a function of a context and a payload to a handler that makes what it returns the result of the job."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from ..errors import DeclarationError, PayloadError
from .binding import Binding, Misfit, check_value, globals_of, is_context, validator_of

SIGNATURE = (
    "a workflow is a function of a context and, at most, a payload: def f(ctx, payload), where the first parameter is "
    "named 'ctx' or annotated WorkflowContext"
)


def handler_of(function: Callable[..., Any], names: Mapping[str, Any], where: str) -> tuple[Callable[..., Any], Any]:
    """Return what calls the function and makes what it returns the result, and the annotation of the result.

    Args:
        function: the function.
        names: those that its annotations may use besides the globals of its module.
        where: the workflow as it stands in messages.
    """
    if not inspect.isroutine(function):
        raise DeclarationError(f"{where}: a workflow is made from a function (def or async def), not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DeclarationError(f"{where}: {function.__qualname__} is a generator function, whose body would never run")
    signature = resolved(inspect.signature(function), function, names, where)
    first = next(iter(signature.parameters.values()), None)
    is_first = first is not None and first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
    if first is None or not is_first or not (first.name == "ctx" or is_context(first.annotation)):
        raise DeclarationError(f"{where}: {SIGNATURE}; this one is {function.__name__}{inspect.signature(function)}")
    annotation = signature.return_annotation
    checked = _result_check(annotation, where)
    handle: Any
    if inspect.iscoroutinefunction(function):

        async def handle(ctx: Any, **given: Any) -> None:
            ctx.finish(checked(await function(ctx, **given)))

    else:

        def handle(ctx: Any, **given: Any) -> None:
            ctx.finish(checked(function(ctx, **given)))

    functools.update_wrapper(handle, function)
    handle.__signature__ = signature.replace(
        parameters=[inspect.Parameter("ctx", first.POSITIONAL_OR_KEYWORD), *list(signature.parameters.values())[1:]]
    )
    return handle, annotation


def check_parameters(binding: Binding, where: str) -> None:
    """Raise DeclarationError when a handler made here takes more than a context and a payload."""
    if binding.rest or len(binding.names) > 1:
        names = ", ".join(binding.names) or "any that there are"
        raise DeclarationError(f"{where}: {SIGNATURE}; after the context, this one takes {names}")


def resolved(
    signature: inspect.Signature, function: Callable[..., Any], names: Mapping[str, Any], where: str
) -> inspect.Signature:
    """Return a signature of a function with its annotations resolved.

    Raises DeclarationError when one cannot be; ``names`` are known besides the globals of the function's module.
    """
    noted = {each.name: each.annotation for each in signature.parameters.values() if each.annotation is not each.empty}
    if signature.return_annotation is not signature.empty:
        noted["return"] = signature.return_annotation
    try:
        holder = SimpleNamespace(__annotations__=noted)
        known = typing.get_type_hints(holder, globals_of(function), dict(names), include_extras=True)
    except Exception as error:  # an annotation is an expression, and may raise anything
        raise DeclarationError(
            f"{where}: an annotation of {function.__qualname__} cannot be resolved: {error}; define its names before "
            f"the function, and import them not only for type checking"
        ) from error
    parameters = [
        each.replace(annotation=known.get(each.name, each.annotation)) for each in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters, return_annotation=known.get("return", signature.return_annotation))


def _result_check(annotation: Any, where: str) -> Callable[[Any], Any]:
    """Return what makes of a result what its annotation says."""
    validator = validator_of(annotation, "the result", where)
    if validator is None:
        return lambda result: result

    def check(result: Any) -> Any:
        try:
            return check_value(validator, "the result", result)
        except Misfit as misfit:
            raise PayloadError(f"{where}: {misfit}") from misfit.__cause__

    return check
