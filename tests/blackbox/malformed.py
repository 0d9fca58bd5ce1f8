"""Requests that are no proper HTTP, and what they are answered with."""

from __future__ import annotations

import ssl

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset

HOST = b"Host: HOST\r\nConnection: close\r\n"
LONG = b"a" * 9000
BAD_REQUEST, NOTHING = (400, "bad_request"), (404, "not_found")
TOO_LONG, TOO_LARGE = (414, "uri_too_long"), (431, "headers_too_large")
# Over TLS; HOST is a name of ours.
HTTP_1 = {
    "garbage": (b"GARBAGE\r\n\r\n", BAD_REQUEST),
    "every byte": (bytes(range(256)), BAD_REQUEST),
    "a method in lower case": (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "a method with a control byte": (b"G\x01T / HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "a method nobody knows": (b"FROB / HTTP/1.1\r\n" + HOST + b"\r\n", NOTHING),
    "a method as long as a book": (LONG.upper() + b" / HTTP/1.1\r\n" + HOST + b"\r\n", TOO_LONG),
    "TRACE": (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", (405, "method_not_allowed")),
    "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "a control byte in the path": (b"GET /a\x01b HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "NUL in the path": (b"GET /a\x00b HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "NUL encoded in the path": (b"GET /a%00b HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "0xff in the path": (b"GET /a\xffb HTTP/1.1\r\n" + HOST + b"\r\n", NOTHING),
    "a broken escape in the path": (b"GET /a%zz HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "a space in the path": (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "a path upwards": (b"GET /../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "a path too long": (b"GET /" + LONG + b" HTTP/1.1\r\n" + HOST + b"\r\n", TOO_LONG),
    "a version of the future": (b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", (505, "http_version_not_supported")),
    "a version that is none": (b"GET / HTTP/1.x\r\n" + HOST + b"\r\n", BAD_REQUEST),
    "no host": (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", BAD_REQUEST),
    "an empty host": (b"GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", BAD_REQUEST),
    "a slash in the host": (b"GET / HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n", BAD_REQUEST),
    "a control byte in the host": (b"GET / HTTP/1.1\r\nHost: a\x01b\r\nConnection: close\r\n\r\n", BAD_REQUEST),
    "two hosts": (b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", BAD_REQUEST),
    "NUL in a header": (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n", BAD_REQUEST),
    "a control byte in a header's name": (b"GET / HTTP/1.1\r\n" + HOST + b"X\x01: a\r\n\r\n", BAD_REQUEST),
    "CR in a header": (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n", BAD_REQUEST),
    "a control byte in a header": (b"GET /x HTTP/1.1\r\n" + HOST + b"X: a\x01b\r\n\r\n", NOTHING),
    "a space before the colon": (b"GET / HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n", BAD_REQUEST),
    "a header too long": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + LONG + b"\r\n\r\n", TOO_LARGE),
    "too many headers": (b"GET / HTTP/1.1\r\n" + HOST + (b"X: " + LONG[:4000] + b"\r\n") * 12 + b"\r\n", TOO_LARGE),
    "an unknown encoding": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
        (501, "not_implemented"),
    ),
    "two lengths": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na", BAD_REQUEST),
    "a length and chunks": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        BAD_REQUEST,
    ),
    "chunks in HTTP/1.0": (
        b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD_REQUEST,
    ),
    "a length that is none": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: abc\r\n\r\n", BAD_REQUEST),
    "a negative length": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", BAD_REQUEST),
}
# Over HTTP/2; what is no request at all ends the connection, and its GOAWAY or RST_STREAM is the answer.
PSEUDO = [(b":method", b"GET"), (b":path", b"/nothing"), (b":scheme", b"https"), (b":authority", b"HOST")]
METHOD, PATH, SCHEME, AUTHORITY = PSEUDO
HTTP_2: dict[str, tuple[list[tuple[bytes, bytes]], tuple[int, str] | None]] = {
    "no path": ([METHOD, SCHEME, AUTHORITY], BAD_REQUEST),
    "no method": ([PATH, SCHEME, AUTHORITY], BAD_REQUEST),
    "no scheme": ([METHOD, PATH, AUTHORITY], BAD_REQUEST),
    "no authority": ([METHOD, PATH, SCHEME], BAD_REQUEST),
    "a bad authority before the path": ([(b":authority", b"a/b"), METHOD, PATH, SCHEME], BAD_REQUEST),
    "a control byte in the authority": ([METHOD, PATH, SCHEME, (b":authority", b"a\x01b")], BAD_REQUEST),
    "a bad scheme": ([METHOD, PATH, (b":scheme", b"ht\x01tp"), AUTHORITY], BAD_REQUEST),
    "an empty path": ([METHOD, (b":path", b""), SCHEME, AUTHORITY], BAD_REQUEST),
    "a newline in the path": ([METHOD, (b":path", b"/a\nb"), SCHEME, AUTHORITY], BAD_REQUEST),
    "NUL in the path": ([METHOD, (b":path", b"/a\x00b"), SCHEME, AUTHORITY], BAD_REQUEST),
    "0xff in the path": ([METHOD, (b":path", b"/a\xffb"), SCHEME, AUTHORITY], NOTHING),
    "a method in lower case": ([(b":method", b"get"), PATH, SCHEME, AUTHORITY], BAD_REQUEST),
    "a method nobody knows": ([(b":method", b"FROB"), PATH, SCHEME, AUTHORITY], NOTHING),
    "a header in upper case": ([*PSEUDO, (b"X-Upper", b"a")], BAD_REQUEST),
    "a newline in a header": ([*PSEUDO, (b"x", b"a\nb")], BAD_REQUEST),
    "NUL in a header": ([*PSEUDO, (b"x", b"a\x00b")], BAD_REQUEST),
    "a space in a header's name": ([*PSEUDO, (b"x y", b"a")], BAD_REQUEST),
    "a pseudo header among the others": ([*PSEUDO, (b"x", b"a"), (b":path", b"/x")], BAD_REQUEST),
    "two paths": ([*PSEUDO, (b":path", b"/x")], BAD_REQUEST),
    "a pseudo header nobody knows": ([*PSEUDO, (b":frob", b"x")], BAD_REQUEST),
    "two hosts": ([*PSEUDO, (b"host", b"HOST"), (b"host", b"HOST")], BAD_REQUEST),
    "a length that is none": ([*PSEUDO, (b"content-length", b"abc")], BAD_REQUEST),
    "a length, and no body": ([(b":method", b"POST"), PATH, SCHEME, AUTHORITY, (b"content-length", b"9")], BAD_REQUEST),
    "a name of somebody else": ([METHOD, PATH, SCHEME, (b":authority", b"evil.example")], None),
    "a header without a name": ([*PSEUDO, (b"", b"a")], None),
    "a header too long": ([*PSEUDO, (b"x", b"Zz~9" * 4000)], None),
    "a path too long": ([METHOD, (b":path", b"/" + b"Zz~9" * 4000), SCHEME, AUTHORITY], None),
}
# nginx 1.22 (Debian 12) resets the stream of these.
RESET_BY_DEBIAN_12 = {
    "a newline in the path",
    "NUL in the path",
    "a header in upper case",
    "a newline in a header",
    "NUL in a header",
    "a space in a header's name",
}


def ask_http2(
    connection: ssl.SSLSocket, headers: list[tuple[bytes, bytes]]
) -> tuple[int, dict[str, str], bytes] | None:
    """Send headers as they are; return the answer, or none where the stream or the connection was ended instead."""
    http2 = H2Connection(H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
    http2.initiate_connection()
    http2.send_headers(1, headers, end_stream=True)
    connection.sendall(http2.data_to_send())
    found: dict[str, str] = {}
    body = b""
    while data := connection.recv(65536):
        for event in http2.receive_data(data):
            if isinstance(event, ResponseReceived):
                found = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, DataReceived):
                body += event.data
            elif isinstance(event, StreamEnded):
                return int(found.pop(":status")), found, body
            elif isinstance(event, StreamReset | ConnectionTerminated):
                return None
    raise AssertionError("the connection was closed without a word")
