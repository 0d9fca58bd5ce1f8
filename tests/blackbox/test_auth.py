"""HTTP Basic authentication: which requests are accepted."""

from __future__ import annotations

import pytest

from tests.blackbox.gateway import Gateway, is_error

PROTECTED = ["/docs", "/docs/swagger-ui.css", "/openapi.json"]


def test_without_a_password_nobody_gets_in(gateway: Gateway) -> None:
    response = gateway.predict(auth=None)
    assert is_error(response, 401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Basic realm=")
    assert "x-served-by" not in response.headers


def test_a_wrong_password_is_refused(gateway: Gateway) -> None:
    user, password = gateway.auth
    for wrong in (password + "x", password[:-1], password.swapcase(), "", "admin"):
        assert is_error(gateway.predict(auth=(user, wrong)), 401, "unauthorized")


def test_a_wrong_user_is_refused(gateway: Gateway) -> None:
    user, password = gateway.auth
    for wrong in (user + "x", user.upper(), "", "admin"):
        assert is_error(gateway.predict(auth=(wrong, password)), 401, "unauthorized")


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Bearer abc", "Basic OnBhc3M=", "x" * 2000])
def test_a_garbled_login_is_refused(gateway: Gateway, header: str) -> None:
    response = gateway.predict(auth=None, headers={"Authorization": header})
    assert is_error(response, 401, "unauthorized")


def test_the_right_password_opens(gateway: Gateway) -> None:
    assert gateway.predict().status_code == 200


@pytest.mark.parametrize("path", PROTECTED)
def test_the_documentation_is_for_users_only(gateway: Gateway, path: str) -> None:
    assert is_error(gateway.client.get(path), 401, "unauthorized")
    assert gateway.client.get(path, auth=gateway.auth).status_code == 200


def test_without_a_password_the_method_is_not_even_looked_at(gateway: Gateway) -> None:
    assert is_error(gateway.predict(method="GET", auth=None), 401, "unauthorized")
