"""What one request may ask for: bytes, rows, values and time. Whatever is answered 413 is refused here."""

from dataclasses import dataclass
from http import HTTPStatus

from iris_api.predict.errors import ApiError
from iris_api.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a request."""

    body_bytes: int
    rows: int
    values: int
    """Rows x features."""

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Return the bounds that the settings of an instance name."""
        return cls(settings.max_body_bytes, settings.max_rows, settings.max_values)

    def check_body(self, length: int) -> None:
        """Raise ApiError for a body of more bytes than it may have."""
        if length > self.body_bytes:
            raise _too_large(
                "body_too_large", f"The body is longer than the {self.body_bytes} bytes that one request may have."
            )

    def check_rows(self, rows: int, width: int) -> None:
        """Raise ApiError for more rows of so many values than a request may have."""
        if rows > self.rows:
            raise _too_large("too_many_rows", f"{rows} rows are more than the {self.rows} that one request may have.")
        if rows * width > self.values:
            raise _too_large(
                "too_many_values",
                f"{rows} rows of {width} values are more than the {self.values} values that one request may have. "
                f"Send at most {self.values // width} rows at once.",
            )


def too_much_work(rows: int, seconds: float, deadline: float, most_rows: int) -> ApiError:
    """Return the error for rows that are predicted to take more seconds than there are until the deadline.

    `most_rows` is how many would be answered in time. Where a single row takes too long no request is small enough: the
    answer is 503.
    """
    predicted = f"predicted to take {seconds:.1f} s, but an answer must come within {deadline:g} s"
    if rows == 1:
        return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "deadline_exceeded", f"A row is {predicted}.")
    return _too_large(
        "too_much_work", f"{rows} rows are {predicted}. Send at most {min(most_rows, rows - 1)} rows at once."
    )


def _too_large(code: str, message: str) -> ApiError:
    return ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, code, message)
