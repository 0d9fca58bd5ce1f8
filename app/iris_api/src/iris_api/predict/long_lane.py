"""The long lane: calls of the model that would hold up the event loop for too long are made beside it.

One thread makes them, one piece of rows at a time. It can't be stopped, so that pieces are short, and what runs far
beyond the deadline is reported: only another process can go on.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from iris_api.engines.columns import TABLES, Columns, Table, joined
from iris_api.engines.model import Model, Prediction, RefusedError, Row
from iris_api.predict.durations import Durations
from iris_api.predict.errors import deadline_exceeded, overloaded
from iris_api.predict.limits import too_much_work
from iris_api.predict.metrics import Metrics

logger = logging.getLogger(__name__)

Rows = Sequence[Row] | Table
"""Rows of a request: as a list, or a large batch as a table."""
Predictions = list[Prediction | None] | Columns
"""Answers to rows in their order: columns where they were a table."""
Done = Callable[[Predictions | Exception], None]
Cancel = Callable[[], bool]
"""Gives a request up: `done` will not be called. Returns whether it was still to be answered."""

# Seconds that a piece is to take. As long may a small request have to wait for a large one.
_PIECE = 0.05
# A call whose first row alone takes long carries as many further ones as double its time: more pieces would do little
# but repeat what it costs to make a call.
_WORTH = 2
# Of a piece, as a divisor, what a request may be to count as small.
_SMALL = 4
# Seconds that small requests wait for others before a piece begins: a fraction of what it takes, and clients that got
# an answer from the last one may be back.
_GATHER = 0.002
# Seconds beyond the deadline after which a piece is held to run for ever.
_GRACE = 1.0


class _Job:
    """A request in the lane."""

    __slots__ = ("alone", "answered", "answers", "done", "handed", "over", "queue", "rows", "since", "timer")

    def __init__(self, rows: Rows, done: Done, queue: "_Queue", since: float) -> None:
        self.rows = rows
        self.done = done
        self.queue = queue
        self.since = since
        self.answers: list[Any] = []
        # Of how many rows there are answers.
        self.answered = 0
        # How many rows have been handed to the thread.
        self.handed = 0
        # Whether it must not share a piece, because one that it did share failed.
        self.alone = False
        self.over = False
        self.timer: asyncio.TimerHandle | None = None

    @property
    def left(self) -> int:
        return len(self.rows) - self.handed

    @property
    def is_table(self) -> bool:
        return isinstance(self.rows, TABLES)

    def may_join(self, other: "_Job") -> bool:
        """Return whether both may share a piece: one that failed shares none, and a table does with tables."""
        return not (self.alone or other.alone) and self.is_table == other.is_table

    def joined(self) -> Predictions:
        """Return the answers of all pieces."""
        if self.is_table:
            return Columns.joined(self.answers)
        return [answer for part in self.answers for answer in part]


class _Queue:
    """Jobs with rows that wait, in their order."""

    def __init__(self) -> None:
        self.jobs: deque[_Job] = deque()
        self.rows = 0

    def append(self, job: _Job) -> None:
        self.jobs.append(job)
        self.rows += job.left

    def appendleft(self, job: _Job) -> None:
        self.jobs.appendleft(job)
        self.rows += job.left

    def popleft(self) -> _Job:
        job = self.jobs.popleft()
        self.rows -= job.left
        return job

    def discard(self, job: _Job) -> None:
        if job in self.jobs:
            self.jobs.remove(job)
            self.rows -= job.left


class _Piece:
    """What the thread computes at a time: some rows of a job or of several."""

    def __init__(self, parts: list[tuple[_Job, int]], rows: Rows, ends: float) -> None:
        self.parts = parts
        self.rows = rows
        # When it is predicted to be done.
        self.ends = ends
        self.started = perf_counter()
        self.timer: asyncio.TimerHandle | None = None


class LongLane:
    """Answers requests that take long, in pieces.

    Small ones go together, in their order, and have every other piece; the pieces between belong to large ones, in
    turns. So a small request waits for what runs, for the small ones before it and as long for large ones. All of it
    but the calls of the model happens in the event loop's thread.

    Args:
        model: what answers.
        metrics: what counts calls, their rows and their waiting.
        durations: predicts how long calls take, and learns from them.
        deadline: seconds within which a request must be answered.
        max_piece_rows: rows that a piece may have at most.
        max_waiting_rows: rows that may wait in each of the two queues; one request always may.
    """

    def __init__(
        self,
        model: Model,
        metrics: Metrics,
        durations: Durations,
        *,
        deadline: float,
        max_piece_rows: int,
        max_waiting_rows: int,
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._durations = durations
        self._deadline = deadline
        self._max_piece_rows = max_piece_rows
        self._max_waiting_rows = max_waiting_rows
        self._small, self._large = _Queue(), _Queue()
        self._turn_of_large = False
        self._running: _Piece | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._closed = False
        self._inbox: SimpleQueue[tuple[_Piece, asyncio.AbstractEventLoop]] | None = None
        self.on_overrun: Callable[[int, float], None] = lambda rows, seconds: None
        """Called with the number of rows of a piece that runs for too long and its seconds; the lane is closed then."""

    @property
    def busy(self) -> bool:
        """Whether a call is being made at this moment."""
        return self._running is not None

    @property
    def waiting_rows(self) -> int:
        """How many rows wait to be handed to the thread."""
        return self._small.rows + self._large.rows

    def submit(self, rows: Rows, done: Done) -> Cancel:
        """Have `done` called once, in a later turn of the loop, with the answers in the order of the rows or an error.

        What is returned gives the request up; what has not begun is not computed then.
        Raise ApiError for what is predicted to miss the deadline.
        """
        job = self._admit(rows, done)
        job.timer = asyncio.get_running_loop().call_later(self._deadline, self._expire, job)
        job.queue.append(job)
        # Not at once: those that are read in the same turn of the loop are to take turns from their first piece on.
        asyncio.get_running_loop().call_soon(self._start_next)
        return partial(self._give_up, job)

    def _admit(self, rows: Rows, done: Done) -> _Job:
        count, now = len(rows), perf_counter()
        piece_rows = self._piece_rows()
        alone = self._seconds(count, piece_rows)
        if self._closed:
            raise overloaded(1)
        if alone > self._deadline:
            self._durations.relax()
            raise too_much_work(count, alone, self._deadline, self._rows_in_time(piece_rows))
        queue = self._small if count <= max(1, piece_rows // _SMALL) else self._large
        ahead = max(0.0, self._running.ends - now) if self._running else 0.0
        # While both kinds wait, each has every other turn; more small ones may come.
        if queue is self._small:
            ahead += self._seconds(self._small.rows + count, piece_rows) - alone
            if self._large.rows:
                large = self._seconds(self._large.rows, piece_rows)
                ahead += min(large, max(ahead, self._durations.predict(piece_rows)))
        else:
            # Of each other large one it sees no more in its turns than as many rows as it has itself.
            others = sum(min(job.left, count) for job in self._large.jobs)
            ahead += self._seconds(others + count, piece_rows) - alone
            if self._small.rows:
                ahead += max(ahead + alone, self._seconds(self._small.rows, piece_rows))
        # Each kind has a bound of its own: large ones must not keep small ones out.
        full = queue.rows and queue.rows + count > self._max_waiting_rows
        if full or (ahead and ahead + alone > self._deadline):
            raise overloaded(ahead)
        return _Job(rows, done, queue, now)

    def _piece_rows(self) -> int:
        """Return how many rows a piece may have."""
        target = min(max(_PIECE, _WORTH * self._durations.predict(1)), self._deadline / 2)
        return min(self._durations.rows_within(target), self._max_piece_rows)

    def _seconds(self, rows: int, piece_rows: int) -> float:
        """Return the seconds that some rows are predicted to take, in pieces."""
        full, rest = divmod(rows, piece_rows)
        seconds = full * self._durations.predict(piece_rows) if full else 0.0
        return seconds + self._durations.predict(rest) if rest else seconds

    def _rows_in_time(self, piece_rows: int) -> int:
        """Return how many rows of one request are predicted to be answered within the deadline, in such pieces."""
        pieces = int(self._deadline / self._durations.predict(piece_rows))
        return pieces * piece_rows or self._durations.rows_within(self._deadline)

    def _start_next(self) -> None:
        """Give the thread what is next, if it has nothing to do."""
        if self._running or self._closed:
            return
        if self._large.jobs and (self._turn_of_large or not self._small.jobs):
            self._turn_of_large = False
            self._start(self._take(self._large))
        elif self._small.jobs and self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(_GATHER, self._start_small)

    def _start_small(self) -> None:
        self._gathering = None
        if self._running or self._closed or not self._small.jobs:
            # Meanwhile a large one came first, or those that waited are gone.
            self._start_next()
            return
        self._turn_of_large = True
        self._start(self._take(self._small))

    def _start(self, parts: list[tuple[_Job, int]]) -> None:
        """Hand a piece to the thread."""
        if self._inbox is None:
            self._inbox = SimpleQueue()
            # A daemon: a call that goes on must not keep the process from its end.
            threading.Thread(target=self._work, args=(self._inbox,), name="long-lane", daemon=True).start()
        slices: list[Any] = [job.rows[job.handed - count : job.handed] for job, count in parts]
        rows: Rows = joined(slices) if parts[0][0].is_table else [row for some in slices for row in some]
        now = perf_counter()
        for job, count in parts:
            if job.handed == count:
                self._metrics.queue_wait.observe(now - job.since)
        loop = asyncio.get_running_loop()
        self._running = piece = _Piece(parts, rows, now + self._durations.predict(len(rows)))
        piece.timer = loop.call_later(self._deadline, self._suspect, piece)
        self._inbox.put((piece, loop))

    def _take(self, queue: _Queue) -> list[tuple[_Job, int]]:
        """Return jobs of a queue for a piece, each with how many of its next rows."""
        room = self._piece_rows()
        parts: list[tuple[_Job, int]] = []
        while queue.jobs and room and not (parts and not queue.jobs[0].may_join(parts[0][0])):
            job = queue.popleft()
            count = min(room, job.left)
            room -= count
            job.handed += count
            parts.append((job, count))
            if job.left:
                # Small ones go in their order, large ones in turns.
                (queue.appendleft if queue is self._small else queue.append)(job)
        return parts

    def _work(self, inbox: "SimpleQueue[tuple[_Piece, asyncio.AbstractEventLoop]]") -> None:
        """Compute pieces until the process ends; this is what the thread runs."""
        while True:
            piece, loop = inbox.get()
            started = perf_counter()
            result: Any
            try:
                result = self._model.predict(piece.rows)
            except Exception as error:
                result = error
            # If the loop is closed, nothing waits for the result.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._finish, piece, result, perf_counter() - started)
            del piece, loop, result

    def _finish(self, piece: _Piece, result: Predictions | Exception, seconds: float) -> None:
        """Hand on the answers to a piece, and give the thread the next one."""
        self._running = None
        if piece.timer:
            piece.timer.cancel()
        self._durations.observe(len(piece.rows), seconds)
        if isinstance(result, Exception):
            self._fail(piece, result)
            self._start_next()
            return
        self._metrics.inference.observe(seconds)
        self._metrics.batch_rows.observe(len(piece.rows))
        # First of all, the thread gets something to do.
        self._start_next()
        first = 0
        for job, count in piece.parts:
            last = first + count
            job.answers.append(result.part(first, last) if isinstance(result, Columns) else result[first:last])
            first = last
            job.answered += count
            if job.answered == len(job.rows):
                self._settle(job, job.joined())

    def _fail(self, piece: _Piece, error: Exception) -> None:
        """Fail the request whose rows made the piece fail, and no other; ask each alone where it is not known."""
        blamed = piece.parts[0][0] if len(piece.parts) == 1 else None
        if isinstance(error, RefusedError):
            first = 0
            for job, count in piece.parts:
                if first <= error.row < first + count:
                    blamed = job
                    # Its number in the piece becomes its number in the request.
                    error = RefusedError(job.handed - count + error.row - first, error.field, error.reason)
                    break
                first += count
        for job, count in reversed(piece.parts):
            job.queue.discard(job)
            if job is blamed:
                self._settle(job, error)
            elif not job.over:
                job.handed -= count
                job.alone = job.alone or blamed is None
                job.queue.appendleft(job)

    def _settle(self, job: _Job, result: Predictions | Exception) -> None:
        if job.over:
            return
        job.over = True
        if job.timer:
            job.timer.cancel()
        job.done(result)

    def _give_up(self, job: _Job) -> bool:
        """Forget a request."""
        if job.over:
            return False
        job.over = True
        if job.timer:
            job.timer.cancel()
        job.queue.discard(job)
        return True

    def _expire(self, job: _Job) -> None:
        job.queue.discard(job)
        self._settle(job, deadline_exceeded(self._deadline))

    def _suspect(self, piece: _Piece) -> None:
        """Look again after a while: this process itself may have stood still, and the thread with it."""
        piece.timer = asyncio.get_running_loop().call_later(_GRACE, self._overrun, piece)

    def _overrun(self, piece: _Piece) -> None:
        """Answer all that waits for the thread, which will not come back, and report it."""
        self._closed = True
        for queue in (self._small, self._large):
            while queue.jobs:
                self._settle(queue.popleft(), overloaded(1))
        self.on_overrun(len(piece.rows), perf_counter() - piece.started)
