"""Every line of the gateway's logs is JSON and belongs to one request, whatever bytes a client sends."""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from testinfra.host import Host

from tests.blackbox.gateway import Gateway, exchange
from tests.blackbox.malformed import HTTP_1, HTTP_2, ask_http2

testinfra_hosts = ["ansible://gateway"]

ACCESS_LOG = "/var/log/nginx/access.log"
# What is no UTF-8: a byte that starts nothing, one that only goes on, more bytes than needed, a surrogate, too large.
INVALID = [b"\xff", b"\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80"]
# And what is cut short.
CUT = [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98"]
VALID = "é€😀 \\\"'{}".encode()
# The name of a user has no colon, and a header has no newline.
FORGING_USER = b'x"}\n{"forged"}\n2026/01/01 00 [emerg] forged\n'
FORGING_AGENT = b'x","status":200} {"forged":true} '


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def written(host: Host) -> Iterator[Any]:
    """Return a function that returns what the access log and the journal of nginx have got since, as decoded lines."""
    size = int(host.run(f"stat --format=%s {ACCESS_LOG}").stdout)
    cursor = host.run("journalctl --lines=1 --show-cursor --quiet").stdout.partition("cursor: ")[2].strip()

    def written() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        time.sleep(1)
        # Bytes would not survive the way here as text.
        raw = host.run(f"tail --bytes=+{size + 1} {ACCESS_LOG} | base64 --wrap=0").stdout
        log = base64.b64decode(raw).decode()  # nothing but UTF-8
        # All of it: systemd 252 leaves out the first entry after a cursor where it is asked for one unit.
        journal = host.run(f"journalctl --output=json --after-cursor='{cursor}' | base64 --wrap=0").stdout
        lines = log.split("\n")
        assert lines.pop() == ""
        entries = [json.loads(line) for line in base64.b64decode(journal).decode().splitlines()]
        return [json.loads(line) for line in lines], [
            entry for entry in entries if entry.get("_SYSTEMD_UNIT") == "nginx.service"
        ]

    yield written


def request(
    gateway: Gateway, path: bytes = b"/nothing", user: bytes = b"", agent: bytes = b"", *, tls: bool = True
) -> None:
    """Send one request over a connection of its own, with these bytes as they are."""
    login = b"Authorization: Basic " + base64.b64encode(user + b":x") + b"\r\n" if user else b""
    head = b"GET " + path + b" HTTP/1.1\r\nHost: " + gateway.host.encode() + b"\r\nConnection: close\r\n"
    with gateway.connect_tls() if tls else gateway.connect(80) as connection:
        exchange(connection, head + login + b"User-Agent: " + agent + b"\r\n\r\n")


def test_every_byte_in_every_field(gateway: Gateway, written: Any) -> None:
    texts = [bytes([byte]) for byte in range(256)] + INVALID + CUT + [VALID]
    for number, text in enumerate(texts):
        # In the path these are refused, and neither the user nor the agent is read then.
        refused = text <= b" " or text in (b"%", b"\x7f") or b" " in text
        path = b"/nothing" if refused else b"/fuzz-" + text
        request(gateway, path, b"<" + text + b">", b"<" + text + b">", tls=number % 4 != 0)
    log, _ = written()
    log = [entry for entry in log if entry["path"].startswith(("/nothing", "/fuzz-"))]
    assert len(log) == len(texts)
    for text, entry in zip(texts, log, strict=True):
        try:
            kept = f"<{text.decode()}>"
        except UnicodeDecodeError:
            kept = "<..."
            assert entry["path"] == "/fuzz-..."
        # A colon ends the user's name; NUL and the ends of a line end a header, and the request is refused.
        assert entry["user"] == ("<" if text == b":" else kept)
        if text not in (b"\0", b"\r", b"\n"):
            assert entry["user_agent"] == kept


def test_what_is_no_proper_http(gateway: Gateway, written: Any) -> None:
    for message, _ in HTTP_1.values():
        for tls in (True, False):
            with gateway.connect_tls() if tls else gateway.connect(80) as connection:
                exchange(connection, message.replace(b"HOST", gateway.host.encode()))
    for headers, _ in HTTP_2.values():
        with gateway.connect_tls(None, "h2") as connection:
            ask_http2(connection, [(name, value.replace(b"HOST", gateway.host.encode())) for name, value in headers])
    for number in range(256):
        for message in (b"GE%cT /x HTTP/1.1\r\n", b"GET /x HTTP/1%c1\r\n", b"GET /x HTTP/1.1\r\nHost: a%cz\r\n"):
            with gateway.connect(80) as connection:
                exchange(connection, message % number + b"Connection: close\r\n\r\n")
    with gateway.connect_tls() as connection:
        exchange(connection, b"GET /nothing\r\n")
    log, _ = written()
    assert len(log) > 800
    assert all(isinstance(entry["status"], int) for entry in log)


def test_nobody_forges_a_line(gateway: Gateway, host: Host, written: Any) -> None:
    before = host.file("/var/log/nginx/error.log").sha256sum
    for text in (FORGING_USER, b"a\nb", b"a\0b", b"a\rb", b"a\x1b[2Kb", b"a\xffb"):
        gateway.wait(2)
        request(gateway, b"/predict", text)
    request(gateway, b"/nothing", agent=FORGING_AGENT)
    log, journal = written()
    # The monitoring asks meanwhile, as it always does.
    assert not [
        entry for entry in log if "forged" in entry or (entry["status"] not in (401, 404) and entry["route"] != "probe")
    ]
    errors = [entry for entry in journal if entry["SYSLOG_IDENTIFIER"] == "nginx"]
    # Who fails is looked for among the current and the previous passwords; each is one entry that begins as nginx' do.
    assert len(errors) == 12
    for entry in errors:
        message = entry["MESSAGE"]
        text = bytes(message) if isinstance(message, list) else message.encode()
        assert b" [error] " in text.partition(b'"')[0], text
    assert host.file("/var/log/nginx/error.log").sha256sum == before, "bytes of clients are in a file again"


def test_a_previous_password_is_named_only_where_it_was_accepted(gateway: Gateway, written: Any) -> None:
    """Whoever is refused has been asked for it too."""
    trust = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
    for auth in (None, ("iris", "wrong"), gateway.auth):
        gateway.wait(2)
        status = httpx.get(f"{gateway.url}/v2/models/none", auth=auth, verify=trust).status_code
        assert status == (404 if auth == gateway.auth else 401)
    log, _ = written()
    assert [entry["password"] for entry in log if entry["path"] == "/v2/models/none"] == ["", "", ""]
