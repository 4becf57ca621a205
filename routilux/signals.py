"""Signals that tell other code what happens in jobs: one for each kind of thing, as blinker defines them.

A receiver is connected once, ``signals.job_failed.connect(receiver)``, or for one flow only,
``signals.job_failed.connect(receiver, sender=flow)``. It is called as ``receiver(flow, job_state=..., ...)`` with the
keyword arguments that the signal names, after what it hears of was committed, in the order of the commits, by a
thread that has made one (for coroutine handlers and for timers, by a worker thread), so it should be quick. It holds no
lock and is no part of any handler's turn. What it raises is logged and harms nobody. ``execute`` returns after all
receivers have heard of the job's end. Blinker keeps weak references: connect functions and methods that live on, or
pass ``weak=False``.
"""

from __future__ import annotations

import inspect
from typing import Any

import blinker

from .core.listening import listening
from .errors import DeclarationError

__all__ = [
    "activation_ended",
    "activation_failed",
    "activation_retried",
    "activation_started",
    "event_emitted",
    "input_closed",
    "input_received",
    "job_cancelled",
    "job_completed",
    "job_failed",
    "job_paused",
    "job_resumed",
    "job_started",
    "job_waiting",
    "log_appended",
    "output_sent",
    "state_changed",
]


class JobSignal(blinker.Signal):
    """A signal about jobs. Jobs are told that somebody listens when the first receiver is connected."""

    def connect(self, receiver: Any, sender: Any = blinker.ANY, weak: bool = True) -> Any:
        """Connect a receiver, for all flows or for one, and return it; see ``blinker.Signal.connect``.

        Raises DeclarationError for a coroutine function, which nobody would await.
        """
        if inspect.iscoroutinefunction(receiver):
            raise DeclarationError(f"{receiver!r} is a coroutine function; a receiver of signals is a plain function")
        connected = super().connect(receiver, sender, weak)
        listening.everything = True
        return connected

    def disconnect(self, receiver: Any, sender: Any = blinker.ANY) -> None:
        """Disconnect a receiver; see ``blinker.Signal.disconnect``."""
        super().disconnect(receiver, sender)
        if not any(signal.receivers for signal in _ALL):
            listening.everything = False


job_started = JobSignal("A job began to run.")
job_waiting = JobSignal("A job waits, as all that is left of it waits for a time, an event, an input or another job.")
job_paused = JobSignal("A job was paused. Passes ``reason``.")
job_resumed = JobSignal("A job that waited, was paused or had failed goes on. Passes ``was``, its status before.")
job_completed = JobSignal("A job has completed. Passes ``result``.")
job_failed = JobSignal("A job has failed. Passes ``error``, an `ErrorRecord`.")
job_cancelled = JobSignal("A job was cancelled. Passes ``reason``.")
activation_started = JobSignal("An attempt of a handler began. Passes ``routine_id``, ``slot``, ``attempt``.")
activation_retried = JobSignal(
    "An attempt failed and will be repeated. Passes ``routine_id``, ``slot``, ``attempt``, ``error``, ``due`` (when)."
)
activation_failed = JobSignal(
    "An activation failed, or was skipped. Passes ``routine_id``, ``slot``, ``attempt``, ``error``."
)
activation_ended = JobSignal("An activation is over. Passes ``record``, its `ExecutionRecord`.")
event_emitted = JobSignal(
    "An event was emitted. Passes ``routine_id``, ``event_name``, ``data``, ``deliveries`` (how many), ``deferred`` "
    "(whether they are made when the job is resumed)."
)
state_changed = JobSignal(
    "Keys of the state were written. Passes ``routine_id`` (None for the shared data), ``values``, ``removed``."
)
log_appended = JobSignal("An entry was appended to the shared log. Passes ``entry``.")
input_received = JobSignal("Something was delivered from outside. Passes ``routine_id``, ``slot``, ``data``.")
input_closed = JobSignal("An external slot was closed. Passes ``routine_id``, ``slot``.")
output_sent = JobSignal("A handler sent something out of the flow. Passes ``output``, an `Output`.")

_ALL = [value for value in list(globals().values()) if isinstance(value, JobSignal)]
