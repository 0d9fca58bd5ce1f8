"""Tests that wear a site out: without its rate limit, by each of its engines, and none of its instances may notice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.blackbox.gateway import IRIS, Gateway
from tests.robust.site_under_test import Instance, Site

ENGINES = os.environ.get("ROBUST_ENGINES", "onnx,sklearn").split(",")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Come last: what is changed here for a while is put right again at the end of the session."""
    items.sort(key=lambda item: Path(__file__).parent in item.path.parents)


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The site as its inventory describes it, put right again at the end if something was changed here."""
    if "FORTRESS_URL" not in os.environ or not hasattr(request.config, "fortress_inventory"):
        pytest.fail("These tests need FORTRESS_ENV_FILE and --ansible-inventory: docs/testing.md says how.")
    site = Site(request.config)
    yield site
    site.restore()


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    """A client with the password. Its patience ends before the gateway's: what hangs shows, no other instance helps."""
    gateway = Gateway()
    with httpx.Client(base_url=gateway.url, verify=gateway.trust(), auth=gateway.auth, timeout=4) as client:
        yield client


@pytest.fixture(scope="session", autouse=True, params=ENGINES)
def engine(request: pytest.FixtureRequest, site: Site, client: httpx.Client) -> str:
    """Serve by this engine, without the limit."""
    name: str = request.param
    limited = any(client.post("/predict", json=IRIS).status_code == 503 for _ in range(30))
    other = any(instance.engine != name for instance in site.instances())
    if limited or other:
        # An engine that is named is a deployment, also of what is served already.
        site.converge(nginx_rate_limit_enabled=False, **({"iris_api_engine": name} if other else {}))
    return name


@pytest.fixture(autouse=True)
def unharmed(site: Site, engine: str) -> Iterator[list[Instance]]:
    """All instances; after the test they are the same processes, have answered no 5xx and logged no error."""
    before = site.instances()
    assert {instance.engine for instance in before} == {engine}
    logged = site.errors_logged()
    failed = {instance.name: site.answered_5xx(instance) for instance in before}
    yield before
    assert site.instances() == before
    assert {instance.name: site.answered_5xx(instance) for instance in before} == failed
    assert site.errors_logged()[len(logged) :] == []
