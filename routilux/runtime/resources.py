"""The resources of a flow: each is built when it is first needed, by whoever needs it first, and closed at the end.

A plain handler builds on its own thread. For a coroutine handler a thread is made, so that the event loop goes on. What
belongs on an event loop is built on that of the engine whose job is the first to need it, in a task that lasts as long
as the resource does, because some things have to be left by the task that has entered them. Whoever else needs the
resource meanwhile waits on a bell of its own. What comes of a building goes to all who have waited for it, also when it
is an error; the next use after an error tries again.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from contextvars import Context as Variables, ContextVar, copy_context
from functools import partial
from types import BuiltinMethodType, MethodType
from typing import Any, Protocol, cast

from ..errors import ExecutionError
from ..routine.binding import functions_of
from ..routine.declaration import find
from ..routine.resource import Factory
from ..routine.scope import Scope, current
from .bells import Bell
from .opening import belongs_on_loop, opened, opened_on_loop
from .threads import SharedThreads


class TaskBell(Bell, Protocol):
    """A bell that a task waits for."""

    def wait(self) -> Awaitable[object]:
        """Wait until it rings."""


class User(Protocol):
    """A flow, as far as its resources depend on it."""

    flow_id: str
    max_workers: int


class Build:
    """One building of a resource, in the ``engine`` of the job that was the first to need it.

    It is ``done`` when it is ``standing``, with a ``value`` and how to ``close`` it, or has failed with an ``error``.
    ``users`` is how many wait for that, or are at it. ``needs`` are other builds that its factory waits for, in a job
    that it executes. All of this changes under `_lock`.
    """

    __slots__ = ("bells", "close", "done", "engine", "error", "factory", "needs", "standing", "users", "value")

    def __init__(self, factory: Factory, engine: SharedThreads) -> None:
        self.factory = factory
        self.engine = engine
        self.done = False
        self.standing = False
        self.value: Any = None
        self.close: Callable[[], object] | None = None
        self.error: BaseException | None = None
        self.users = 0
        self.bells: list[Bell] = []
        self.needs: list[Build] = []

    def rings(self, bell: Bell) -> bool:
        """Have a bell rung when it is done; return False when it is already."""
        with _lock:
            if not self.done:
                self.bells.append(bell)
            return not self.done

    def waits_for(self, other: Build) -> bool:
        """Whether it cannot be done before another one is. The caller holds the lock."""
        return self is other or any(each.waits_for(other) for each in self.needs)

    def left(self, within: Build | None) -> BaseException | None:
        """Note that one of its users needs it no more, and return its error, which the last of them takes along."""
        with _lock:
            error = self.error
            self.users -= 1
            if not self.users:
                self.error = None  # its traceback has frames that have this object
            if within is not None:
                within.needs.remove(self)
        return error


class Aside:
    """What is in the place of a turn while a factory runs: the factory is no part of the handler that needs it.

    Beyond it is the turn, so that a factory still cannot wait for the job that waits for the factory.
    """

    routine = None
    job = None

    def __init__(self, outer: Scope | None) -> None:
        self.outer = outer


class Resources:
    """The resources of one flow; ``named`` are the factories that were added by name."""

    def __init__(self, flow: User, named: dict[str, Factory]) -> None:
        self._flow = weakref.ref(flow)  # tasks on the event loop have this object, and must not keep the flow alive
        self._where = f"flow {flow.flow_id!r}"
        self._named = named
        self._builds: dict[object, Build] = {}  # those under way, and those that stand
        self._built: list[Build] = []
        self._closed = False
        self._closing = threading.RLock()  # closing may run any code, also such that shuts the flow down

    def named(self, name: str, where: str) -> Factory:
        """Return the factory with this name. Raises DeclarationError, beginning with ``where``, when there is none."""
        factory: Factory = find(self._named, name, "resource", where)
        return factory

    def get(self, factory: Factory, engine: SharedThreads) -> Any:
        """Return what a factory makes; if it is not yet there, it is built in this engine. The thread may have to wait.

        Raises:
            ExecutionError: when the flow is shut down, or the resource is needed to build itself.
            Exception: what the factory raises.
        """
        build = self._builds.get(_key(factory))
        while build is None or not build.standing:
            with self._needed(factory, engine, True) as build:
                if build.rings(bell := threading.Event()):
                    with engine.pool.sleeping():
                        bell.wait()
        return build.value

    async def get_in_task(self, factory: Factory, engine: SharedThreads, make_bell: Callable[[], TaskBell]) -> Any:
        """Do as `get` does; the task may have to wait. When it is cancelled, the building goes on without it."""
        build = self._builds.get(_key(factory))
        while build is None or not build.standing:
            with self._needed(factory, engine, False) as build:
                if build.rings(bell := make_bell()):
                    await bell.wait()
        return build.value

    def close(self) -> None:
        """Close what was built, in reverse order, all of it even when something raises; build nothing any more.

        Raises:
            ExecutionError: when closing something has raised.
        """
        failed: list[tuple[str, BaseException]] = []
        with self._closing:
            with _lock:
                self._closed = True
                self._builds.clear()
            while self._built:
                build = self._built.pop()
                try:
                    if build.close is not None:
                        build.close()
                except BaseException as error:
                    failed.append((self._name_of(build.factory), error))
        for _, each in failed:
            if isinstance(each, (KeyboardInterrupt, SystemExit)):
                raise each
        if failed:
            what = "; ".join(f"{name}: {type(each).__name__}: {each}" for name, each in failed)
            raise ExecutionError(f"{self._where}: a resource could not be closed: {what}") from failed[0][1]

    # --- building -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _needed(self, factory: Factory, engine: SharedThreads, may_wait: bool) -> Iterator[Build]:
        """Give the build of a resource, begun if there was none, for somebody to wait for; then raise its error.

        An error that stops a thread is only raised where the build was begun. Others begin another one.
        """
        within = _building.get()
        key = _key(factory)
        with _lock:
            if self._closed:
                raise self._over()
            if within is not None and within.done:
                within = None
            build = self._builds.get(key)
            mine = build is None
            if build is None:
                build = self._builds[key] = Build(factory, engine)
            if within is not None:
                if build.waits_for(within):
                    raise ExecutionError(
                        f"{self._where}: resource {self._name_of(factory)} is needed to build itself: its factory "
                        f"executes a job, of which a handler needs it"
                    )
                within.needs.append(build)
            build.users += 1
        try:
            if mine:
                self._begin(build, may_wait)
            yield build
        finally:
            error = build.left(within)
        if error is not None and (mine or isinstance(error, Exception)):
            try:
                raise error
            finally:
                del error  # it refers to this frame

    def _begin(self, build: Build, may_wait: bool) -> None:
        """Begin to build, on the calling thread if it ``may_wait`` for the factory."""
        variables = copy_context()
        variables.run(_step_aside, build)
        if may_wait or _only_begins(build.factory):
            self._build(build, variables)
            return
        try:
            threading.Thread(target=self._build, args=(build, variables), name="routilux-resource", daemon=True).start()
        except RuntimeError:
            self._fail(build, self._no_thread(build))

    def _build(self, build: Build, variables: Variables) -> None:
        """Build on this thread, or have it built on the event loop; what is built is closed in the same variables."""
        stack = ExitStack()
        try:
            made = variables.run(build.factory)
            if belongs_on_loop(made):
                self._call_loop(build, made, variables)
                return
            value = variables.run(opened, made, stack)
        except BaseException as error:
            self._fail(build, error)
        else:
            variables.run(_step_out)
            if not self._finish(build, value, partial(variables.run, stack.close)):
                variables.run(stack.close)

    def _call_loop(self, build: Build, made: Any, variables: Variables) -> None:
        # asyncio is dear to import, and most programs have no coroutines
        from .event_loop import EventLoop

        flow = self._flow()
        assert flow is not None
        build.engine.attach(flow, flow.max_workers)
        try:
            event_loop = build.engine.event_loop(EventLoop)
        except RuntimeError as error:
            raise self._no_thread(build) from error
        event_loop.keep(self._live(build, made, event_loop.make_bell), variables)

    async def _live(self, build: Build, made: Any, make_bell: Callable[[], TaskBell]) -> None:
        """Build a resource in this task, wait until it is to be closed, and close it."""
        closing, closed = make_bell(), threading.Event()
        failures: list[BaseException] = []

        def close() -> None:
            closing.set()
            with build.engine.pool.sleeping():
                closed.wait()
            for error in failures:
                raise error

        try:
            async with AsyncExitStack() as stack:
                value = await opened_on_loop(made, stack)
                _step_out()
                if self._finish(build, value, close):
                    await closing.wait()
        except BaseException as error:
            if build.standing:
                failures.append(error)
            elif not build.done:
                self._fail(build, error)
            else:  # the flow was shut down before, and nobody waits for the end
                raise
        finally:
            closed.set()

    def _finish(self, build: Build, value: Any, close: Callable[[], object]) -> bool:
        """Give what was built to those who wait; return False when it is too late, so that it has to be closed."""
        with _lock:
            if not self._closed:
                build.value, build.close = value, close
                build.standing = build.done = True
                self._built.append(build)
        if not build.done:
            self._fail(build, self._over())
            return False
        for bell in build.bells:
            bell.set()
        return True

    def _fail(self, build: Build, error: BaseException) -> None:
        """Give an error to those who wait, and let the next one try again."""
        with _lock:
            if self._builds.get(_key(build.factory)) is build:
                del self._builds[_key(build.factory)]
            build.error, build.done = error, True
        for bell in build.bells:
            bell.set()

    # --- errors -------------------------------------------------------------------------------------------------------

    def _name_of(self, factory: Factory) -> str:
        for name, each in self._named.items():
            if _key(each) == _key(factory):
                return repr(name)
        return str(getattr(factory, "__qualname__", repr(factory)))

    def _over(self) -> ExecutionError:
        return ExecutionError(f"{self._where} was shut down, and its resources with it; make a new Flow")

    def _no_thread(self, build: Build) -> ExecutionError:
        name = self._name_of(build.factory)
        return ExecutionError(f"{self._where}: resource {name} cannot be built: the system gives no thread")


_lock = threading.Lock()  # one for all flows, as the jobs that factories execute may be of other flows
_building: ContextVar[Build | None] = ContextVar("routilux_building", default=None)


def _key(factory: Factory) -> object:
    """Return what tells factories apart: each access of a method makes another object, equal to the one before."""
    return factory if isinstance(factory, (MethodType, BuiltinMethodType)) else id(factory)


def _only_begins(factory: Factory) -> bool:
    """Whether calling a factory runs nothing of it yet, but what it returns does on the event loop."""
    return any(
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        for function in functions_of(factory)
    )


def _step_aside(build: Build) -> None:
    """Make the current context variables those of a factory that runs."""
    current.set(cast(Scope, Aside(current.get())))
    _building.set(build)


def _step_out() -> None:
    """Make the current context variables those of a resource that stands, which keeps no job alive."""
    current.set(None)
    _building.set(None)
