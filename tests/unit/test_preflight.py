"""Settings that a role refuses before it changes anything: a daemon would not start by them, or would ignore them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

GATEWAY: dict[str, Any] = {
    "nginx_basic_auth_users": [{"name": "iris", "password": "kT9xWq2LmZ7vRb4NsY8cDp"}],
    "nginx_basic_auth_salt": "a-secret-of-this-site",
}


@pytest.mark.parametrize(
    "setting", [{"nginx_log_file_size_mb": 0}, {"nginx_log_file_size_mb": 9}, {"nginx_log_files": 0}]
)
def test_files_in_which_nginx_could_write_nothing_are_refused(
    preflight: Callable[..., str], setting: dict[str, int]
) -> None:
    """With a limit of 0 it can't write its own pid and does not start again."""
    said = preflight("nginx", **GATEWAY, **setting)
    assert "nginx_log_file_size_mb" in said
    assert "at least 10" in said
