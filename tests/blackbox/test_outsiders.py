"""What a client outside of every allowlist reaches: the gateway, and nothing of the monitoring."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys

import pytest

from tests import ROOT
from tests.blackbox.gateway import Gateway

LOCALVM = ROOT / "tools" / "localvm"
LOCAL_NETWORK = ipaddress.ip_network("172.30.0.0/24")
REFUSED, TIMED_OUT = 7, 28


@pytest.fixture(scope="module", autouse=True)
def _only_with_a_local_vm(gateway: Gateway) -> None:
    try:
        local = ipaddress.ip_address(gateway.host) in LOCAL_NETWORK
    except ValueError:
        local = False
    if not local:
        pytest.skip(f"{gateway.host} is no local VM: only there a second network can be made to call from")
    if os.geteuid() != 0:
        pytest.skip("only root can make the network namespace to call from")


def outsider(gateway: Gateway, url: str) -> tuple[int, str]:
    """Call from an outsider's address; return curl's exit code and the HTTP status."""
    done = subprocess.run(
        [sys.executable, LOCALVM, "outsider", "--", "curl", "--silent", "--insecure", "--connect-timeout", "2",
         "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}", url],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.strip()


def test_an_outsider_reaches_the_gateway(gateway: Gateway) -> None:
    """Else the refusals below would prove nothing."""
    assert outsider(gateway, f"https://{gateway.host}/health") == (0, "200")
    assert outsider(gateway, f"https://{gateway.host}/predict") == (0, "401")
    assert outsider(gateway, f"http://{gateway.host}/") == (0, "308")


def test_an_outsider_does_not_see_the_status_page(gateway: Gateway) -> None:
    assert outsider(gateway, f"http://{gateway.host}/nginx_status") == (0, "403")


def test_an_outsider_does_not_see_grafana(gateway: Gateway) -> None:
    assert outsider(gateway, f"https://{gateway.host}/grafana/") == (0, "403")


@pytest.mark.parametrize(
    "port",
    [9090, 9093, 9100, 9113, 3000, 3903, 9115],
    ids=["prometheus", "alertmanager", "node_exporter", "nginx_exporter", "grafana", "mtail", "blackbox_exporter"],
)
def test_an_outsider_does_not_reach_the_monitoring(gateway: Gateway, port: int) -> None:
    try:
        socket.create_connection((gateway.host, port), timeout=5).close()
    except OSError:
        pytest.skip(f"nothing listens on port {port}, not even for the trusted")
    assert outsider(gateway, f"http://{gateway.host}:{port}/")[0] in (REFUSED, TIMED_OUT)


@pytest.mark.parametrize("port", [8001, 8002, 8003])
def test_nobody_reaches_an_instance_past_the_gateway(gateway: Gateway, port: int) -> None:
    assert outsider(gateway, f"http://{gateway.host}:{port}/health")[0] in (REFUSED, TIMED_OUT)
