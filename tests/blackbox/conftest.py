"""Tests from outside: HTTP against whatever FORTRESS_* names, without access to the host."""

from __future__ import annotations

import os

import pytest

from tests.blackbox.gateway import Gateway


@pytest.fixture(scope="session")
def gateway() -> Gateway:
    if "FORTRESS_URL" not in os.environ:
        pytest.fail('FORTRESS_URL is not set: there is nothing to test. Type: eval "$(make -s env)"')
    return Gateway()
