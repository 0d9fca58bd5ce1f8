"""A prediction, from a request's headers and body to the answer's: the one way to the model.

`Endpoint.submit` can be read from top to bottom. Two callers take it, with the same bytes in and out: `http.asgi` for
FastAPI's routes, and `http.middleware`, without FastAPI, for a request that has arrived as a whole.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from iris_api.engines.columns import Columns, Mixed
from iris_api.engines.model import Prediction, RefusedError
from iris_api.predict.batching import Batcher, Cancel, Predictions, Rows
from iris_api.predict.codec import MANY, Answered, Codec, Read, Write
from iris_api.predict.counts import Counts
from iris_api.predict.errors import ApiError, Detail, deadline_exceeded, invalid
from iris_api.predict.limits import Limits
from iris_api.predict.packed import unpacked
from iris_api.predict.reply import Answer, Headers, header
from iris_api.predict.steps import Steps, Turns, finished


class Endpoint:
    """Answers the requests of one API."""

    def __init__(self, codec: Codec, batcher: Batcher, metrics: Counts, limits: Limits) -> None:
        self.limits = limits
        self._codec = codec
        self._batcher = batcher
        self._metrics = metrics
        self._turns = Turns()

    def submit(self, headers: Headers, body: bytes, done: Callable[[Answer | Exception], None]) -> Cancel | None:
        """Have `done` called once, now or in a later turn of the loop, with the answer or with an error to answer with.

        What is returned gives the request up, if it will take a while.
        """
        try:
            self.limits.check_body(len(body))
            if encoding := header(headers, b"content-encoding"):
                return self._read_in_turns(self._unpacked(encoding, headers, body), done)
            found = self._codec.read(headers, body)
            if isinstance(found, tuple):
                return self._predict(*found, done)
            return self._read_in_turns(found, done)
        except Exception as error:
            done(self._refusal(error))
            return None

    def _predict(self, rows: Rows, write: Write, done: Callable[[Answer | Exception], None]) -> Cancel | None:
        """Have `done` called with the answer to rows; raise ApiError for what the batcher does not take."""

        def finish(predictions: Predictions | Exception) -> None:
            if isinstance(predictions, list) and len(predictions) > MANY:
                self._turns.submit(
                    self._answered(rows, write, predictions),
                    lambda found: done(self._refusal(found) if isinstance(found, Exception) else found),
                )
            else:
                done(self._answer(rows, write, predictions))

        return self._batcher.submit(rows, finish)

    def _unpacked(self, encoding: bytes, headers: Headers, body: bytes) -> Steps[Read]:
        """Read a body that came compressed; it may be large whatever has come."""
        found = self._codec.read(headers, (yield from unpacked(encoding, body, self.limits)))
        return found if isinstance(found, tuple) else (yield from found)

    def _read_in_turns(self, steps: Steps[Read], done: Callable[[Answer | Exception], None]) -> Cancel:
        """Read a large body while the loop answers others, then have its rows answered."""
        deadline = perf_counter() + self._batcher.deadline
        cancel: Cancel | None = None

        def go_on(found: Read | Exception) -> None:
            nonlocal cancel
            try:
                if isinstance(found, Exception):
                    raise found
                if perf_counter() > deadline:
                    raise deadline_exceeded(self._batcher.deadline)
                cancel = self._predict(*found, done)
            except Exception as error:
                done(self._refusal(error))

        give_up = self._turns.submit(steps, go_on)
        return lambda: give_up() or bool(cancel and cancel())

    def _answer(self, rows: Rows, write: Write, predictions: Predictions | Exception) -> Answer | Exception:
        try:
            if isinstance(predictions, RefusedError):
                raise _no_answer(predictions, len(rows))
            if isinstance(predictions, Exception):
                raise predictions
            found = write(self._counted(rows, predictions))
            return found if isinstance(found, Answer) else finished(found)
        except Exception as error:
            return self._refusal(error)

    def _answered(self, rows: Any, write: Write, predictions: list[Prediction | None]) -> Steps[Answer]:
        """Make the answer of many predictions, in steps."""
        counted: list[Any] = []
        for first in range(0, len(predictions), MANY):
            some: Any = self._counted(rows[first : first + MANY], predictions[first : first + MANY])
            counted += some
            yield
        found = write(counted)
        return found if isinstance(found, Answer) else (yield from found)

    def _counted(self, rows: Rows, predictions: Predictions) -> Answered:
        """Count the predictions and return them, or raise ApiError if the model does not have all of them."""
        if isinstance(predictions, Columns):
            if not predictions.finite:
                raise _not_finite()
            self._metrics.count_table(rows, predictions)  # type: ignore[arg-type]  # columns answer a table
            return predictions
        assert not isinstance(rows, Mixed)
        counted = []
        for row, prediction in zip(rows, predictions, strict=True):
            if prediction is None:
                raise _not_finite()
            self._metrics.count_row(row, prediction)
            counted.append(prediction)
        return counted

    def _refusal(self, error: Exception) -> Exception:
        """Return an error that is the request's in the terms of the API, and any other as it is."""
        return self.rejected(error) if isinstance(error, ApiError) else error

    def rejected(self, error: ApiError) -> ApiError:
        """Count an error that is the request's, and return it in the terms of the API."""
        self._metrics.count_rejection(error.code)
        return self._codec.refusal(error)


def _not_finite() -> ApiError:
    return invalid("no_answer", "The model has no finite answer for these values.")


def _no_answer(error: RefusedError, rows: int) -> ApiError:
    """Return the error for a value that is a possible one, but not for this model."""
    places = [*([str(error.row)] if rows > 1 else []), *([error.field] if error.field else [])]
    detail = Detail(field=".".join(places) or "body", reason=f"The model refuses it: {error.reason}")
    return invalid("no_answer", "The model has no answer for these values.", detail)
