"""Micro-batching: rows of requests that wait at the same time are answered by one call of the engine.

A call costs about the same for one row and for many. It is made on the event loop, because a thread would cost
more than it gives: nothing else could use the processor meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from time import perf_counter
from typing import NamedTuple

from iris_api.errors import ApiError
from iris_api.metrics import Metrics
from iris_api.model import Model, Prediction
from iris_api.rows import Row

Predictions = list[Prediction | None]


class _Waiting(NamedTuple):
    rows: Sequence[Row]
    answer: asyncio.Future[Predictions]
    since: float


class Batcher:
    """Answers rows, many requests at once.

    A request waits while the event loop turns once or twice, as the engine wants. After one turn every request that
    was read together with it has handed in its rows; during the second, those that arrived meanwhile are read. Rows
    must have been validated: what shares a batch must not be able to fail it.
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

    async def predict(self, rows: Sequence[Row], *, alone: bool = False) -> Predictions:
        """Return the answers of some rows, in their order; alone means that no other request has been read."""
        if self._waiting_rows and self._waiting_rows + len(rows) > self._max_waiting_rows:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "overloaded",
                "Too many rows wait for an answer already.",
                headers={"Retry-After": "1"},
            )
        if alone and self._turns == 1 and not self._queue:
            # Nobody could join: a turn of the loop would be for nothing.
            self._metrics.queue_wait.observe(0)
            return self._answer(rows)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Predictions] = loop.create_future()
        if not self._queue:
            if self._turns == 1:
                loop.call_soon(self._answer_batch)
            else:
                loop.call_soon(loop.call_soon, self._answer_batch)
        self._queue.append(_Waiting(rows, answer, perf_counter()))
        self._waiting_rows += len(rows)
        return await answer

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
            answers = self._answer([row for waiting in batch for row in waiting.rows])
        except Exception as error:
            self._answer_each(batch, error)
            return
        first = 0
        for waiting in batch:
            last = first + len(waiting.rows)
            if not waiting.answer.done():
                waiting.answer.set_result(answers[first:last])
            first = last

    def _answer(self, rows: Sequence[Row]) -> Predictions:
        started = perf_counter()
        answers = self._model.predict(rows)
        self._metrics.inference.observe(perf_counter() - started)
        self._metrics.batch_rows.observe(len(rows))
        return answers

    def _answer_each(self, batch: list[_Waiting], error: Exception) -> None:
        """Find out whose rows the engine could not bear: nobody else is to feel it."""
        for waiting in batch:
            if waiting.answer.done():
                continue
            try:
                if len(batch) == 1:
                    raise error
                waiting.answer.set_result(self._model.predict(waiting.rows))
            except Exception as own_error:
                waiting.answer.set_exception(own_error)
