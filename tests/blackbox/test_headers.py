"""Headers that must be on every answer, and those that must be on none."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.blackbox.gateway import Gateway

ANSWERS: dict[str, Callable[[Gateway], httpx.Response]] = {
    "200": lambda gateway: gateway.predict(),
    "200 open": lambda gateway: gateway.client.get("/health"),
    "401": lambda gateway: gateway.predict(auth=None),
    "404": lambda gateway: gateway.client.get("/nothing"),
    "405": lambda gateway: gateway.predict(method="GET"),
    "413": lambda gateway: gateway.predict(content=b" " * 64_000),
    "422": lambda gateway: gateway.predict({}),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_answer_carries_the_security_headers_once(gateway: Gateway, kind: str) -> None:
    response = ANSWERS[kind](gateway)
    assert str(response.status_code) == kind.split()[0]
    for name, value in {
        "strict-transport-security": "max-age=63072000",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "same-origin",
    }.items():
        assert response.headers.get_list(name) == [value], name
    assert len(response.headers.get_list("x-request-id")) == 1


def test_no_answer_tells_versions(gateway: Gateway) -> None:
    for answer in ANSWERS.values():
        headers = answer(gateway).headers
        assert headers["server"] == "nginx"
        assert "x-powered-by" not in headers


def test_plain_http_promises_nothing_about_https(gateway: Gateway) -> None:
    assert "strict-transport-security" not in httpx.get(f"http://{gateway.host}/").headers


def test_the_documentation_may_load_its_own_files_and_nothing_else(gateway: Gateway) -> None:
    page = gateway.client.get("/docs", auth=gateway.auth)
    [policy] = page.headers.get_list("content-security-policy")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "http" not in policy
    assert "<script>" not in page.text
