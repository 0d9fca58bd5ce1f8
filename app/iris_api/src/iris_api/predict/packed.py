"""Bodies that came compressed: what `Content-Encoding` says."""

import zlib

from iris_api.predict.errors import ApiError, Detail, invalid, unsupported
from iris_api.predict.limits import Limits
from iris_api.predict.steps import Steps

# zlib's number for a window of the greatest size, in gzip's format.
_GZIP = 31
# Bytes that are unpacked at a time, and that are given for it.
_PIECE = 1 << 17
_GIVEN = 1 << 14


def unpacked(encoding: bytes, body: bytes, limits: Limits) -> Steps[bytes]:
    """Return a body as it was before it was compressed; raise ApiError for one that is not gzip, or too long then.

    No more than what a body may have is unpacked, whatever the rest of it would become.
    """
    if encoding.strip().lower() not in (b"gzip", b"x-gzip"):
        raise unsupported("The body may be compressed by gzip alone: Content-Encoding: gzip.")
    whole = bytearray()
    place = 0
    # gzip lets several files follow each other.
    while place < len(body):
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            # All that is left would be copied for each of them, and a file may be of 20 bytes.
            given = body[place : place + _GIVEN]
            try:
                part = member.decompress(given, min(_PIECE, limits.body_bytes + 1 - len(whole)))
            except zlib.error:
                raise _damaged() from None
            whole += part
            place += len(given) - len(member.unused_data if member.eof else member.unconsumed_tail)
            limits.check_body(len(whole))
            if not part and not given and not member.eof:
                raise _damaged()
            yield
    return bytes(whole)


def _damaged() -> ApiError:
    detail = Detail(field="body", reason="it is no whole gzip file, although Content-Encoding says so")
    return invalid("invalid_input", "The body cannot be unpacked.", detail)
