"""Five hosts: what the README and docs/operations.md say of several holds on real ones, of both releases."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.operator import make
from tests.runbooks.page import written
from tests.several import CONTROL, OUTSIDER, Cluster, localvm

IRIS = {"petal_length": 6.5, "petal_width": 0.8}
INSTANCES = (1, 2, 3)
PORTS = (8001, 8002, 8003)


def wait_for(true: Callable[[], Any], seconds: float) -> Any:
    """Wait until something is true; return it, or what it was at last."""
    deadline = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def everybody(cluster: Cluster) -> set[str]:
    """Return every instance of every host, as an answer names it."""
    return {f"iris-api@{number}.{host}" for host in cluster.groups["api"] for number in INSTANCES}


def test_300_requests_of_each_gateway_spread_over_the_instances_of_all_hosts(
    cluster: Cluster, clients: dict[str, httpx.Client]
) -> None:
    for gateway, client in clients.items():
        answers = [client.post("/predict", json=IRIS) for _ in range(300)]
        assert {answer.status_code for answer in answers} == {200}, gateway
        served = Counter(answer.headers["x-served-by"] for answer in answers)
        # The monitoring's probe takes a turn of its own every 15 s.
        assert served == dict.fromkeys(everybody(cluster), pytest.approx(50, abs=3)), gateway


@pytest.fixture
def all_doors(cluster: Cluster) -> Iterator[list[tuple[str, int]]]:
    """Every port of ours; where Grafana listens there is something, whether or not it is installed."""
    [monitor] = cluster.groups["monitoring"]
    unit = "stands-for-grafana"
    cluster.hosts[monitor].run(f"systemd-run --unit={unit} --collect python3 -m http.server 3000")
    cluster.hosts[monitor].run_expect([0], "timeout 20 sh -c 'until ss -Hltn | grep -q :3000; do sleep 0.1; done'")
    yield [
        *((host, port) for host in cluster.groups["api"] for port in PORTS),
        *((host, 9113) for host in cluster.groups["gateway"]),
        *((host, 3903) for host in cluster.groups["gateway"]),
        *((host, 9100) for host in cluster.addresses),
        (monitor, 9090),
        (monitor, 9093),
        (monitor, 3000),
    ]
    cluster.hosts[monitor].run(f"systemctl stop {unit}")


def test_a_port_is_open_to_whom_it_is_for(cluster: Cluster, all_doors: list[tuple[str, int]]) -> None:
    """From each host, from the control node, which is trusted, and from an outsider."""
    group = cluster.groups

    def expected(source: str) -> set[tuple[str, int]]:
        to_instances = {door for door in all_doors if door[1] in PORTS}
        to_exporters = {door for door in all_doors if door[1] in (9100, 9113)}
        to_mtail = {door for door in all_doors if door[1] == 3903}
        to_grafana = {door for door in all_doors if door[1] == 3000}
        found = {door for door in all_doors if door[0] == source}
        if source in group["gateway"]:
            found |= to_instances | to_grafana
        if source in group["monitoring"]:
            found |= to_instances | to_exporters | to_mtail
        if source == CONTROL:
            found |= set(all_doors) - to_instances - to_mtail
        return found

    sources = [*cluster.addresses, CONTROL, OUTSIDER]
    assert {source: cluster.open_from(source, all_doors) for source in sources} == {
        source: expected(source) for source in sources
    }


def test_prometheus_reaches_all_and_takes_no_two_for_one(cluster: Cluster) -> None:
    [monitor] = cluster.groups["monitoring"]

    def up() -> set[tuple[str, str, str]]:
        told = cluster.run(monitor, ["curl", "--silent", "http://127.0.0.1:9090/api/v1/targets?state=active"])
        targets = [target for target in json.loads(told)["data"]["activeTargets"] if target["health"] == "up"]
        return {tuple(target["labels"].get(name, "") for name in ("job", "instance", "host")) for target in targets}

    expected = {(name, name, "") for name in ("prometheus", "alertmanager")}
    expected |= {("nginx", host, "") for host in cluster.groups["gateway"]}
    expected |= {(job, host, "") for job in ("gateway", "probe") for host in cluster.groups["gateway"]}
    expected |= {("node", host, "") for host in cluster.addresses}
    expected |= {("iris-api", f"iris-api@{n}", host) for host in cluster.groups["api"] for n in INSTANCES}
    # The probe has a turn every 15 s.
    wait_for(lambda: up() == expected, 40)
    assert up() == expected


def test_what_is_built_for_the_python_of_each_host_is_one_release(cluster: Cluster, inventory: str) -> None:
    [monitor] = cluster.groups["monitoring"]
    asked = "query=ALERTS{alertname=~'IrisApi(Hosts|Releases)Differ'}"
    url = "http://127.0.0.1:9090/api/v1/query"

    def differing() -> list[Any]:
        answer = cluster.run(monitor, ["curl", "--silent", "--fail", "--get", "--data-urlencode", asked, url])
        found: list[Any] = json.loads(answer)["data"]["result"]
        return found

    # What differs is pending at once; what did in a test before, until the rules are evaluated again.
    wait_for(lambda: not differing(), 60)
    assert differing() == []
    said = make("make status", inventory).stdout
    assert len(set(re.findall(r"-cp\d+", said))) == 2, "the hosts have the same Python"
    assert "things" not in said, said


def recap(said: str, field: str) -> dict[str, int]:
    """Return a column of what Ansible prints at the end, by host."""
    lines = re.findall(rf"^(\w+) +: .*\b{field}=(\d+)", said, re.MULTILINE)
    return {host: int(number) for host, number in lines if host != "localhost"}


@contextlib.contextmanager
def asking(client: httpx.Client) -> Iterator[list[httpx.Response | httpx.HTTPError]]:
    """Ask 30 times a second, one request after the other, as long as the block lasts; yield what came of it."""
    answers: list[httpx.Response | httpx.HTTPError] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(1 / 30):
            try:
                answers.append(client.post("/predict", json=IRIS))
            except httpx.HTTPError as error:
                answers.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        ended.set()
        thread.join()


def told(cluster: Cluster, host: str) -> dict[str, str]:
    """Return the alerts of a host that Alertmanager has, and of each whether it is active or suppressed.

    Without DeploymentRuns: it stands for five minutes after a deployment of the test before, and is told to nobody.
    """
    [monitor] = cluster.groups["monitoring"]
    answer = cluster.run(monitor, ["curl", "--silent", "--fail", "http://127.0.0.1:9093/api/v2/alerts"])
    alerts = [alert for alert in json.loads(answer) if alert["labels"].get("host") == host]
    states = {alert["labels"]["alertname"]: alert["status"]["state"] for alert in alerts}
    states.pop("DeploymentRuns", None)
    return states


def test_the_first_api_host_is_off(cluster: Cluster, clients: dict[str, httpx.Client], inventory: str) -> None:
    """No request is lost, the rest is converged without a change to it, nobody is told, what is back is asked again."""
    lost, *others = cluster.groups["api"]
    first, second = clients.values()

    def answering() -> set[str]:
        return {second.post("/predict", json=IRIS).headers["x-served-by"].split(".")[1] for _ in range(6)}

    with asking(first) as answers:
        localvm("stop", lost)
        try:
            done = make("make converge", inventory)
            assert answering() == set(others)
            # It went down in order, and said so.
            wait_for(lambda: {"HostReboots", "HostDown"} <= told(cluster, lost).keys(), 90)
            alerts = told(cluster, lost)
        finally:
            localvm("start", lost)
        assert wait_for(lambda: answering() == {lost, *others}, 30)
    assert recap(done.stdout, "unreachable") == {host: int(host == lost) for host in cluster.addresses}, done.stdout
    assert not any(recap(done.stdout, "failed").values()), done.stdout
    assert not any(recap(done.stdout, "changed").values()), done.stdout
    wrong = [answer for answer in answers if not isinstance(answer, httpx.Response) or answer.status_code != 200]
    assert wrong == []
    slowest = max(answer.elapsed.total_seconds() for answer in answers if isinstance(answer, httpx.Response))
    print(f"{len(answers)} requests, the slowest took {slowest:.2f} s")
    assert alerts.pop("HostReboots") == "active"
    assert alerts["HostDown"] == "suppressed"
    assert set(alerts.values()) == {"suppressed"}, alerts


def test_a_host_that_lost_its_power_is_told_of_alone_and_its_runbook_ends_that(
    cluster: Cluster, inventory: str
) -> None:
    *_, lost = cluster.groups["api"]
    localvm("cut", lost)
    try:
        wait_for(lambda: {"HostDown", "NodeExporterDown"} <= told(cluster, lost).keys(), 120)
        alerts = told(cluster, lost)
        assert alerts.pop("HostDown") == "active"
        assert "HostReboots" not in alerts
        assert "NodeExporterDown" in alerts
        assert set(alerts.values()) == {"suppressed"}, alerts
        assert make(f"make ssh HOST={lost}", inventory).returncode != 0
    finally:
        localvm("start", lost)
    for command in (*written("HostDown", "Act"), *written("HostDown", "Check")):
        done = make(command, inventory)
        assert done.returncode == 0, done.stdout
    assert wait_for(lambda: "HostDown" not in told(cluster, lost), 120)


def test_what_went_down_in_order_keeps_alerts_back_for_5_minutes_and_no_longer(cluster: Cluster) -> None:
    """Most of them have passed since the first of these two tests."""
    lost, *_ = cluster.groups["api"]
    assert wait_for(lambda: "HostReboots" not in told(cluster, lost), 300)
