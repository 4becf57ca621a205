"""A graph as data that can be kept as JSON, and back.

A description names classes and never says where they are: those who read one pass the classes that it may use, so
that data can start nothing that they did not choose. It has exactly the keys that `describe` writes.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Protocol, TypeVar

from ..core.policy import ErrorHandler
from ..errors import DeclarationError, known_names
from ..routine.binding import shortened
from ..routine.declaration import Routine, declaration_of, find
from .shape import Connection, Shape

FORMAT = 1
DEEPEST = 100
POLICY_KEYS = tuple(field.name for field in fields(ErrorHandler))
KINDS = {str: "a string", list: "a list", Mapping: "a mapping", bool: "true or false", int: "a whole number"}

Classes = Mapping[str, type[Any]] | Iterable[type[Any]]


class Built(Protocol):
    """A graph that is being put together."""

    def add_routine(self, routine: Routine, routine_id: str | None = None) -> str:
        """Add a routine."""

    def connect(
        self, source_id: str, event: str, target_id: str, slot: str, param_mapping: Mapping[str, str] | None = None
    ) -> Connection:
        """Connect an event to a slot."""

    def set_error_handler(self, error_handler: ErrorHandler) -> None:
        """Set the policy of routines that have none of their own."""


G = TypeVar("G", bound=Built)


# --- writing ----------------------------------------------------------------------------------------------------


def describe(graph: Shape, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a graph, with the ``options`` that it was made with.

    Raises:
        DeclarationError: when a configuration holds what JSON has no form for, two classes share a name, or an error
            handler is of a class of its own.
    """
    where = f"flow {graph.flow_id!r}"
    named: dict[str, tuple[str, type]] = {}
    routines = []
    for routine_id, routine in graph.routines.items():
        at, kind = f"{where}: routine {routine_id!r}", type(routine)
        other_id, other = named.setdefault(kind.__name__, (routine_id, kind))
        if other is not kind:
            raise DeclarationError(
                f"{at} and routine {other_id!r} are of two classes that are both named {kind.__name__!r}, which a "
                f"description cannot tell apart; rename one"
            )
        declared = declaration_of(routine)
        routines.append(
            {
                "id": routine_id,
                "class": kind.__name__,
                "config": _as_json(declared.config, f"{at}: config", ()),
                "error_handler": _describe_policy(declared.error_handler, at),
            }
        )
    return {
        "format": FORMAT,
        "flow_id": graph.flow_id,
        "options": dict(options),
        "error_handler": _describe_policy(graph.error_handler, where),
        "routines": routines,
        "connections": [
            {
                "source_id": connection.source_id,
                "event": connection.event,
                "target_id": connection.target_id,
                "slot": connection.slot,
                "param_mapping": dict(connection.param_mapping),
            }
            for connection in graph.connections
        ],
    }


def _describe_policy(policy: ErrorHandler | None, where: str) -> dict[str, Any] | None:
    if policy is None:
        return None
    if type(policy) is not ErrorHandler:
        raise DeclarationError(f"{where}: an error handler of class {type(policy).__name__} cannot be described")
    described = {name: getattr(policy, name) for name in POLICY_KEYS}
    described["strategy"] = policy.strategy.value
    described["retryable_exceptions"] = [_exception_name(each) for each in policy.retryable_exceptions]
    return described


def _exception_name(kind: type[Any]) -> str:
    """Return the bare name of a builtin exception, and the full name of any other, so that none passes for another."""
    name = kind.__name__
    return name if getattr(builtins, name, None) is kind else f"{kind.__module__}.{kind.__qualname__}"


def _as_json(value: Any, path: str, around: tuple[Any, ...]) -> Any:
    """Return a copy of a value as it comes back from JSON; ``around`` are the containers that it is in."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float) and math.isfinite(value):
        return float.__float__(value)
    if isinstance(value, (dict, list, tuple)):
        if any(value is outer for outer in around):
            raise DeclarationError(f"{path} is one of the containers that it is in, and JSON has no form for that")
        if len(around) == DEEPEST:
            raise DeclarationError(f"{path} is nested more than {DEEPEST} levels deep")
        inside = (*around, value)
        if not isinstance(value, dict):
            return [_as_json(item, f"{path}[{index}]", inside) for index, item in enumerate(value)]
        for key in value:
            if not isinstance(key, str):
                raise DeclarationError(f"{path} has the key {shortened(key)}, and JSON has only strings as keys")
        return {str.__str__(key): _as_json(item, f"{path}[{key!r}]", inside) for key, item in value.items()}
    raise DeclarationError(
        f"{path} is {shortened(value)}, which JSON has no form for; what is to be described may hold None, booleans, "
        f"finite numbers, strings, lists and dicts"
    )


# --- reading ----------------------------------------------------------------------------------------------------


def build(
    make: Callable[..., G], options: Iterable[str], data: object, registry: Classes, exceptions: Classes = ()
) -> G:
    """Return the graph that a description describes.

    Args:
        make: makes the graph, from its id and its options.
        options: the names of the options.
        data: the description.
        registry: the routine classes that it may use, by name or as a list. They are called without arguments.
        exceptions: the exception classes, beside the builtin ones, that its error handlers may use.

    Raises:
        DeclarationError: when anything about the data or the classes does not fit; it says what and where.
    """
    classes = _by_name(registry, Routine, lambda kind: kind.__name__, "registry")
    known = _by_name(exceptions, BaseException, _exception_name, "exceptions")
    where = "description of a flow"
    if not isinstance(data, Mapping):
        hint = "; load JSON text with json.loads() first" if isinstance(data, (str, bytes)) else ""
        raise DeclarationError(f"{where} must be a mapping, not {shortened(data)}{hint}")
    # Before all else: another format may well have other keys.
    if (version := _take(data, "format", int, where)) != FORMAT:
        raise DeclarationError(f"{where}: format {version!r} is unknown; this version of routilux reads {FORMAT}")
    data = _mapping(data, ("format", "flow_id", "options", "error_handler", "routines", "connections"), where)
    where = f"description of flow {_take(data, 'flow_id', str, where)!r}"
    given = _mapping(data["options"], tuple(options), f"{where}: options")
    if "copy_payloads" in given:
        _take(given, "copy_payloads", bool, f"{where}: options")
    with _inside(f"{where}: options"):
        graph = make(data["flow_id"], **given)
    policy = _policy(data["error_handler"], known, f"{where}: error_handler")
    if policy is not None:
        graph.set_error_handler(policy)
    for index, each in enumerate(_take(data, "routines", list, where)):
        _add(graph, each, classes, known, f"{where}: routines[{index}]")
    for index, each in enumerate(_take(data, "connections", list, where)):
        _connect(graph, each, f"{where}: connections[{index}]")
    return graph


def _add(graph: Built, data: object, classes: dict[str, type], known: dict[str, type], where: str) -> None:
    entry = _mapping(data, ("id", "class", "config", "error_handler"), where)
    where = f"{where}, routine {_take(entry, 'id', str, where)!r}"
    kind = find(classes, _take(entry, "class", str, where), "class", f"{where}: the registry")
    config = _as_json(dict(_take(entry, "config", Mapping, where)), f"{where}: config", ())
    policy = _policy(entry["error_handler"], known, f"{where}: error_handler")
    try:
        routine = kind()
    except Exception as error:
        raise DeclarationError(
            f"{where}: {kind.__name__}() failed with {type(error).__name__}: {error}; a class that is described must "
            f"be callable without arguments, so give its __init__ defaults and keep what varies in the configuration"
        ) from error
    with _inside(where):
        graph.add_routine(routine, entry["id"])
    try:
        if config:
            routine.set_config(**config)
        if policy is not None:
            routine.set_error_handler(policy)
    except Exception as error:  # the class may have its own idea of both
        raise DeclarationError(
            f"{where}: {kind.__name__} does not take its configuration {shortened(config)} or error handler: "
            f"{type(error).__name__}: {error}"
        ) from error


def _connect(graph: Built, data: object, where: str) -> None:
    ends = ("source_id", "event", "target_id", "slot")
    entry = _mapping(data, (*ends, "param_mapping"), where)
    mapping = _take(entry, "param_mapping", Mapping, where)
    for key in ends:
        _take(entry, key, str, where)
    with _inside(where):
        graph.connect(entry["source_id"], entry["event"], entry["target_id"], entry["slot"], mapping)


def _policy(data: object, known: dict[str, type], where: str) -> ErrorHandler | None:
    if data is None:
        return None
    given = dict(_mapping(data, POLICY_KEYS, where))
    names = _take(given, "retryable_exceptions", list, where)
    given["retryable_exceptions"] = tuple(_exception(name, known, where) for name in names)
    with _inside(where):
        return ErrorHandler(**given)


def _exception(name: object, known: dict[str, type], where: str) -> Any:
    if not isinstance(name, str):
        raise DeclarationError(f"{where}: retryable_exceptions must name classes, not contain {shortened(name)}")
    builtin = getattr(builtins, name, None)
    if isinstance(builtin, type) and issubclass(builtin, BaseException):
        return builtin
    for each in (name, name.rpartition(".")[2]):
        if each in known:
            return known[each]
    raise DeclarationError(
        f"{where}: exception {name!r} is neither builtin nor among exceptions={known_names(name, known, 'exceptions')}"
    )


# --- checking ---------------------------------------------------------------------------------------------------


def _by_name(classes: Classes, base: type, name_of: Callable[[type], str], what: str) -> dict[str, type]:
    """Return the classes by their names, having checked each."""
    if isinstance(classes, Mapping):
        pairs = list(classes.items())
    elif isinstance(classes, Iterable) and not isinstance(classes, (str, bytes)):
        pairs = [(name_of(kind) if isinstance(kind, type) else "", kind) for kind in classes]
    else:
        raise DeclarationError(f"{what} must map names to classes or be a list of classes, not be {shortened(classes)}")
    found: dict[str, type] = {}
    for name, kind in pairs:
        if not (isinstance(name, str) and isinstance(kind, type) and issubclass(kind, base)):
            raise DeclarationError(f"{what} takes subclasses of {base.__name__} by name, not {name!r}: {kind!r}")
        if found.setdefault(name, kind) is not kind:
            raise DeclarationError(f"{what} has two classes named {name!r}: {found[name]!r} and {kind!r}")
    return found


def _mapping(data: object, keys: tuple[str, ...], where: str) -> Mapping[str, Any]:
    """Return ``data`` when it is a mapping of exactly these keys."""
    if not isinstance(data, Mapping):
        raise DeclarationError(f"{where} must be a mapping, not {shortened(data)}")
    for key in data:
        find(dict.fromkeys(keys, True), key, "key", f"{where}: a description of this format")
    for key in keys:
        if key not in data:
            raise DeclarationError(f"{where}: the key {key!r} is missing")
    return data


def _take(data: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """Return ``data[key]`` when it is there and of this kind."""
    if key not in data:
        raise DeclarationError(f"{where}: the key {key!r} is missing")
    value = data[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DeclarationError(f"{where}: {key!r} must be {KINDS[kind]}, not {shortened(value)}")
    return value


@contextmanager
def _inside(where: str) -> Iterator[None]:
    """Say where in the description an error was found."""
    try:
        yield
    except DeclarationError as error:
        raise DeclarationError(f"{where}: {error}") from error
