"""What one address can take from all others: connections to the gateway, and room on its disk. Both are bounded."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from testinfra.host import Host

from tests import ROOT

testinfra_hosts = ["ansible://gateway"]

HERE = Path(__file__).resolve().parent
LOCALVM = ROOT / "tools" / "localvm"
LOCAL_NETWORK = ipaddress.ip_network("172.30.0.0/24")
# The defaults of the roles base and nginx.
OPEN, NEW, BURST = 256, 100, 200
LOG_FILE, LOG_FILES = 64 * 1024**2, 16
LINE = 4096
BYTES_A_SECOND = 2_000_000
"""What one address can have written into both logs of nginx: 100 new connections a second, each good for five lines; a
hundredth of what it asks over those that are open; and what the limits let through, some 120 requests a second."""
SECONDS = 3.0
ROTATE = "logrotate --force /etc/logrotate.d/nginx && sleep 0.3"
IRIS = {"petal_length": 6.5, "petal_width": 0.8}
HALF = f"GET / HTTP/1.1\r\nHost: {os.environ.get('FORTRESS_DOMAIN', '')}\r\nX-Half:"

Outsider = Callable[..., subprocess.Popen[str]]
"""Takes the number of the outsider, and what outsider.py is told."""


@pytest.fixture
def outsider() -> Iterator[Outsider]:
    """Start outsider.py at an address of its own, outside of every allowlist."""
    try:
        local = ipaddress.ip_address(os.environ["FORTRESS_HOST"]) in LOCAL_NETWORK
    except ValueError:
        local = False
    if not local:
        pytest.skip(
            f"{os.environ['FORTRESS_HOST']} is no local VM: only there a second network can be made to call from"
        )
    if os.geteuid() != 0:
        pytest.skip("only root can make the network namespace to call from")
    running: list[subprocess.Popen[str]] = []

    def start(number: int, **wanted: Any) -> subprocess.Popen[str]:
        wanted["host"] = os.environ["FORTRESS_HOST"]
        program = [sys.executable, str(HERE / "outsider.py"), json.dumps(wanted)]
        command = [sys.executable, str(LOCALVM), "outsider", "--address", address_of(number), "--", *program]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.communicate(timeout=60)


def address_of(outsider: int) -> str:
    """Return the address of an outsider by its number, 1 to 9; each site has its own, as two may be tested at once."""
    site = int(os.environ["FORTRESS_HOST"].rpartition(".")[2])
    return f"198.51.100.{100 + site % 15 * 10 + outsider}"


def read(process: subprocess.Popen[str]) -> dict[str, float]:
    """Return what an outsider says next."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the outsider ended without a word"
    return dict(json.loads(line))


def order(process: subprocess.Popen[str], **what: Any) -> dict[str, float]:
    """Send an order to an outsider that keeps connections; return its answer."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(what) + "\n")
    process.stdin.flush()
    return read(process)


@contextmanager
def others() -> Iterator[list[object]]:
    """Run another client, which requests five predictions a second, each over a new connection; yields what it gets."""
    trust = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
    login = os.environ["FORTRESS_USER"], os.environ["FORTRESS_PASSWORD"]
    seen: list[object] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.2):
            try:
                answer = httpx.post(
                    f"{os.environ['FORTRESS_URL']}/predict", json=IRIS, auth=login, verify=trust, timeout=10
                )
                seen.append(answer.status_code)
            except httpx.HTTPError as error:
                seen.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def refusals(host: Host) -> dict[str, int]:
    """Return how many packets each rule has refused since the rules were loaded, by the name of its set."""
    rules = host.run("nft list chain inet fortress limited").stdout
    return {name: int(number) for name, number in re.findall(r"@(\S+) .* counter packets (\d+)", rules)}


@pytest.fixture
def written(host: Host) -> Callable[[], int]:
    """Begin new logs; return what tells how many bytes nginx has had written since, into them and into the journal."""
    host.run_expect([0], ROTATE)
    began = host.run("date '+%F %T'").stdout.strip()

    def count() -> int:
        journal = f"journalctl --quiet --unit=nginx --output=cat --since='{began}'"
        return int(host.run(f"{{ cat /var/log/nginx/*.log; {journal}; }} | wc --bytes").stdout)

    return count


def test_half_sent_requests_of_one_address_cost_no_other_a_connection(host: Host, outsider: Outsider) -> None:
    """More than nginx had connections for."""
    attack = outsider(1, do="connect", port=80, count=8200, data=HALF)
    got = read(attack)
    with others() as seen:
        time.sleep(4)
    assert len(seen) >= 10
    assert set(seen) == {200}, seen
    allowed = BURST + NEW * got["seconds"]
    assert 0.8 * min(OPEN, allowed) <= got["open"] <= min(OPEN, allowed + 1), got
    # Those that were let in are as good as anybody's.
    assert order(attack, send=" x\r\n\r\n")["answered"] == got["open"]


def test_one_address_has_so_many_connections_and_no_more(host: Host, outsider: Outsider) -> None:
    before = refusals(host)
    # Slower than the rate allows, and with requests that are whole: such a connection stays open for a minute.
    attack = outsider(2, do="connect", port=80, count=OPEN + 88, rate=0.9 * NEW, data=f"{HALF} x\r\n\r\n")
    got = read(attack)
    assert (got["open"], got["refused"]) == (OPEN, 88)
    assert refusals(host)[f"open_{OPEN}_ipv4"] - before[f"open_{OPEN}_ipv4"] == 88
    with others() as seen:
        time.sleep(2)
    assert set(seen) == {200}, seen
    # Whoever gives some back may open as many others.
    assert order(attack, close=20)["open"] == OPEN - 20
    time.sleep(0.5)
    assert order(attack, open=30)["open"] == 20


def test_a_reload_of_the_firewall_ends_no_connection_and_forgets_none(host: Host, outsider: Outsider) -> None:
    attack = outsider(3, do="connect", port=80, count=OPEN, rate=0.9 * NEW, data=f"{HALF} x\r\n\r\n")
    assert read(attack)["open"] == OPEN
    assert host.run("systemctl reload fortress-firewall").rc == 0
    assert order(attack, open=10)["refused"] == 10
    assert order(attack, send=f"{HALF} x\r\n\r\n")["answered"] == OPEN
    assert order(attack, close=OPEN)["open"] == 0
    time.sleep(0.5)
    assert order(attack, open=10)["open"] == 10


def test_of_ipv6_a_network_of_64_bits_counts_as_one_address(host: Host) -> None:
    """Between network namespaces of the host itself: the machines of the tests have no IPv6 among them."""
    done = host.run("python3 - <<'END'\n" + (HERE / "ipv6_on_host.py").read_text() + "\nEND")
    assert done.rc == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["first network"] == OPEN, seen
    assert seen["second network"] == 20, seen


LONG = "x" * 3000
AGENT = "\x01" * 1000
NAME = os.environ.get("FORTRESS_DOMAIN", "")
one_release = pytest.mark.one_release


def request(target: str, *headers: str, host: str = NAME, method: str = "GET") -> str:
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *headers, "", ""])


def stream(method: str, target: str, *headers: tuple[str, str], host: str = NAME) -> list[tuple[str, str]]:
    return [(":method", method), (":scheme", "https"), (":authority", host), (":path", target), *headers]


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param({"do": "ask", "port": 443, "data": request(f"/{LONG}")}, id="unknown path"),
        pytest.param({"do": "ask", "port": 80, "data": request(f"/{LONG}")}, id="redirect to https", marks=one_release),
        pytest.param(
            {"do": "ask", "port": 80, "data": request(f"/nginx_status?{LONG}")}, id="status page", marks=one_release
        ),
        pytest.param({"do": "ask", "port": 443, "data": request(f"/grafana/{LONG}")}, id="Grafana", marks=one_release),
        pytest.param({"do": "ask", "port": 443, "data": request(f"/health?{LONG}")}, id="health", marks=one_release),
        pytest.param(
            {"do": "ask", "port": 443, "data": request(f"/predict?{LONG}", "Authorization: Basic eDp4")}, id="login"
        ),
        pytest.param(
            {"do": "ask", "port": 80, "data": request(f"/{LONG}", host="foreign.example"), "pipelined": 1},
            id="foreign name",
        ),
        pytest.param(
            {"do": "ask", "port": 80, "data": request(f"/{LONG}", host="a b"), "pipelined": 1}, id="malformed"
        ),
        pytest.param({"do": "ask2", "port": 443, "headers": stream("GET", f"/{LONG}")}, id="unknown path by HTTP/2"),
        pytest.param(
            {"do": "ask2", "port": 443, "headers": stream("GET", f"/{LONG}", host="foreign.example")},
            id="foreign name by HTTP/2", marks=one_release,
        ),
        pytest.param(
            {"do": "ask2", "port": 443, "headers": stream("POST", f"/predict?{LONG}", ("content-length", "99999999"))},
            id="too large a body by HTTP/2", marks=one_release,
        ),
        # What costs most: new connections, each with as many refusals as are written down.
        pytest.param(
            {
                "do": "ask", "port": 80, "pipelined": 5, "each": 5, "rate": 0.98 * NEW,
                "data": request("/" + '"' * 3000, f"User-Agent: {AGENT}", "X-Request-ID: " + "i" * 128),
            },
            id="new connections",
        ),
    ],
)  # fmt: skip
def test_what_one_address_can_write_is_bounded(
    host: Host, outsider: Outsider, written: Callable[[], int], flood: dict[str, Any]
) -> None:
    attack = outsider(4, **{"connections": 4, "seconds": SECONDS, "pipelined": 8} | flood)
    with others() as seen:
        got = read(attack)
    time.sleep(0.5)
    size = written()
    print(got, f"{size / SECONDS / 1e6:.2f} MB/s")
    assert got["answers"] + got["refused"] >= 100, got
    assert size <= BYTES_A_SECOND * SECONDS
    assert any(address_of(4) in line for line in tail(host)), "the flood left no trace at all"
    assert max(map(len, tail(host))) <= LINE
    assert set(seen) == {200}, seen


def tail(host: Host) -> list[str]:
    return str(host.run("tail --lines=200 /var/log/nginx/access.log").stdout).splitlines()


@pytest.fixture
def small_logs(host: Host) -> Iterator[int]:
    """The same unit with a bound that is reached within a second; returns it in bytes."""
    drop_in = "/run/systemd/system/nginx.service.d"
    restart = "systemctl daemon-reload && systemctl restart nginx"
    host.run_expect(
        [0], f"mkdir {drop_in} && printf '[Service]\\nLimitFSIZE=128K\\n' > {drop_in}/zz.conf && {restart} && {ROTATE}"
    )
    yield 128 * 1024
    host.run_expect([0], f"rm -r {drop_in} && {restart} && {ROTATE}")


def test_a_log_stops_at_its_bound_and_requests_go_on(host: Host, outsider: Outsider, small_logs: int) -> None:
    """The kernel refuses what is over at the moment of writing: no timer has to be fast enough."""
    pid = host.run("systemctl show nginx --property=MainPID").stdout
    flood = {"do": "ask", "connections": 4, "seconds": SECONDS, "pipelined": 8}
    with others() as seen:
        read(outsider(5, port=443, data=request(f"/{LONG}"), **flood))
        read(outsider(6, port=80, data=request(f"/nginx_status?{LONG}"), **flood))
    assert host.file("/var/log/nginx/access.log").size == small_logs
    assert host.file("/var/log/nginx/error.log").size <= small_logs
    assert set(seen) == {200}, seen
    assert host.run("systemctl show nginx --property=MainPID").stdout == pid
    # Once the file is put aside, writing goes on.
    host.run_expect([0], ROTATE)
    with others() as seen:
        time.sleep(1)
    assert set(seen) == {200}
    assert [json.loads(line)["status"] for line in tail(host)].count(200) >= 3


def test_the_bound_of_all_logs_together_is_what_the_settings_say(host: Host) -> None:
    unit = host.run("systemctl show nginx --property=LimitFSIZE --value").stdout
    assert int(unit) == LOG_FILE
    rotation = host.file("/etc/logrotate.d/nginx").content_string
    assert f"rotate {LOG_FILES - 1}\n" in rotation
    assert f"size {LOG_FILE // 2 // 1024}k\n" in rotation
    assert host.service("nginx-logrotate.timer").is_running
    assert host.run("systemctl start nginx-logrotate.service").rc == 0


@pytest.mark.one_release
def test_a_log_that_has_grown_is_put_aside_within_a_minute(host: Host) -> None:
    path = "/var/log/nginx/access.log"
    host.run_expect([0], f"truncate --size={LOG_FILE // 2 + 4096} {path}")
    deadline = time.monotonic() + 75
    while host.file(path).size > LOG_FILE // 2:
        assert time.monotonic() < deadline, "it was not"
        time.sleep(1)
    assert host.file(f"{path}.1").size >= LOG_FILE // 2
    host.run_expect([0], f"rm {path}.1")
