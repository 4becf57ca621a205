"""Routines and what they declare. Declarations hold no data of any job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from ..core.copying import copy_value
from ..core.policy import ErrorHandler, ErrorStrategy
from ..errors import ContextError, DeclarationError, known_names
from .binding import Binding
from .class_level import Declared, declared_by
from .event import Event
from .scope import ExecutionContext, Scope, current
from .slot import MergeFunction, Slot, SlotOptions

_scope = current.get  # once, since asking for a method makes one


class Holder(Protocol):
    """A graph that a routine is part of."""

    def changing(self, what: str) -> None:
        """Raise DeclarationError when the declaration must not change now."""

    def __hash__(self) -> int: ...


class Declaration:
    """All that one routine has declared."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}
        self.events: dict[str, Event] = {}
        self.bound: dict[Declared, Slot | Event] = {}  # by what stands for it on the class
        self.config: dict[str, Any] = {}
        self.error_handler: ErrorHandler | None = None
        self.holders: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # with its id in each


def declaration_of(routine: Routine) -> Declaration:
    """Return what a routine has declared."""
    return routine._declaration


class Routine:
    """A step of a flow: inputs with handlers, and outputs.

    Subclass it and declare slots and events: in the body of the class, with `slot` and `Event`, or in ``__init__``,
    with `define_slot` and `define_event`, which have the same effect; a routine may use both. One routine may be part
    of several flows, and any number of jobs run it at the same time, so a handler keeps what belongs to a job in the
    `JobState`, never on ``self``.
    """

    _declaration: Declaration
    _declared: tuple[Declared, ...] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._declared = declared_by(cls, RESERVED)

    def __new__(cls, *args: Any, **kwargs: Any) -> Routine:
        """Make the instance; here, so that a subclass works whether or not its ``__init__`` calls ours."""
        self = super().__new__(cls)
        self._declaration = declaration = Declaration()
        for each in cls._declared:
            if isinstance(each, Event):
                declaration.bound[each] = declaration.events[each.name] = each._bound(self)
            else:
                declaration.bound[each] = declaration.slots[each.name] = each._bound(self)
        return self

    def define_slot(
        self,
        name: str,
        handler: Callable[..., Any] | None = None,
        merge_strategy: str | MergeFunction = "override",
        concurrency: int = 1,
        timeout: float | None = None,
        *,
        gather: int | str | None = None,
        key: str | None = None,
        rest: str | None = None,
        external: bool = False,
        deadline: float | None = None,
    ) -> Slot:
        """Declare an input and return it.

        Args:
            name: the slot's name, not yet used for a slot of this routine.
            handler: called once per delivery, with the payload bound to its parameters by name. A handler whose
                only parameter is not in the payload receives the whole payload. Annotated parameters are validated
                and coerced by pydantic; one annotated `Context` gets the context, one with a `Resource` in its
                annotation a resource of the flow, and these take no part in the rest. None: what arrives is recorded
                and nothing else happens.
            merge_strategy: what the handler sees of earlier deliveries to this slot in the same job: ``"override"``
                nothing, ``"append"`` for each key the list of all values so far, or a function
                ``(old, new) -> merged`` of two dicts (``old`` is empty at first).
            concurrency: how many deliveries may be handled at the same time. Above 1, they have no order.
            timeout: seconds after which an attempt of the handler counts as failed.
            gather: how many deliveries are handled together: a number; ``"sources"`` for one of each connection to the
                slot; or ``"all"``, when nothing in the job can lead to another one. The handler gets, for each
                parameter, the list of the values that came, in order of arrival (what a delivery lacks is not in the
                list); of sources, the one value of that which has the parameter.
            key: a parameter by whose value deliveries are gathered, each value for itself. The handler gets the value.
            rest: what becomes of deliveries when nothing can come any more that completes them: ``"deliver"`` hands
                over what there is (the default for a number), ``"drop"`` forgets it, ``"error"`` fails the activation
                with `GatherError`, which says what came and what is missing (the default for sources).
            external: the job waits for what `Flow.send` delivers to the slot, holding no thread, until
                `Flow.close_input`.
            deadline: seconds after the start of the job at which an external slot is closed by itself.

        Raises:
            DeclarationError: when the name is taken, the handler cannot be called with a payload, an option is out of
                range, or a job of a flow with this routine is running.
        """
        slots = self._declaration.slots
        where = f"{type(self).__name__}, slot {name!r}"
        _check_name(name, "slot", self)
        if name in slots:
            raise DeclarationError(f"{where}: this slot is defined already")
        options = SlotOptions(
            merge_strategy=merge_strategy,
            concurrency=concurrency,
            timeout=timeout,
            gather=gather,
            key=key,
            rest=rest,
            external=external,
            deadline=deadline,
        ).checked(where)
        if isinstance(handler, Slot):  # one handler for two slots
            handler = handler.handler
        binding = Binding(handler, where)
        self._changing(f"define slot {name!r}")
        slots[name] = slot = Slot(name, handler, binding, self, **vars(options))
        return slot

    def define_event(self, name: str, output_params: Iterable[str] | Mapping[str, Any] | None = None) -> Event:
        """Declare an output and return it.

        Args:
            name: the event's name, not yet used for an event of this routine.
            output_params: names of the parameters that may be emitted with it; None allows any, ``[]`` none. A mapping
                gives each name its type, by which pydantic validates and coerces what is emitted; ``typing.Any`` is
                anything.

        Raises:
            DeclarationError: when the name is taken, ``output_params`` is not a list of distinct names, a type cannot
                be checked, or a job of a flow with this routine is running.
        """
        events = self._declaration.events
        where = f"{type(self).__name__}, event {name!r}"
        _check_name(name, "event", self)
        if name in events:
            raise DeclarationError(f"{where}: this event is defined already")
        event = Event._of(name, output_params, where, self)
        self._changing(f"define event {name!r}")
        events[name] = event
        return event

    def emit(self, event_name: str, /, **params: Any) -> None:
        """Emit an event: record it, and enqueue one delivery for each connection.

        The handlers of those deliveries run later, possibly on other threads. Plain containers and pydantic models
        among the parameters are copied; other objects are shared with the receivers.

        Raises:
            ContextError: when this routine is not running a handler in this thread.
            PayloadError: when the event or a parameter is not declared, or a parameter not of its type.
        """
        scope = _scope()
        if scope is None or scope.routine is not self:
            raise self._outside(f"emit({event_name!r})", scope)
        scope.emit(event_name, params)

    def emit_deferred_event(self, event_name: str, /, **params: Any) -> None:
        """Emit an event when the job is resumed after a pause: until then its deliveries are not made.

        A job in which nothing but deferred events is left pauses by itself, so that none is lost.

        Raises:
            ContextError: when this routine is not running a handler in this thread.
            PayloadError: when the event or a parameter is not declared, or a parameter not of its type.
        """
        scope = current.get()
        if scope is None or scope.routine is not self:
            raise self._outside(f"emit_deferred_event({event_name!r})", scope)
        scope.emit_deferred(event_name, params)

    def send_output(self, output_type: str, /, **data: Any) -> None:
        """Send something out of the flow: it is appended to ``job_state.outputs``.

        Raises:
            ContextError: when this routine is not running a handler in this thread.
        """
        scope = current.get()
        if scope is None or scope.routine is not self:
            raise self._outside(f"send_output({output_type!r})", scope)
        scope.send_output(output_type, data)

    def get_execution_context(self) -> ExecutionContext | None:
        """Return the context of the handler that this routine is running in this thread; None outside of one."""
        scope = current.get()
        return scope.context() if scope is not None and scope.routine is self else None

    def set_config(self, /, **values: Any) -> None:
        """Set configuration values, which every job of every flow with this routine sees.

        Raises:
            DeclarationError: when a job of such a flow is running.
        """
        self._changing("set its configuration")
        self._declaration.config.update(copy_value(values))

    def get_config(self, key: str, default: Any = None) -> Any:
        """Return a copy of a configuration value, or ``default``."""
        if not isinstance(key, str):
            raise DeclarationError(f"{type(self).__name__}: a configuration key must be a string, not {key!r}")
        return copy_value(self._declaration.config.get(key, default))

    def set_error_handler(self, error_handler: ErrorHandler) -> None:
        """Set what happens when a handler of this routine raises; it goes before the flow's own handler.

        Raises:
            DeclarationError: for anything but an `ErrorHandler`, or when a job of a flow with this routine is running.
        """
        if not isinstance(error_handler, ErrorHandler):
            raise DeclarationError(f"{type(self).__name__}: expected an ErrorHandler, not {error_handler!r}")
        self._changing("set its error handler")
        self._declaration.error_handler = error_handler

    def set_as_critical(self, max_retries: int = 3, retry_delay: float = 1.0, retry_backoff: float = 2.0) -> None:
        """Retry failed handlers, and fail the job when the retries are used up. See `ErrorHandler` for the numbers."""
        self.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries, retry_delay, retry_backoff))

    def set_as_optional(self, strategy: ErrorStrategy = ErrorStrategy.CONTINUE) -> None:
        """Let the job go on when a handler fails: ``strategy`` is CONTINUE or SKIP.

        Raises:
            DeclarationError: for another strategy, or when a job of a flow with this routine is running.
        """
        handler = ErrorHandler(strategy)
        if handler.strategy not in (ErrorStrategy.CONTINUE, ErrorStrategy.SKIP):
            raise DeclarationError(
                f"{type(self).__name__}: an optional routine has the strategy 'continue' or 'skip', not {strategy!r}"
            )
        self.set_error_handler(handler)

    def _changing(self, what: str) -> None:
        for holder in self._declaration.holders:
            holder.changing(f"{type(self).__name__}: {what}")

    def _outside(self, what: str, scope: Scope | None) -> ContextError:
        me = type(self).__name__
        if scope is None or scope.routine is None:
            reason = "it is only possible inside a handler, in the handler's own thread, while the handler runs"
        else:
            reason = f"the handler that runs here belongs to {type(scope.routine).__name__}, not to this routine"
        return ContextError(f"{me}.{what}: {reason}")


RESERVED = frozenset({*dir(Routine), *Routine.__annotations__})


def _check_name(name: object, kind: str, routine: Routine) -> None:
    if not isinstance(name, str) or not name:
        article = "an" if kind == "event" else "a"
        raise DeclarationError(
            f"{type(routine).__name__}: {article} {kind} name must be a non-empty string, not {name!r}"
        )


def find(what: Mapping[str, Any], name: object, kind: str, where: str) -> Any:
    """Return ``what[name]``; raise DeclarationError that names what there is and the nearest match."""
    try:
        return what[name]  # type: ignore[index]
    except (KeyError, TypeError):
        raise DeclarationError(f"{where} has no {kind} {name!r}{known_names(name, what, kind + 's')}") from None
