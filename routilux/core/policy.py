"""What happens when a handler raises: strategies and the arithmetic of retries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from zlib import crc32

from ..errors import DeclarationError, known_names
from .numbers import LONGEST_SECONDS, real, whole

MOST_RETRIES = 1_000_000


class ErrorStrategy(str, Enum):
    """What the job does about an activation whose handler raised.

    ``STOP`` fails the job, ``CONTINUE`` records the error and goes on, ``RETRY`` runs the handler again later and
    fails the job when its retries are used up, ``SKIP`` drops what the activation emitted and goes on.
    """

    STOP = "stop"
    CONTINUE = "continue"
    RETRY = "retry"
    SKIP = "skip"

    __str__ = str.__str__


@dataclass(frozen=True)
class ErrorHandler:
    """The error policy of a routine or a flow.

    Args:
        strategy: an `ErrorStrategy` or its name.
        max_retries: how many times a failed activation runs again under RETRY (so at most one more attempt in all).
        retry_delay: seconds before the first retry.
        retry_backoff: factor by which each further delay grows: ``retry_delay * retry_backoff ** (n - 1)``
            seconds before the n-th retry.
        max_delay: the longest delay, in seconds.
        jitter: the largest share of a delay that is taken off it, from 0 to 1. How much is decided by the job's id,
            the delivery and the attempt, so a job that runs again waits as long as before.
        retryable_exceptions: an exception class, or a tuple of them; others fail the job at once.

    Raises:
        DeclarationError: for an unknown strategy, a number out of range, or something that is no exception class.
    """

    strategy: ErrorStrategy = ErrorStrategy.STOP
    max_retries: int = 3
    retry_delay: float = 1.0
    retry_backoff: float = 2.0
    max_delay: float = 60.0
    jitter: float = 0.0
    retryable_exceptions: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        names = [strategy.value for strategy in ErrorStrategy]
        if not isinstance(self.strategy, str) or self.strategy not in names:
            raise DeclarationError(
                f"ErrorHandler: unknown strategy {self.strategy!r}{known_names(self.strategy, names, 'strategies')}"
            )
        put("strategy", ErrorStrategy(self.strategy))
        whole(self.max_retries, "ErrorHandler: max_retries", 0, MOST_RETRIES)
        put("retry_delay", real(self.retry_delay, "ErrorHandler: retry_delay", 0.0))
        put("retry_backoff", real(self.retry_backoff, "ErrorHandler: retry_backoff", 0.0, 1e6, above=True))
        put("max_delay", real(self.max_delay, "ErrorHandler: max_delay", 0.0))
        put("jitter", real(self.jitter, "ErrorHandler: jitter", 0.0, 1.0))
        classes = self.retryable_exceptions
        classes = classes if isinstance(classes, tuple) else (classes,)
        for each in classes:
            if not (isinstance(each, type) and issubclass(each, BaseException)):
                raise DeclarationError(f"ErrorHandler: retryable_exceptions takes exception classes, not {each!r}")
        put("retryable_exceptions", classes)

    @property
    def holds_emissions(self) -> bool:
        """Whether emissions leave only when the attempt that made them has succeeded."""
        return self.strategy in (ErrorStrategy.RETRY, ErrorStrategy.SKIP)

    def decide(self, error: BaseException, attempt: int) -> ErrorStrategy:
        """Return what to do now that attempt number ``attempt`` (from 1) raised ``error``."""
        if self.strategy is not ErrorStrategy.RETRY:
            return self.strategy
        again = attempt <= self.max_retries and isinstance(error, self.retryable_exceptions)
        return ErrorStrategy.RETRY if again else ErrorStrategy.STOP

    def delay(self, attempt: int, key: str) -> float:
        """Return the seconds to wait after failed attempt ``attempt`` (from 1); ``key`` seeds the jitter."""
        try:
            full = min(self.retry_delay * self.retry_backoff ** (attempt - 1), self.max_delay)
        except OverflowError:
            full = self.max_delay if self.retry_delay else 0.0
        share = crc32(f"{key}:{attempt}".encode()) / 2**32 if self.jitter else 0.0
        return min(full * (1.0 - self.jitter * share), LONGEST_SECONDS)


STOP = ErrorHandler()
