"""Several hosts under a steady load: one is lost, one is taken out and put back, a gateway comes after a rollback."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from tests.faults.traffic import Record, Traffic
from tests.operator import make
from tests.several import Cluster, localvm

pytestmark = pytest.mark.skipif(os.environ.get("CLUSTER") != "whole", reason="CLUSTER=whole, which `make faults` sets")

IRIS = {"petal_length": 6.5, "petal_width": 0.8}
# fortress_request_deadline and a second longer is the timeout of what went to a host that was lost meanwhile; then as
# long as it takes to connect to those of its instances that are asked next.
SLOWEST = 5 + 3


@pytest.fixture
def traffic(cluster: Cluster, cases: Path) -> Callable[[], Traffic]:
    """Give a context in which clients of every kind ask the first gateway."""
    gateway = cluster.hosts[cluster.groups["gateway"][0]]
    return lambda: Traffic(gateway, cases, os.environ["FORTRESS_PASSWORD"], 2)


@pytest.fixture
def without(cluster: Cluster, inventory: str, tmp_path: Path) -> Callable[[str], str]:
    """Return an inventory of the same site in which a host has no role."""

    def without(host: str) -> str:
        folder = Path(shutil.copytree(inventory, tmp_path / f"without-{host}", ignore=lambda *_: ["secrets"]))
        secrets = Path(inventory, "secrets").absolute()
        (folder / "secrets").symlink_to(secrets)
        # Or the settings for the clients would name files in this folder, which does not stay.
        with (folder / "group_vars" / "all.yml").open("a") as settings:
            settings.write(f"fortress_secrets_dir: {secrets}\n")
        hosts = yaml.safe_load((folder / "hosts.yml").read_text())
        del hosts["all"]["hosts"][host]
        for group in hosts["all"]["children"].values():
            group["hosts"].pop(host, None)
        (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
        return str(folder)

    return without


def converge(inventory: str) -> None:
    done = make("make converge", inventory)
    assert done.returncode == 0, done.stdout


def answering(traffic: Traffic) -> Counter[str]:
    """Return how many requests each host answered; one that is alone has no name in its answers."""
    return Counter(served_by.partition(".")[2] for _, _, served_by in traffic.answered)


def test_a_host_that_serves_loses_its_power(cluster: Cluster, traffic: Callable[[], Traffic], record: Record) -> None:
    lost, other = cluster.groups["api"]
    with traffic() as load:
        load.strike()
        localvm("cut", lost)
        try:
            time.sleep(15)
        finally:
            localvm("start", lost)
        time.sleep(10)
    assert set(answering(load)) == {lost, other}
    load.assert_late_at_most(SLOWEST)
    record("one of two API hosts loses its power", load, load.recovered_after(), "late, and asked again by nginx")


def test_a_host_is_taken_out_and_put_back(
    cluster: Cluster, traffic: Callable[[], Traffic], without: Callable[[str], str], inventory: str, record: Record
) -> None:
    """What one does to grow: its first converge with the host asks it, and nobody notices."""
    *others, host = cluster.groups["api"]
    before = without(host)
    with traffic() as load:
        converge(before)
    load.assert_nothing_failed()
    record("an API host is taken out of the inventory", load)
    with traffic() as load:
        converge(inventory)
    load.assert_nothing_failed()
    assert set(answering(load)) == {"", host, *others}
    record("an API host is added", load)


def test_a_gateway_that_is_new_after_a_rollback_is_let_in(
    cluster: Cluster, clients: dict[str, httpx.Client], without: Callable[[str], str], inventory: str
) -> None:
    """The deployment that is rolled back to is from before it: whom a host lets in is no part of a deployment."""
    gateway = cluster.groups["gateway"][-1]
    before = without(gateway)
    converge(before)
    assert make("make deploy MODEL=iris-forest", before).returncode == 0
    converge(inventory)
    assert make("make rollback", inventory).returncode == 0
    answers = [clients[gateway].post("/predict", json=IRIS) for _ in range(300)]
    assert Counter(answer.status_code for answer in answers) == {200: 300}
