"""Bodies that came compressed: what `Content-Encoding` says."""

import zlib

from iris_api.predict.errors import ApiError, Detail, invalid, unsupported
from iris_api.predict.limits import Limits
from iris_api.predict.steps import Steps

# zlib's number for a window of the greatest size, in gzip's format.
_GZIP = 31
# Bytes that are unpacked at a time.
_PIECE = 1 << 17


def unpacked(encoding: bytes, body: bytes, limits: Limits) -> Steps[bytes]:
    """Return a body as it was before it was compressed; raise ApiError for one that is not gzip, or too long then.

    No more than what a body may have is unpacked, whatever the rest of it would become.
    """
    if encoding.strip().lower() not in (b"gzip", b"x-gzip"):
        raise unsupported("The body may be compressed by gzip alone: Content-Encoding: gzip.")
    whole = bytearray()
    while body:
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            try:
                part = member.decompress(body, min(_PIECE, limits.body_bytes + 1 - len(whole)))
            except zlib.error:
                raise _damaged() from None
            whole += part
            body = member.unconsumed_tail
            limits.check_body(len(whole))
            if not part and not body and not member.eof:
                raise _damaged()
            yield
        # gzip lets several files follow each other.
        body = member.unused_data
    return bytes(whole)


def _damaged() -> ApiError:
    detail = Detail(field="body", reason="it is no whole gzip file, although Content-Encoding says so")
    return invalid("invalid_input", "The body cannot be unpacked.", detail)
