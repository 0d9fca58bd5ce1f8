"""What one test deploys the next ones find; the last of all gives the host back what its inventory names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operator import deploy
from tests.ordered import put_in_order

# The matrix before the models that bring an environment: it asks the release's own interpreter.
ORDER = ["deploy", "matrix", "environments", "runbooks"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files of this folder."""
    put_in_order(items, Path(__file__).parent, ORDER)


@pytest.fixture(scope="package", autouse=True)
def default_at_the_end(inventory: str) -> Iterator[None]:
    """Deploy it once, after all files of this folder."""
    yield
    done = deploy(inventory)
    assert done.returncode == 0, done.stdout
