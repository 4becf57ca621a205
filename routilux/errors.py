"""The one tree of errors, and the wording that every one of them shares."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_NAMES_SHOWN = 12


class RoutiluxError(Exception):
    """The root of every error that this library raises on purpose."""


class DeclarationError(RoutiluxError):
    """A routine, flow, policy or option was declared in a way that cannot work."""


class ExecutionError(RoutiluxError):
    """Something went wrong while a job was started, run, or looked at."""


class ContextError(ExecutionError):
    """An operation of a handler was used outside its turn: elsewhere, too late, or from another thread."""


class PayloadError(ExecutionError):
    """What was emitted or delivered does not fit the event's parameters or the handler's signature."""


class GatherError(ExecutionError):
    """A slot that gathers deliveries did not get all that it waits for."""


class ConflictError(ExecutionError):
    """A plain write would have overwritten a value that changed after this activation read it."""


class StateError(ExecutionError):
    """A value, field or path does not fit the state of a job, or the state is used in a way that cannot work."""


class PathError(StateError):
    """A dotted path into the state leads nowhere."""


class StatusError(ExecutionError):
    """The job's status does not allow the change that was asked for."""


class SaveError(ExecutionError):
    """A job holds something that cannot be saved."""


class LoadError(ExecutionError):
    """What is to be loaded is no saved job, is damaged, or does not fit the flow."""


class StepError(ExecutionError):
    """A step, or a wait, is used in a way that cannot work."""


class StepExecutionError(ExecutionError):
    """A step has failed in all of its attempts.

    Attributes:
        step: the name of the step.
        attempts: how often its function was called.
        error: what is kept of the last exception, which is also the ``__cause__`` unless the step was replayed.
    """

    def __init__(self, message: str, step: str, attempts: int, error: object = None) -> None:
        super().__init__(message)
        self.step = step
        self.attempts = attempts
        self.error = error

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.step, self.attempts, self.error)


class StepTimeoutError(ExecutionError, TimeoutError):
    """A step's function ran longer than its ``timeout``, or no event came in time."""


class ReplayError(ExecutionError):
    """A handler that ran again did not do what it had done before: it is not deterministic, or was changed."""


class RecoveryError(ExecutionError):
    """A job cannot go on, because its flow is not what it was."""


class PoisonError(ExecutionError):
    """A job took several processes with it, and is not run again by itself."""


class Suspend(BaseException):
    """Leaves a handler that waits; no error, and to be let pass. The handler runs again from its start later."""


class StoreError(RoutiluxError):
    """A store cannot do what it is asked for: it is closed, full, locked, damaged, or has no such job."""


class StaleWriterError(StoreError):
    """A process wrote to the journal of a job that is another's by now."""


class HandlerTimeoutError(ExecutionError, TimeoutError):
    """A handler ran longer than the ``timeout`` of its slot."""


class JobTimeoutError(ExecutionError, TimeoutError):
    """A job ran longer than the ``timeout`` given to ``execute``."""


def known_names(name: object, known: Iterable[str], kind: str) -> str:
    """Return the end of an error message: the nearest of the known names, and what there is.

    ``name`` is what was asked for, ``known`` the names that exist, ``kind`` their plural noun.
    """
    names = sorted(known)
    if not names:
        return f"; there are no {kind}"
    near = get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    shown = ", ".join(names[:MOST_NAMES_SHOWN])
    more = f" and {len(names) - MOST_NAMES_SHOWN} more" if len(names) > MOST_NAMES_SHOWN else ""
    return f"{hint} {kind}: {shown}{more}"
