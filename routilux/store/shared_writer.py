"""One connection that many threads write with, and the transactions that they share.

Rules of this file:

- Whoever has the turn uses the connection, and nobody blocks to get it. The turn is an entry in a dict: taking it so
  costs less than a lock, and a commit is so short that one notices.
- One statement whose caller finds the turn free and nobody in line is committed by itself, in its caller's thread.
- All else waits in line: a caller puts its request there, and looks whether the turn is free. Whoever takes it commits
  the whole line in one transaction: a line of one is the caller alone. Who finds it taken sleeps until its bell rings:
  because its request is done, or because the turn is free again and it is the first in line.
- A line of rows, and nothing else, is added with one statement, which is a transaction by itself. Each call of SQLite
  lets the other threads run, and comes back when they let it: with a call per row, the disk waits for their handlers.
- Whoever ends its turn looks at the line afterwards, and whoever lines up looks at the turn afterwards, so that one of
  both sees the other.
- Ctrl-C may come between any two lines, once. Therefore the turn is taken under the name of who takes it, so that it
  can be given back even if nobody knows that it was taken; requests stay in line until they are done; and a caller who
  leaves early marks its request and looks at the turn once more. Whoever takes the turn rolls back what the one before
  was kept from rolling back. What a signal raises behind a commit does not undo it: the requests are done.
- A signal handler of the program may raise an ordinary exception, too. Before a commit, that looks like the error of a
  request, and is given to the one that was worked at. A signal handler must not write here: its thread may have the
  turn.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from threading import Lock
from typing import Any, TypeVar

from ..errors import StoreError
from .rules import closed
from .sqlite_errors import explained, is_busy

T = TypeVar("T")
TURN = "turn"
MOST_ROWS = 64  # in one statement: there is one for each number of rows, and a connection keeps about a hundred
Work = Callable[[sqlite3.Cursor], T]


class _Request:
    """What somebody wants to have written, and what has become of it."""

    __slots__ = ("bell", "doing", "done", "error", "left", "result", "row", "work")

    def __init__(self, doing: str, work: Work[Any], row: Sequence[object] | None) -> None:
        self.doing = doing
        self.work = work
        self.row = row
        self.bell = Lock()
        self.bell.acquire()
        self.done = False
        self.left = False
        self.result: Any = None
        self.error: Exception | None = None

    def ring(self) -> None:
        try:
            self.bell.release()
        except RuntimeError:
            pass  # it was rung already, and whoever wakes looks at all that has happened


class SharedWriter:
    """Writes with one connection for any number of threads.

    Args:
        connection: to write with; it belongs to the writer from now on.
        store: what the store is called in errors.
        adding: returns the statement that adds so many rows, given the values of all of them one after another. It
            must violate a constraint, and so add none, when one of them does not fit.
    """

    def __init__(self, connection: sqlite3.Connection, store: str, adding: Callable[[int], str]) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute
        self._store = store
        self._adding = adding
        self._turn: dict[str, object] = {}
        self._take_turn = self._turn.setdefault
        self._line: deque[_Request] = deque()
        self._closed = False

    def write_alone(self, doing: str, statement: str, row: tuple[object, ...]) -> bool:
        """Do one statement by itself, unless somebody else is writing or it does not fit; return whether it was done.

        It spares what a transaction costs beyond it, which is a quarter of a commit that need not wait for the disk;
        at that speed, the lines of this method count as well.

        Args:
            doing: what it is about, as in "cannot <doing>", formatted with the row.
            statement: what to do; it must violate a constraint, and so do nothing, where it does not fit.
            row: its values. That must be a new tuple, since the turn is taken under its identity.

        Raises StoreError when the writer is closed or the statement failed.
        """
        if self._line:
            return False
        turn = self._turn
        try:
            if self._take_turn(TURN, row) is not row or self._connection.in_transaction:
                return False
            self._execute(statement, row)
            return True
        except sqlite3.IntegrityError:
            return False
        except sqlite3.Error as error:
            raise self._failed(doing.format(*row), error) from error
        finally:
            try:
                if turn[TURN] is row:
                    del turn[TURN]
            except KeyError:
                pass  # it was another's, and is over
            if self._line:
                try:
                    self._wake_line()
                except BaseException:
                    self._wake_line()
                    raise

    def write(self, doing: str, work: Work[T], row: tuple[object, ...] | None = None) -> T:
        """Do some work in a transaction that others may share, and return its result once that has been committed.

        Args:
            doing: what it is about, as in "cannot <doing>".
            work: called with a cursor; it must raise StoreError, if at all, before it has written anything, and it
                may be called a second time after what it wrote at first was rolled back.
            row: when the work does no more than to add this row, and has no result: it may be added with those of
                others, without the work.

        Raises what the work raises, and StoreError when the writer is closed or the transaction failed.
        """
        request = _Request(doing, work, row)
        self._wait_for(request)
        if request.error is not None:
            raise request.error
        return request.result  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close the connection, after what is being committed; whoever waits gets a StoreError."""
        self._closed = True
        self._wait_for(_Request("close", lambda cursor: None, None))

    def _wait_for(self, request: _Request) -> None:
        try:
            self._line.append(request)
            while not request.done:
                if not self._commit_line():
                    request.bell.acquire()
        except BaseException:
            request.left = True
            self._commit_line()
            raise

    def _wake_line(self) -> None:
        """Leave the turn, which is free now, to the first in line; the line of one who has left is committed here."""
        try:
            self._wake_first()
        except IndexError:
            pass  # nobody waits
        except BaseException:
            self._wake_line()
            raise

    def _wake_first(self) -> None:
        first = self._line[0]
        if first.left:
            self._commit_line()
        else:
            first.ring()

    def _commit_line(self) -> bool:
        """Commit all that wait, unless somebody else has the turn; return whether they were."""
        mine, turn = object(), self._turn
        try:
            if self._take_turn(TURN, mine) is not mine:
                return False
            self._roll_back()
            self._dismiss()
            self._commit_all()
            self._dismiss()
        finally:
            try:
                if turn[TURN] is mine:
                    del turn[TURN]
            except KeyError:
                pass  # it was another's, and is over
        self._wake_line()
        return True

    def _dismiss(self) -> None:
        """Let those go from the front of the line who are done, or have left."""
        line = self._line
        while line and (line[0].done or line[0].left):
            line[0].ring()
            line.popleft()

    def _commit_all(self) -> None:
        waiting = [self._line[place] for place in range(len(self._line))]
        batch = [request for request in waiting if not request.left]
        if self._closed:
            self._refuse(batch)
            return
        if len(batch) > 1 and (self._add_together(batch) or self._commit(batch) is None):
            return
        for request in batch:
            self._commit_alone(request)

    def _refuse(self, batch: list[_Request]) -> None:
        self._connection.close()
        for request in batch:
            request.error, request.done = closed(self._store), True

    def _add_together(self, batch: list[_Request]) -> bool:
        """Add the rows of a batch with one statement; return False when it is no such batch, or one does not fit."""
        rows = [request.row for request in batch if request.row is not None]
        if len(rows) < len(batch) or len(rows) > MOST_ROWS or self._connection.in_transaction:
            return False
        for request in batch:
            request.error = None
        before = self._connection.total_changes
        try:
            self._execute(self._adding(len(rows)), tuple(chain.from_iterable(rows)))
            _mark_done(batch)
        except BaseException as error:
            added = self._connection.total_changes != before
            if added:
                _mark_done(batch)
            if added or not isinstance(error, Exception):
                raise  # it comes from a signal
            if not is_busy(error):
                return False
            self._fail_all(batch, error)
        return True

    def _commit(self, batch: list[_Request]) -> Exception | None:
        """Commit a batch in one transaction; return the error when that failed, and nothing was written.

        Otherwise all are done. One that is refused gets its own error, and the others are committed all the same; when
        the transaction cannot begin, each gets an error.
        """
        worked = 0
        try:
            if not self._begin_for(batch):
                return None
            for request in batch:
                request.error = None
                before = self._connection.total_changes
                try:
                    request.result = request.work(self._cursor)
                except StoreError as refusal:
                    if self._connection.total_changes != before:
                        raise  # half of it is written
                    request.error = refusal
                worked += 1
            self._execute("COMMIT")
            _mark_done(batch)
        except BaseException as error:
            ended = worked == len(batch) and not self._connection.in_transaction
            committed = ended and not isinstance(error, sqlite3.Error)
            if committed:
                _mark_done(batch)
            self._roll_back()
            if committed or not isinstance(error, Exception):
                raise  # it comes from a signal
            return error
        return None

    def _commit_alone(self, request: _Request) -> None:
        error = self._commit([request])
        if error is not None:
            request.error = self._failed(request.doing, error) if isinstance(error, sqlite3.Error) else error
            request.done = True

    def _begin_for(self, batch: list[_Request]) -> bool:
        """Begin a transaction, or give every request of a batch an error: none would fare better by itself."""
        try:
            self._execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._fail_all(batch, error)
            return False
        return True

    def _fail_all(self, batch: list[_Request], error: sqlite3.Error) -> None:
        for request in batch:
            request.error = self._failed(request.doing, error)
        _mark_done(batch)

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # the error that led here says more

    def _failed(self, doing: str, error: sqlite3.Error) -> StoreError:
        failure = closed(self._store) if self._closed else explained(self._store, doing, error)
        failure.__cause__ = error
        return failure


def _mark_done(batch: list[_Request]) -> None:
    for request in batch:
        request.done = True
