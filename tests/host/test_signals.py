"""Signals by their numbers: as many requests in Prometheus as were sent; the probe; the host's own file."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable

import httpx
import pytest
from testinfra.host import Host

from tests.blackbox.gateway import Gateway
from tests.host.test_monitoring import wait_for
from tests.monitored import query

testinfra_hosts = ["ansible://monitoring"]

ROW = {"petal_length": 6.5, "petal_width": 0.8}
FORCE = "logrotate --force --state=/tmp/signals.status /etc/logrotate.d/nginx"


@pytest.fixture
def gateway(host: Host) -> Gateway:
    if not host.service("mtail").exists:
        pytest.skip("the gateway is another host")
    return Gateway()


@pytest.fixture
def client(gateway: Gateway) -> httpx.Client:
    trust = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
    return httpx.Client(base_url=gateway.url, auth=gateway.auth, verify=trust)


def count(host: Host, expression: str) -> float:
    """Return a sum as Prometheus has it now; 0 where there is nothing."""
    return sum(float(sample["value"][1]) for sample in query(host, f"sum({expression})"))


def grown(host: Host, expression: str, act: Callable[[], None]) -> float:
    """Return by how much a sum grows by what is done, two scrapes after it."""
    time.sleep(7)
    before = count(host, expression)
    act()
    time.sleep(7)
    return count(host, expression) - before


def test_as_many_wrong_passwords_are_counted_as_were_sent(host: Host, client: httpx.Client) -> None:
    def guess() -> None:
        for number in range(37):
            assert client.post("/predict", json=ROW, auth=("iris", f"wrong-{number}")).status_code == 401
            time.sleep(0.15)

    assert grown(host, "fortress_gateway_refused_logins_total", guess) == 37


def test_predictions_are_counted_with_their_time(host: Host, client: httpx.Client) -> None:
    def predict() -> None:
        for _ in range(20):
            assert client.post("/predict", json=ROW).status_code == 200
            time.sleep(0.15)

    ours = 'route="predict",method="POST",status="200",answered_by="upstream"'
    assert grown(host, f"fortress_gateway_requests_total{{{ours}}}", predict) == 20
    assert grown(host, 'fortress_gateway_request_duration_seconds_count{route="predict"}', predict) == 20


def test_what_the_limiter_refuses_is_counted(host: Host, client: httpx.Client) -> None:
    """Each over a connection of its own: of one connection not each is a line of the log."""
    refused = 0

    def flood() -> None:
        nonlocal refused
        for _ in range(40):
            answer = client.post("/predict", json=ROW, headers={"Connection": "close"})
            refused += answer.status_code == 503

    found = grown(host, 'fortress_gateway_limited_requests_total{route="predict"}', flood)
    assert refused > 5
    assert found == refused


@pytest.mark.parametrize(
    ("status", "who"), [("503", "limiter"), ("502", "upstream"), ("504", "upstream"), ("401", "gateway")]
)
def test_a_status_is_there_before_its_first_answer(host: Host, gateway: Gateway, status: str, who: str) -> None:
    """Also just after mtail has started, when no request came yet."""
    host.check_output("systemctl restart mtail")
    series = f'fortress_gateway_requests_total{{route="v1",method="POST",status="{status}",answered_by="{who}"}}'
    told = host.check_output("curl --silent --fail http://127.0.0.1:3903/metrics")
    lines = [line for line in told.splitlines() if line.startswith("fortress_gateway_requests_total{")]
    wanted = [f'answered_by="{who}"', 'method="POST"', 'route="v1"', f'status="{status}"']
    assert [line for line in lines if all(label in line for label in wanted)], series


def test_a_rotation_loses_next_to_nothing(host: Host, client: httpx.Client) -> None:
    sent = 0

    def rotate() -> None:
        nonlocal sent
        for number in range(60):
            client.get("/health")
            sent += 1
            if number in (20, 40):
                host.check_output(FORCE)
            time.sleep(0.12)

    found = grown(host, 'fortress_gateway_requests_total{route="health"}', rotate)
    assert sent - 2 <= found <= sent
    assert count(host, "fortress_gateway_unread_log_lines_total") == 0


def test_nobody_but_mtail_of_our_services_reads_the_log_that_it_counts(host: Host, gateway: Gateway) -> None:
    file = host.file("/var/log/nginx/counts.log")
    assert (file.user, file.group, file.mode) == ("www-data", "adm", 0o640)
    pid = host.check_output("systemctl show mtail --property=MainPID --value")
    groups = host.check_output(f"grep ^Groups: /proc/{pid}/status").split()[1:]
    assert host.check_output("getent group adm").split(":")[2] in groups


# --- the probe -------------------------------------------------------------------------------------------------------


def test_the_probe_is_answered(host: Host) -> None:
    assert wait_for(lambda: [s["value"][1] for s in query(host, "probe_success")] == ["1"], 40)
    assert [sample["value"][1] for sample in query(host, "probe_http_status_code")] == ["200"]
    assert query(host, "probe_ssl_earliest_cert_expiry - time() > 0")


@pytest.mark.one_release
def test_the_probe_moves_no_figure_of_the_model(host: Host, gateway: Gateway) -> None:
    before = {name: count(host, name) for name in ("iris_api_predictions_total", "iris_api_feature_values_total")}
    assert grown(host, 'iris_api_requests_total{path="/probe"}', lambda: time.sleep(35)) >= 2
    assert {name: count(host, name) for name in before} == before
    assert count(host, 'fortress_gateway_requests_total{route="probe",status="200"}') > 0


def test_the_probe_has_a_path_and_a_user_of_its_own(host: Host, client: httpx.Client) -> None:
    assert client.get("/probe").status_code == 401, "who may call /predict may not"
    password = host.check_output("cat /etc/fortress/probe-password")
    assert client.get("/probe", auth=("fortress-probe", password)).status_code == 200
    assert client.post("/predict", json=ROW, auth=("fortress-probe", password)).status_code == 401


def test_a_gateway_that_does_not_serve_is_seen(host: Host, gateway: Gateway) -> None:
    host.check_output("systemctl stop nginx")
    try:
        assert wait_for(lambda: [s["value"][1] for s in query(host, "probe_success")] == ["0"], 40)
    finally:
        host.check_output("systemctl start nginx")
    assert wait_for(lambda: [s["value"][1] for s in query(host, "probe_success")] == ["1"], 40)


# --- the host --------------------------------------------------------------------------------------------------------


def test_the_states_of_units_are_seen(host: Host) -> None:
    wanted = {"prometheus.service", "prometheus-node-exporter.service", "fortress-firewall.service"}
    active = query(host, 'node_systemd_unit_state{state="active"} == 1')
    assert wanted <= {sample["metric"]["name"] for sample in active}
    assert not [s for s in active if s["metric"]["name"].startswith("ssh")], "units of others are no matter of ours"


def test_the_file_of_the_host_is_fresh_and_has_what_runs(host: Host) -> None:
    assert wait_for(lambda: query(host, "time() - fortress_host_metrics_written_seconds < 40"), 60)
    for name in ("memory_bytes", "open_descriptors", "descriptor_limit"):
        units = {sample["metric"]["name"] for sample in query(host, f"fortress_unit_{name} > 0")}
        assert {"prometheus.service", "prometheus-node-exporter.service"} <= units, name


def test_what_is_deployed_is_seen(host: Host) -> None:
    if not host.file("/opt/iris-api").exists:
        pytest.skip("the instances are on other hosts")
    [sample] = query(host, "fortress_deployment_info")
    assert host.check_output("readlink /opt/iris-api/current").endswith(sample["metric"]["deployment"])
    assert query(host, 'fortress_last_deployment_seconds{event="deployed"} > 0')
    host.check_output("iris-deploy hold --who tests 'a test of signals'")
    try:
        assert wait_for(lambda: query(host, "fortress_deployments_held == 1"), 40)
    finally:
        host.check_output("iris-deploy unlock --who tests")
    assert wait_for(lambda: query(host, "fortress_deployments_held == 0"), 40)
