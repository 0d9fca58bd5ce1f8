"""The one shape of every error that this API answers with, but for the dialects that have another."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from iris_api.predict.errors import ApiError, Detail

# What 503 means as the answer to a prediction.
BUSY = "Too many rows wait already (Retry-After says for how long), or there was no answer within the deadline."


class ErrorBody(BaseModel):
    """Body of every answer that is not a success."""

    error: str = Field(description="What is wrong, as a sentence.")
    code: str = Field(description="The same for programs; does not change.")
    request_id: str = Field(description="Under which the request is found in the logs.")
    details: list[Detail] | None = Field(None, description="Only with status 422: which fields, and why.")


def error_response(
    request_id: str,
    status: int,
    code: str,
    message: str,
    *,
    details: list[Detail] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """Return the answer that tells of an error."""
    body = ErrorBody(error=message, code=code, request_id=request_id, details=details)
    return JSONResponse(body.model_dump(exclude_none=True), status, headers)


def api_error_response(request_id: str, error: ApiError) -> JSONResponse:
    """Return the answer to a request that gets no prediction."""
    if error.body is not None:
        return JSONResponse({**error.body, "request_id": request_id}, error.status, error.headers)
    return error_response(
        request_id, error.status, error.code, error.message, details=error.details, headers=error.headers
    )


def install(app: FastAPI) -> None:
    """Register the handlers by which an application answers errors in this shape.

    Exceptions that nobody expected are answered in `middleware`, which stands outside of everything that may raise one.
    """

    async def on_api_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return api_error_response(request.state.request_id, error)

    async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        message = {
            HTTPStatus.NOT_FOUND: "There is nothing at this path.",
            HTTPStatus.METHOD_NOT_ALLOWED: "This path does not take this method; the Allow header says which it takes.",
        }.get(status, f"{status.phrase}.")
        code = status.phrase.lower().replace(" ", "_")
        headers = dict(error.headers or {})
        if allowed := headers.get("Allow"):
            methods = set(allowed.split(", "))
            # What answers GET answers HEAD too, by way of `middleware`.
            headers["Allow"] = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
        return error_response(request.state.request_id, status, code, message, headers=headers)

    async def on_unexpected(request: Request, error: Exception) -> JSONResponse:
        # Without this Starlette would answer in plain text before `middleware` sees the exception.
        raise error

    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Exception, on_unexpected)
