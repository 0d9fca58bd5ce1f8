"""Micro-batching: rows of requests that wait at the same time are answered by one call of the engine.

A call costs about the same for one row and for many. One that is predicted to be short is made on the event loop,
because a thread would cost more than it gives: nothing else could use the processor meanwhile. A longer one would delay
every other answer, health checks included, and goes to the other lane: see `long_lane`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeVar, overload

from iris_api.engines.columns import TABLES, Columns, Table
from iris_api.engines.model import Model, Prediction, RefusedError, Row
from iris_api.predict.durations import SHORT, Durations
from iris_api.predict.errors import deadline_exceeded, overloaded
from iris_api.predict.long_lane import Cancel as Cancel
from iris_api.predict.long_lane import LongLane
from iris_api.predict.long_lane import Predictions as Predictions
from iris_api.predict.long_lane import Rows as Rows
from iris_api.predict.metrics import Metrics

T = TypeVar("T")

# Seconds of a call that is always learned from, and of how many quicker ones one is: a few of them tell enough.
_NOTABLE = 0.001
_SAMPLE = 32
# Rows that may wait before it is worth to compute how long they will: fewer are done within some seconds at worst.
_FEW = 64


class _Waiting(NamedTuple):
    rows: Rows
    done: Callable[[Predictions | Exception], None]
    since: float


class Batcher:
    """Answers the rows of many requests by one call of the model.

    A request waits while the event loop turns once or a few times, as the engine wants. After one turn every request
    that was read together with it has handed in its rows; during each further one, those that arrived meanwhile are
    read. Rows must have been validated: what shares a batch must not be able to fail it.

    Args:
        model: what answers.
        metrics: what counts calls, their rows and their waiting.
        durations: predicts how long calls take, and learns from them.
        deadline: seconds within which a request must be answered.
        max_batch_rows: rows that may share a call.
        max_waiting_rows: rows that may wait in each lane, here and in the long one; one request always may.
    """

    def __init__(
        self,
        model: Model,
        metrics: Metrics,
        durations: Durations,
        *,
        deadline: float,
        max_batch_rows: int,
        max_waiting_rows: int,
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._durations = durations
        self.deadline = deadline
        self._max_batch_rows = max_batch_rows
        self._max_waiting_rows = max_waiting_rows
        self._queue: deque[_Waiting] = deque()
        self._waiting_rows = 0
        self._calls = 0
        self._turns = model.engine.turns
        self.long_lane = LongLane(
            model,
            metrics,
            durations,
            deadline=deadline,
            max_piece_rows=max_batch_rows,
            max_waiting_rows=max_waiting_rows,
        )
        metrics.queues = lambda: {"short": self._waiting_rows, "long": self.long_lane.waiting_rows}

    def submit(self, rows: Rows, done: Callable[[Predictions | Exception], None]) -> Cancel | None:
        """Have `done` called once, in a later turn of the loop, with the answers in the order of the rows or an error.

        `done` must not raise: others wait behind it. What is returned gives the request up; None means that it will be
        answered before that would help. Raise ApiError for a request that is predicted to miss the deadline.
        """
        count = len(rows)
        if count > self._durations.short_rows:
            return self.long_lane.submit(rows, done)
        waiting = self._waiting_rows
        if waiting and (
            waiting + count > self._max_waiting_rows or (waiting > _FEW and self._wait(waiting) > self.deadline)
        ):
            raise overloaded(self._wait(waiting))
        if not self._queue:
            loop = asyncio.get_running_loop()
            # One turn calls for the next, and the last one for the model.
            calls: list[Any] = [*[loop.call_soon] * (self._turns - 1), self._answer_batch]
            loop.call_soon(*calls)
        self._queue.append(_Waiting(rows, done, perf_counter()))
        self._waiting_rows += count
        return None

    @overload
    async def predict(self, rows: Sequence[Row]) -> list[Prediction | None]: ...

    @overload
    async def predict(self, rows: Table) -> Columns: ...

    async def predict(self, rows: Rows) -> Predictions:
        """Return the answers to some rows, in their order; raise what `submit` raises or hands to `done`."""
        answer: Awaited[Predictions] = Awaited()
        cancel = self.submit(rows, answer.settle)
        try:
            return await answer.future
        except asyncio.CancelledError:
            if cancel:
                cancel()
            raise

    def _wait(self, rows: int) -> float:
        """Return the seconds for which so many rows are predicted to keep the short lane busy, at most."""
        return -(-rows // min(self._durations.short_rows, self._max_batch_rows)) * SHORT

    def _answer_batch(self) -> None:
        """Answer the oldest requests with one short call; leave what is too much for it to the next turn."""
        started = perf_counter()
        batch = [self._queue.popleft()]
        size = len(batch[0].rows)
        # A table is enough for a call of its own.
        if self._queue and not isinstance(batch[0].rows, TABLES):
            most = min(self._durations.short_rows, self._max_batch_rows)
            while (
                self._queue and size + len(self._queue[0].rows) <= most and not isinstance(self._queue[0].rows, TABLES)
            ):
                batch.append(self._queue.popleft())
                size += len(batch[-1].rows)
        self._waiting_rows -= size
        if self._queue:
            asyncio.get_running_loop().call_soon(self._answer_batch)
        for waiting in batch:
            self._metrics.queue_wait.observe(started - waiting.since)
        if started - batch[0].since > self.deadline:
            batch = self._without_expired(batch, started)
        if batch:
            self._answer(batch)

    def _answer(self, batch: list[_Waiting]) -> None:
        """Answer requests with one call."""
        started = perf_counter()
        rows: Any = batch[0].rows
        if not isinstance(rows, TABLES):
            rows = [row for waiting in batch for row in waiting.rows]  # type: ignore[union-attr]  # lists alone share it
        try:
            answers = self._model.predict(rows)
        except Exception as error:
            self._learn(len(rows), perf_counter() - started)
            self._answer_each(batch, error)
            return
        seconds = perf_counter() - started
        self._calls += 1
        if seconds > _NOTABLE or not self._calls % _SAMPLE:
            self._learn(len(rows), seconds)
        self._metrics.inference.observe(seconds)
        self._metrics.batch_rows.observe(len(rows))
        if isinstance(answers, Columns):
            batch[0].done(answers)
            return
        first = 0
        for waiting in batch:
            last = first + len(waiting.rows)
            waiting.done(answers[first:last])
            first = last

    def _learn(self, rows: int, seconds: float) -> None:
        """Learn how long calls take; beside one in the other lane they take longer than when they are alone."""
        if not self.long_lane.busy:
            self._durations.observe(rows, seconds)

    def _answer_each(self, batch: list[_Waiting], error: Exception) -> None:
        """Fail the request whose rows made the call fail, and no other; find out which it is, if need be."""
        if len(batch) == 1:
            batch[0].done(error)
            return
        if isinstance(error, RefusedError):
            first = 0
            for number, waiting in enumerate(batch):
                last = first + len(waiting.rows)
                if first <= error.row < last:
                    asyncio.get_running_loop().call_soon(self._answer, batch[:number] + batch[number + 1 :])
                    waiting.done(RefusedError(error.row - first, error.field, error.reason))
                    return
                first = last
        # By halves, each in a turn of its own: many calls at once would hold up the loop.
        half = len(batch) // 2
        for part in (batch[:half], batch[half:]):
            asyncio.get_running_loop().call_soon(self._answer, part)

    def _without_expired(self, batch: list[_Waiting], now: float) -> list[_Waiting]:
        """Fail the requests that have waited for longer than the deadline, and return the others."""
        for waiting in batch:
            if now - waiting.since > self.deadline:
                waiting.done(deadline_exceeded(self.deadline))
        return [waiting for waiting in batch if now - waiting.since <= self.deadline]


class Awaited(Generic[T]):
    """A future that a callback settles; it belongs to the loop that runs when it is made."""

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def settle(self, result: T | Exception) -> None:
        """Settle the future with a result or an error; this is the callback."""
        if self.future.done():
            # What awaited it was cancelled.
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)
