"""Hosts that serve and are monitored: traffic unlike the training data becomes an alert, as much like it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.host import Host

from tests.alerts.conftest import Received, now, wait_for
from tests.host.test_monitoring import query

testinfra_hosts = ["ansible://monitoring"]

ROWS = 30_000
# As many as an instance takes: fortress_max_rows.
ROWS_A_REQUEST = 1_000
# The rules are evaluated once a minute, and an alert is pending for two.
EVALUATED, FIRING = 90, 240


@pytest.fixture
def features(host: Host) -> list[dict[str, Any]]:
    """The features of the model that serves on this host: numbers, of which none is ever missing."""
    manifest = host.file("/opt/iris-api/current/model/manifest.json")
    if not manifest.exists:
        pytest.skip("the instances are on other hosts")
    found: list[dict[str, Any]] = json.loads(manifest.content_string)["features"]
    assert all(feature.get("reference") and not feature.get("nullable") for feature in found)
    return found


def value_in(feature: dict[str, Any], number: int) -> float:
    """Return a value in the middle of a bin."""
    edges = [feature["training_minimum"], *feature["reference"]["edges"], feature["training_maximum"]]
    return float((edges[number] + edges[number + 1]) / 2)


def send(host: Host, features: list[dict[str, Any]], bins: list[int]) -> None:
    """Send ROWS rows to an instance, whose values are in these bins in turn."""
    names = ",".join(feature["name"] for feature in features)
    rows = [",".join(f"{value_in(feature, number):.6g}" for feature in features) for number in bins]
    some = "\\n".join((rows * ROWS_A_REQUEST)[:ROWS_A_REQUEST])
    host.check_output(
        f"printf '{names}\\n{some}\\n' >/run/fortress-rows.csv; for time in $(seq {ROWS // ROWS_A_REQUEST}); do "
        "curl --silent --show-error --fail --output /dev/null --header 'Content-Type: text/csv' "
        "--data-binary @/run/fortress-rows.csv http://127.0.0.1:8001/predict || exit; done; rm /run/fortress-rows.csv"
    )


def index(host: Host, feature: str) -> float:
    found = query(host, f'iris_api:drift_psi{{feature="{feature}", window="1h"}}')
    return float(found[0]["value"][1]) if found else 0.0


def test_shifted_traffic_fires_and_as_much_unshifted_traffic_does_not(
    host: Host, received: Received, features: list[dict[str, Any]]
) -> None:
    name = features[0]["name"]
    alerts = f'ALERTS{{alertname="FeatureDrift", feature="{name}", window="1h"}}'
    # What others have sent within the hour counts too, also in an earlier run of this test.
    before = index(host, name)
    send(host, features, list(range(len(features[0]["reference"]["shares"]))))
    rows = f'sum(iris_api:drift_rows:increase1h{{feature="{name}"}}) > {0.9 * ROWS}'
    assert wait_for(lambda: query(host, rows), EVALUATED), "the rows are not counted"
    assert index(host, name) <= max(0.1, before)
    if before < 0.1:
        assert query(host, alerts) == []

    begun = now(host)
    send(host, features, [len(features[0]["reference"]["shares"]) - 1])
    assert wait_for(lambda: index(host, name) > 0.2, EVALUATED)
    assert wait_for(lambda: query(host, alerts.replace("}", ', alertstate="firing"}')), FIRING)
    assert wait_for(lambda: received.told("FeatureDrift", "firing", begun), 60)
