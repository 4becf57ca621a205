"""The parts of a turn that has not ended as JSON: what it read, what it waits for, its points, and errors.

They are the same in facts and in records. What is empty is left out. Times are nanoseconds since 1970, in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ..core.points import Point, Read, Wait
from ..core.records import ErrorRecord
from .reading import Reader
from .shapes import NONE, Shapes

POINT_KINDS = ("step", "wait", "invoke", "edit", "flush")
POINT_KEYS = frozenset({"kind", "name", "reads", "form", "error", "failures", "wait", "arrived", "done", "own"})


class Texts(Protocol):
    """What writes strings; see `values.Writer`."""

    def text(self, value: str | None) -> Any:
        """Return the JSON form of a string."""


# --- writing ------------------------------------------------------------------------------------------------------


def error_row(error: ErrorRecord, to: Texts) -> list[Any]:
    """Return the JSON form of an error."""
    row = [to.text(error.type), to.text(error.message), to.text(error.traceback)]
    return [*row, to.text(error.routine_id), to.text(error.slot), error.attempt]


def read_rows(reads: Iterable[Read], to: Texts) -> list[Any]:
    """Return the JSON form of what a turn read."""
    return [[to.text(area), to.text(key), *rest] for area, key, *rest in reads]


def wait_row(wait: Wait, to: Texts, epoch: int) -> list[Any]:
    """Return the JSON form of what a turn waits for; ``epoch`` is what is added to times."""
    due = None if wait.due is None else wait.due + epoch
    return [due, to.text(wait.topic), [to.text(job_id) for job_id in wait.jobs]]


def point_form(point: Point, to: Texts, epoch: int) -> dict[str, Any]:
    """Return the JSON form of a point."""
    form: dict[str, Any] = {"kind": point.kind}
    if point.name is not None:
        form["name"] = to.text(point.name)
    if point.reads:
        form["reads"] = read_rows(point.reads, to)
    if point.form is not None:
        form["form"] = list(point.form)
    if point.error is not None:
        form["error"] = error_row(point.error, to)
    if point.failures:
        form["failures"] = point.failures
    if point.wait is not None:
        form["wait"] = wait_row(point.wait, to, epoch)
    if point.arrived:
        form["arrived"] = [[to.text(job_id), answer] for job_id, answer in point.arrived.items()]
    if point.done:
        form["done"] = True
    if point.own:
        form["own"] = [[to.text(area), to.text(key), revision] for (area, key), revision in point.own.items()]
    return form


# --- reading ------------------------------------------------------------------------------------------------------


class PartReader:
    """Reads these parts, which may come from anywhere: every method raises LoadError for what is none.

    Args:
        values: reads the values in them.
        epoch: what the clock of this process shows less than UTC, in nanoseconds.
    """

    def __init__(self, values: Reader, epoch: int) -> None:
        self.values = values
        self.epoch = epoch
        self.shapes = Shapes(values.subject)

    def text(self, data: Any, what: str) -> str:
        """Return a string."""
        found = data if type(data) is str else self.values.value(data, what)
        return self.shapes.check(found, what, str)  # type: ignore[no-any-return]

    def text_or_none(self, data: Any, what: str) -> str | None:
        """Return a string, or None."""
        return None if data is None else self.text(data, what)

    def row(self, row: Any, length: int, what: str) -> list[Any]:
        """Return a list of so many items."""
        if len(self.shapes.check(row, what, list)) != length:
            raise self.shapes.problem(f"{what} must have {length} items, not {len(row)}")
        return row  # type: ignore[no-any-return]

    def time(self, data: Any, what: str) -> int:
        """Return a time on the clock of this process."""
        return self.shapes.check(data, what, int) - self.epoch  # type: ignore[no-any-return]

    def amount(self, data: Any, what: str) -> int:
        """Return a whole number that is not negative."""
        return self.shapes.least(self.shapes.check(data, what, int), 0, what)

    def not_negative(self, column: list[int], what: str) -> list[int]:
        """Return whole numbers, none of which is negative."""
        if column:
            self.shapes.least(min(column), 0, f"{what!r}")
        return column

    def optional(self, data: Mapping[str, Any], key: str, kind: type, where: str = "") -> Any:
        """Return ``data[key]`` when it is there and of this class; what is empty of the class when it is not there."""
        return self.shapes.take(data, key, kind, where=where) if key in data else kind()

    def known_keys(self, data: Mapping[str, Any], known: frozenset[str], what: str) -> None:
        """Check that an object has no other keys."""
        if not data.keys() <= known:
            unknown = sorted(data.keys() - known)
            raise self.shapes.problem(f"{what} has keys that this version of routilux does not know: {unknown!r}")

    def error(self, row: Any, what: str) -> ErrorRecord:
        """Return an error."""
        *texts, attempt = self.row(row, 6, what)
        kind, message, trace = (self.text(each, "an error") for each in texts[:3])
        routine_id, slot = (self.text_or_none(each, "an error") for each in texts[3:])
        attempt = self.shapes.check(attempt, "the attempt of an error", int, NONE)
        return ErrorRecord(kind, message, trace, routine_id, slot, attempt)

    def error_at(self, place: Any, errors: list[ErrorRecord]) -> ErrorRecord:
        """Return the error at a place in a table."""
        places = [self.shapes.check(place, "a reference to an error", int)]
        return errors[self.shapes.places(places, len(errors), "a reference to an error")[0]]

    def reads(self, rows: list[Any], what: str) -> tuple[Read, ...]:
        """Return what a turn read."""
        found = []
        for each in rows:
            area, key, form, revision, source = self.row(each, 5, what)
            names = self.text_or_none(area, what), self.text_or_none(key, what)
            form = self.shapes.check(form, what, list)
            found.append(Read(*names, form, self.amount(revision, what), self.text(source, what)))
        return tuple(found)

    def wait(self, row: Any, what: str) -> Wait:
        """Return what a turn waits for."""
        due, topic, jobs = self.row(row, 3, what)
        ids = tuple(self.text(each, what) for each in self.shapes.check(jobs, what, list))
        return Wait(None if due is None else self.time(due, what), self.text_or_none(topic, what), ids)

    def point(self, form: Any, what: str) -> Point:
        """Return a point."""
        where = f"{what}: "
        self.known_keys(self.shapes.check(form, what, dict), POINT_KEYS, what)
        kind = self.shapes.take(form, "kind", str, where=where)
        if kind not in POINT_KINDS:
            raise self.shapes.problem(f"{where}'kind' is {kind!r}, not one of {', '.join(POINT_KINDS)}")
        point = Point(kind, self.text_or_none(form.get("name"), f"{where}'name'"))
        point.reads = self.reads(self.optional(form, "reads", list, where), f"{where}'reads'")
        if "form" in form:
            point.form = tuple(self.row(form["form"], 1, f"{where}'form'"))
        if "error" in form:
            point.error = self.error(form["error"], f"{where}'error'")
        point.failures = self.amount(form.get("failures", 0), f"{where}'failures'")
        if "wait" in form:
            point.wait = self.wait(form["wait"], f"{where}'wait'")
        for each in self.optional(form, "arrived", list, where):
            job_id, answer = self.row(each, 2, f"{where}'arrived'")
            point.arrived[self.text(job_id, f"{where}'arrived'")] = answer
        point.done = self.optional(form, "done", bool, where)
        for each in self.optional(form, "own", list, where):
            area, key, revision = self.row(each, 3, f"{where}'own'")
            names = self.text_or_none(area, f"{where}'own'"), self.text(key, f"{where}'own'")
            point.own[names] = self.amount(revision, f"{where}'own'")
        return point
