"""Why a request gets no prediction, in the terms of HTTP but without any web framework.

A body or a row too many is not here: see `limits`.
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field


class Detail(BaseModel):
    """What is wrong with one part of the body."""

    field: str = Field(description="Name of the field, or `body` for the body as a whole.")
    reason: str


class ApiError(Exception):
    """An error to answer a request with."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        details: list[Detail] | None = None,
        headers: dict[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        """The same for programs: it does not change. See `metrics.REASONS`."""
        self.message = message
        """A sentence for people."""
        self.details = details
        self.headers = headers
        """To send beside those that every answer has."""
        self.body = body
        """What the answer holds, beside the request's id, in an API whose errors have another shape than ours."""


def invalid(code: str, message: str, *details: Detail) -> ApiError:
    """Return the error for a body that is not what it must be: 422."""
    return ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, code, message, list(details))


def not_json() -> ApiError:
    """Return the error for a body that is not declared as JSON: 415."""
    return unsupported("The body must be JSON, with the header Content-Type: application/json.")


def unsupported(message: str) -> ApiError:
    """Return the error for a body that is declared as what is not read here: 415."""
    return ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)


def overloaded(seconds: float) -> ApiError:
    """Return the error for a request that would have to wait too long: 503, to be tried again after some seconds."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "overloaded",
        "Too many rows wait for an answer already.",
        headers={"Retry-After": str(max(1, math.ceil(seconds)))},
    )


def too_many_bytes() -> ApiError:
    """Return the error for a large body while as much is on its way as may be: 503."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "overloaded",
        "Too many large bodies are on their way already.",
        headers={"Retry-After": "1"},
    )


def deadline_exceeded(seconds: float) -> ApiError:
    """Return the error for a request that got no answer within some seconds: 503. To ask again would take as long."""
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "deadline_exceeded",
        f"There was no answer within {seconds:g} s. Send fewer rows at once.",
    )
