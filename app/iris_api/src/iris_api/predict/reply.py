"""Headers of a request, and the answer to one that got its predictions, as bytes."""

from collections.abc import Sequence
from typing import NamedTuple, Self

Headers = Sequence[tuple[bytes, bytes]]
"""Names, in small letters, and values."""
JSON = b"application/json"


class Answer(NamedTuple):
    """The answer to a request that got its predictions; its status is 200."""

    headers: Headers
    body: bytes

    @classmethod
    def of(cls, body: bytes, media_type: bytes = JSON, *headers: tuple[bytes, bytes]) -> Self:
        """Return an answer with the headers that every one has, length and type, and with further ones."""
        return cls(((b"content-length", b"%d" % len(body)), (b"content-type", media_type), *headers), body)


def header(headers: Headers, name: bytes) -> bytes:
    """Return the value of the first header of a name in small letters, or nothing."""
    for key, value in headers:
        if key == name:
            return value
    return b""
