"""Micro-batching: rows of requests that wait at the same time are answered by one call of the engine.

A call costs about the same for one row and for many. It is made on the event loop, because a thread would cost
more than it gives: nothing else could use the processor meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from http import HTTPStatus
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeVar

from iris_api.errors import ApiError
from iris_api.metrics import Metrics
from iris_api.model import Model, Prediction
from iris_api.rows import Row

Predictions = list[Prediction | None]
T = TypeVar("T")


class _Waiting(NamedTuple):
    rows: Sequence[Row]
    done: Callable[[Predictions | Exception], None]
    since: float


class Batcher:
    """Answers rows, many requests at once.

    A request waits while the event loop turns once or a few times, as the engine wants. After one turn every request
    that was read together with it has handed in its rows; during each further one, those that arrived meanwhile are
    read. Rows must have been validated: what shares a batch must not be able to fail it.
    """

    def __init__(self, model: Model, metrics: Metrics, *, max_batch_rows: int, max_waiting_rows: int) -> None:
        """Take the model and how many rows may share a call, and may wait for one."""
        self._model = model
        self._metrics = metrics
        self._max_batch_rows = max_batch_rows
        self._max_waiting_rows = max_waiting_rows
        self._queue: deque[_Waiting] = deque()
        self._waiting_rows = 0
        self._turns = model.engine.turns
        metrics.queue_rows = lambda: self._waiting_rows

    def submit(self, rows: Sequence[Row], done: Callable[[Predictions | Exception], None]) -> None:
        """Have done called in a later turn of the loop, with the answers in the order of the rows, or with an error.

        It must not raise: others wait behind it.
        """
        if self._waiting_rows and self._waiting_rows + len(rows) > self._max_waiting_rows:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "overloaded",
                "Too many rows wait for an answer already.",
                headers={"Retry-After": "1"},
            )
        if not self._queue:
            loop = asyncio.get_running_loop()
            # One turn calls for the next, and the last one for the model.
            calls: list[Any] = [*[loop.call_soon] * (self._turns - 1), self._answer_batch]
            loop.call_soon(*calls)
        self._queue.append(_Waiting(rows, done, perf_counter()))
        self._waiting_rows += len(rows)

    async def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return the answers of some rows, in their order."""
        answer: Awaited[Predictions] = Awaited()
        self.submit(rows, answer.settle)
        return await answer.future

    def _answer_batch(self) -> None:
        """Answer the oldest requests with one call; leave what is too much for it to the next turn of the loop."""
        batch = [self._queue.popleft()]
        size = len(batch[0].rows)
        while self._queue and size + len(self._queue[0].rows) <= self._max_batch_rows:
            batch.append(self._queue.popleft())
            size += len(batch[-1].rows)
        self._waiting_rows -= size
        if self._queue:
            asyncio.get_running_loop().call_soon(self._answer_batch)
        started = perf_counter()
        for waiting in batch:
            self._metrics.queue_wait.observe(started - waiting.since)
        try:
            answers = self._model.predict([row for waiting in batch for row in waiting.rows])
        except Exception as error:
            self._answer_each(batch, error)
            return
        self._metrics.inference.observe(perf_counter() - started)
        self._metrics.batch_rows.observe(size)
        first = 0
        for waiting in batch:
            last = first + len(waiting.rows)
            waiting.done(answers[first:last])
            first = last

    def _answer_each(self, batch: list[_Waiting], error: Exception) -> None:
        """Find out whose rows the engine could not bear: nobody else is to feel it."""
        for waiting in batch:
            try:
                if len(batch) == 1:
                    raise error
                answers = self._model.predict(waiting.rows)
            except Exception as own_error:
                waiting.done(own_error)
            else:
                waiting.done(answers)


class Awaited(Generic[T]):
    """Makes something to await of something that calls back."""

    def __init__(self) -> None:
        """Belong to the running loop."""
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def settle(self, result: T | Exception) -> None:
        """Take what the call back brings."""
        if self.future.done():
            # Whoever waited was cancelled.
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)
