"""Hosts that serve and are monitored: traffic unlike the training data becomes an alert, as much like it does not."""

from __future__ import annotations

from typing import Any

import pytest
from testinfra.host import Host

from tests.alerts.conftest import Received
from tests.monitored import features_of, now, query, value_in, wait_for

testinfra_hosts = ["ansible://monitoring"]

ROWS = 30_000
# As many as an instance takes: fortress_max_rows.
ROWS_A_REQUEST = 1_000
ALERTS = 'ALERTS{{alertname="FeatureDrift", feature="{}", window="1h"}}'
# The rules are evaluated once a minute, and an alert is pending for two.
EVALUATED, FIRING = 90, 240


@pytest.fixture
def features(host: Host) -> list[dict[str, Any]]:
    return features_of(host)


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


@pytest.fixture(scope="session")
def before() -> dict[str, float]:
    """The index before the first of these tests, and when the second one was over: files of other tests are between."""
    return {}


def test_rows_like_those_of_training_are_answered(
    host: Host, before: dict[str, float], features: list[dict[str, Any]]
) -> None:
    # What others have sent within the hour counts too, also in an earlier run of this test.
    before["index"] = index(host, features[0]["name"])
    send(host, features, list(range(len(features[0]["reference"]["shares"]))))


def test_they_are_no_drift(host: Host, before: dict[str, float], features: list[dict[str, Any]]) -> None:
    name = features[0]["name"]
    rows = f'sum(iris_api:drift_rows:increase1h{{feature="{name}"}}) > {0.9 * ROWS}'
    assert wait_for(lambda: query(host, rows), EVALUATED), "the rows are not counted"
    assert index(host, name) <= max(0.1, before["index"])
    if before["index"] < 0.1:
        assert query(host, ALERTS.format(name)) == []
    before["now"] = now(host)
    send(host, features, [len(features[0]["reference"]["shares"]) - 1])


def test_rows_unlike_them_are_told_as_drift(
    host: Host, received: Received, before: dict[str, float], features: list[dict[str, Any]]
) -> None:
    name = features[0]["name"]
    assert wait_for(lambda: index(host, name) > 0.2, EVALUATED)
    fires = ALERTS.format(name).replace("}", ', alertstate="firing"}')
    assert wait_for(lambda: query(host, fires), FIRING)
    assert wait_for(lambda: received.told("FeatureDrift", "firing", before["now"]), 60)
