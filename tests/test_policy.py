"""E2: the arithmetic of retries, and what an error policy refuses to be."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from routilux import DeclarationError, ErrorHandler, ErrorStrategy

# --- decide ---------------------------------------------------------------------------------------------------------

ERRORS = (ValueError("v"), KeyError("k"), UnicodeDecodeError("utf-8", b"", 0, 1, "r"), OSError(), Exception())


@given(st.sampled_from(["stop", "continue", "skip"]), st.sampled_from(ERRORS), st.integers(1, 10**6))
def test_e2_all_but_retry_decide_the_same_for_every_error_and_attempt(strategy, error, attempt):
    handler = ErrorHandler(strategy, retryable_exceptions=KeyError)
    assert handler.decide(error, attempt) is ErrorStrategy(strategy)


@given(st.integers(0, 50), st.integers(1, 60), st.sampled_from(ERRORS))
def test_e2_retry_runs_again_as_often_as_max_retries_and_then_stops(retries, attempt, error):
    decided = ErrorHandler("retry", max_retries=retries).decide(error, attempt)
    assert decided is (ErrorStrategy.RETRY if attempt <= retries else ErrorStrategy.STOP)


@pytest.mark.parametrize("classes", [ValueError, (ValueError,), (KeyError, ValueError)])
def test_e2_retry_stops_at_once_for_other_exceptions_than_the_retryable(classes):
    handler = ErrorHandler("retry", retryable_exceptions=classes)
    assert handler.decide(ValueError(), 1) is ErrorStrategy.RETRY
    assert handler.decide(UnicodeDecodeError("utf-8", b"", 0, 1, "r"), 1) is ErrorStrategy.RETRY, "a subclass"
    assert handler.decide(OSError(), 1) is ErrorStrategy.STOP


def test_e2_by_default_every_exception_is_retryable_and_a_request_to_stop_is_not():
    handler = ErrorHandler("retry")
    assert handler.decide(Exception(), 1) is ErrorStrategy.RETRY
    assert handler.decide(KeyboardInterrupt(), 1) is ErrorStrategy.STOP


def test_e2_emissions_are_held_under_retry_and_skip_only():
    held = {strategy.value: ErrorHandler(strategy).holds_emissions for strategy in ErrorStrategy}
    assert held == {"stop": False, "continue": False, "retry": True, "skip": True}


# --- delay ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "delays"),
    [
        ({}, [1.0, 2.0, 4.0, 8.0]),
        ({"retry_delay": 0.5, "retry_backoff": 3}, [0.5, 1.5, 4.5, 13.5]),
        ({"retry_delay": 2, "retry_backoff": 1}, [2.0, 2.0, 2.0, 2.0]),
        ({"retry_delay": 8, "retry_backoff": 0.5}, [8.0, 4.0, 2.0, 1.0]),
        ({"retry_delay": 3, "max_delay": 10}, [3.0, 6.0, 10.0, 10.0]),
        ({"retry_delay": 30, "max_delay": 10}, [10.0] * 4),
        ({"retry_delay": 5, "max_delay": 0}, [0.0] * 4),
        ({"retry_delay": 0}, [0.0] * 4),
    ],
    ids=str,
)
def test_e2_the_delay_grows_by_the_backoff_up_to_the_cap(options, delays):
    handler = ErrorHandler("retry", **options)
    assert [handler.delay(attempt, "key") for attempt in (1, 2, 3, 4)] == delays


DELAYS = st.one_of(st.just(0.0), st.floats(1e-3, 1e6))
BACKOFFS = st.floats(1e-3, 1e6)
CAPS = st.one_of(st.just(0.0), st.floats(1e-3, 1e9))


@given(DELAYS, BACKOFFS, CAPS, st.integers(1, 3000))
def test_e2_the_delay_is_what_exact_arithmetic_says(delay, backoff, cap, attempt):
    handler = ErrorHandler("retry", retry_delay=delay, retry_backoff=backoff, max_delay=cap)
    got = handler.delay(attempt, "key")
    if delay == 0:
        assert got == 0
        return
    digits = math.log10(delay) + (attempt - 1) * math.log10(backoff)
    if digits > 10:
        assert got == cap
    elif digits < -300:
        assert got == pytest.approx(0, abs=1e-290)
    else:
        assert got == pytest.approx(
            float(min(Fraction(delay) * Fraction(backoff) ** (attempt - 1), Fraction(cap))), rel=1e-6
        )


@pytest.mark.parametrize("attempt", [1024, 10**6])
def test_e2_an_exponent_beyond_all_floats_gives_the_cap(attempt):
    assert ErrorHandler("retry", retry_backoff=1e6, max_delay=7).delay(attempt, "key") == 7


@pytest.mark.parametrize("attempt", [1, 1024, 1026, 10**6])
def test_e2_no_delay_stays_no_delay_however_many_attempts(attempt):
    assert ErrorHandler("retry", retry_delay=0, max_retries=10**6).delay(attempt, "key") == 0


@given(DELAYS, st.floats(0.5, 4), CAPS, st.floats(0, 1), st.integers(1, 200), st.text(max_size=20))
def test_e2_jitter_takes_off_at_most_its_share_and_is_the_same_for_the_same_key(
    delay, backoff, cap, jitter, attempt, key
):
    options = {"retry_delay": delay, "retry_backoff": backoff, "max_delay": cap}
    full = ErrorHandler("retry", **options).delay(attempt, key)
    got = ErrorHandler("retry", jitter=jitter, **options).delay(attempt, key)
    assert full * (1 - jitter) * (1 - 1e-9) <= got <= full
    assert got == ErrorHandler("retry", jitter=jitter, **options).delay(attempt, key)


def test_e2_jitter_differs_between_keys_and_between_attempts():
    handler = ErrorHandler("retry", jitter=1, retry_backoff=1)
    assert len({handler.delay(1, f"job:{number}") for number in range(100)}) == 100
    assert len({handler.delay(attempt, "job:1") for attempt in range(1, 101)}) == 100


def test_e2_jitter_spreads_over_its_whole_share():
    handler = ErrorHandler("retry", jitter=0.5)
    delays = [handler.delay(1, f"job:{number}") for number in range(1000)]
    assert min(delays) < 0.52
    assert max(delays) > 0.98


def test_e2_jitter_is_the_same_in_every_process():
    """Python's own hash of a string would not be."""
    assert ErrorHandler("retry", jitter=1).delay(1, "job:1") == pytest.approx(0.5988447465933859)


# --- what a policy may be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", list(ErrorStrategy))
def test_e2_a_strategy_is_given_by_itself_or_by_its_name(strategy):
    assert ErrorHandler(strategy) == ErrorHandler(strategy.value)
    assert ErrorHandler(strategy.value).strategy is strategy
    assert str(strategy) == strategy.value == strategy


def test_e2_policies_are_values():
    assert ErrorHandler("retry", retryable_exceptions=KeyError) == ErrorHandler(
        "retry", retryable_exceptions=(KeyError,)
    )
    assert len({ErrorHandler(), ErrorHandler("stop"), ErrorHandler("skip")}) == 2
    with pytest.raises(AttributeError):
        ErrorHandler().max_retries = 5


def test_e2_an_unknown_strategy_names_the_nearest_and_what_there_is():
    with pytest.raises(
        DeclarationError,
        match=r"^ErrorHandler: unknown strategy 'retyr'; did you mean 'retry'\? "
        r"strategies: continue, retry, skip, stop$",
    ):
        ErrorHandler("retyr")


@pytest.mark.parametrize("strategy", [None, "", 1, True, ["stop"], ErrorHandler, b"stop"], ids=repr)
def test_e2_what_is_no_strategy_is_refused(strategy):
    with pytest.raises(DeclarationError, match=r"ErrorHandler: unknown strategy"):
        ErrorHandler(strategy)


NAN, INF = float("nan"), float("inf")
HUGE = {"1e400": 10**400, "1e5000": 10**5000, "-1e400": -(10**400), "-1e5000": -(10**5000)}
NO_NUMBERS = {"None": None, "text": "1", "list": [1], "dict": {}, "complex": 1j, "bytes": b"1", "class": int}
BAD = {"nan": NAN, "inf": INF, "-inf": -INF, "-1": -1, "True": True, "False": False, **HUGE, **NO_NUMBERS}
MORE = {
    "max_retries": {"0.5": 0.5, "2.0": 2.0, "too many": 10**9},
    "retry_delay": {"a century": 1e10, "-tiny": -1e-300},
    "retry_backoff": {"0": 0, "-0.0": -0.0, "too steep": 1e7},
    "max_delay": {"a century": 1e10},
    "jitter": {"1.01": 1.01, "2": 2},
}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        pytest.param(option, value, id=f"{option}={name}")
        for option, more in MORE.items()
        for name, value in {**BAD, **more}.items()
    ],
)
def test_e2_an_absurd_number_is_one_declaration_error_that_names_the_option(option, value):
    with pytest.raises(DeclarationError, match=rf"^ErrorHandler: {option} must be a "):
        ErrorHandler("retry", **{option: value})


@pytest.mark.parametrize(
    "classes",
    [None, "ValueError", int, ValueError(), (ValueError, "KeyError"), [ValueError], (ValueError, int)],
    ids=repr,
)
def test_e2_retryable_exceptions_are_exception_classes(classes):
    with pytest.raises(DeclarationError, match=r"^ErrorHandler: retryable_exceptions takes exception classes, not"):
        ErrorHandler("retry", retryable_exceptions=classes)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_retries", 0),
        ("max_retries", 10**6),
        ("retry_delay", 0),
        ("retry_backoff", 1e-9),
        ("max_delay", 0),
        ("jitter", 0),
        ("jitter", 1),
    ],
)
def test_e2_the_ends_of_each_range_are_allowed(option, value):
    assert getattr(ErrorHandler("retry", **{option: value}), option) == value
