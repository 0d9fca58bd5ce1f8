"""Instances of the API die, freeze and come back, and no client notices while one of them lives."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from testinfra.host import Host

from tests.faults.traffic import Load, Record, Strike

testinfra_hosts = ["ansible://gateway"]

POISON = Path(__file__).with_name("poison.py")
IRIS = {"petal_length": 6.5, "petal_width": 0.8}

Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """One request beside the load."""
    trust = ssl.create_default_context(cafile=os.environ["FORTRESS_CA"])
    login = (os.environ["FORTRESS_USER"], os.environ["FORTRESS_PASSWORD"])
    with httpx.Client(verify=trust, base_url=os.environ["FORTRESS_URL"], auth=login, timeout=30) as client:
        yield lambda **headers: client.post("/predict", json=IRIS, headers=headers)


@pytest.mark.parametrize(
    ("fault", "do", "gone", "within"),
    [
        ("kill -9 of a worker", "kill -KILL {worker1}", "worker1", 10),
        ("kill -9 of a master", "kill -KILL {master1}", "master1", 15),
        ("kill -9 of a whole instance", "kill -KILL {master1} {worker1}", "master1", 15),
        ("SIGSTOP of a worker", "kill -STOP {worker1}", "worker1", 15),
        ("SIGSTOP of a master", "kill -STOP {master1}", "master1", 25),
        ("SIGSTOP of a whole instance", "kill -STOP {master1} {worker1}", "master1", 25),
        ("SIGTERM of a unit's main process", "kill -TERM {master1}", "master1", 15),
        ("SIGTERM of a worker", "kill -TERM {worker1}", "worker1", 15),
    ],
)
def test_an_instance_dies(
    load: Load, strike: Strike, record: Record, fault: str, do: str, gone: str, within: float
) -> None:
    with load() as traffic:
        found = strike(traffic, do, instances=(1,), gone=(gone,), within=within)
    frozen = "STOP" in do
    record(fault, traffic, found["took"]["1"], "late" if frozen and traffic.failures else "")
    if frozen:
        # nginx can't know that an instance is frozen before it was silent for nginx_upstream_timeout (5 s). By then
        # the master has replaced a frozen worker, and the new one answers whatever waited.
        traffic.assert_late_at_most(6.5, waited=do == "kill -STOP {worker1}")
    else:
        traffic.assert_nothing_failed()


def test_two_instances_die_one_after_the_other(load: Load, strike: Strike, record: Record) -> None:
    with load() as traffic:
        found = strike(
            traffic,
            "kill -KILL {master1} {worker1}; sleep 0.3; kill -KILL {master2} {worker2}",
            instances=(1, 2),
            gone=("master1", "master2"),
            within=20,
        )
    record("kill -9 of two whole instances, 0.3 s apart", traffic, max(found["took"].values()))
    traffic.assert_nothing_failed()


def test_two_instances_die_at_the_same_moment(host: Host, load: Load, strike: Strike, record: Record) -> None:
    """A request that was in flight on both of them can't be told from one that killed both: no third one sees it."""
    with load() as traffic:
        found = strike(
            traffic,
            "kill -KILL {master1} {worker1} {master2} {worker2}",
            instances=(1, 2),
            gone=("master1", "master2"),
            within=20,
        )
    note = "" if not traffic.failures else "in flight on both"
    record("kill -9 of two whole instances at the same moment", traffic, max(found["took"].values()), note)
    for failure in traffic.failures:
        tried = json.loads(host.run(f"grep '\"{failure['identity']}\"' /var/log/nginx/access.log").stdout)
        saw = [sent for sent in re.split(", | : ", tried["upstream_bytes_sent"]) if sent != "0"]
        assert len(saw) >= 2, traffic.explain()
    assert len(traffic.failures) <= 3, traffic.explain()
    traffic.assert_enough()


def test_one_instance_is_left_for_a_while(load: Load, strike: Strike, record: Record) -> None:
    """Now and then nginx tries the dead ones again; a request may meet both of them before the one that lives."""
    with load() as traffic:
        found = strike(
            traffic,
            "systemctl stop iris-api@1 iris-api@2; sleep 22; systemctl start iris-api@1 iris-api@2",
            instances=(1, 2),
            gone=("master1", "master2"),
            within=40,
        )
    record("two instances stopped for 22 s", traffic, max(found["took"].values()) - 22)
    traffic.assert_nothing_failed()


@pytest.fixture
def poisoned(host: Host) -> Iterator[None]:
    """Instances whose application kills its process when a request asks for it; a drop-in of this test alone."""
    folder = "/run/systemd/system/iris-api@.service.d"
    program = host.run("systemctl cat iris-api@1.service | sed --quiet 's/^ExecStart=//p'").stdout.strip()
    restart = (
        "systemctl daemon-reload"
        " && for number in 1 2 3; do systemctl restart iris-api@$number && sleep 0.5 || exit 1; done"
    )
    drop_in = f"[Service]\nExecStart=\nExecStart={program} --pythonpath /run/poison poison:create_app()\n"
    try:
        host.run_expect(
            [0],
            f"mkdir -p {folder} /run/poison && cat > /run/poison/poison.py <<'PROGRAM'\n{POISON.read_text()}\nPROGRAM\n"
            f"cat > {folder}/poison.conf <<'UNIT'\n{drop_in}\nUNIT\nchmod -R a+rX /run/poison && {restart}",
        )
        yield
    finally:
        host.run_expect([0], f"rm -rf {folder}/poison.conf /run/poison && rmdir {folder}; {restart}")


def test_a_request_that_kills_its_instance(
    host: Host, load: Load, strike: Strike, ask: Ask, record: Record, poisoned: None
) -> None:
    """It is asked of one other instance and never of a third one."""
    time.sleep(6)
    with load(linger=4) as traffic:
        before = workers(host)
        traffic.strike()
        answer = ask(**{"X-Request-ID": f"poison-{traffic.run}"})
        found = strike(traffic, "true", instances=(1, 2, 3), gone=(), within=15)
        after = workers(host)
    assert answer.status_code == 502
    assert answer.json()["code"] == "bad_gateway"
    assert len(before - after) == 2, f"{before} became {after}"
    tried = json.loads(host.run(f"grep poison-{traffic.run} /var/log/nginx/access.log").stdout)
    # Not attempts: one over a kept connection that was closed reached nobody, and was made anew.
    assert len(set(re.split(", | : ", tried["upstream_addr"]))) == 2, tried
    record("a request that kills its instance", traffic, max(found["took"].values()), "itself answered with 502")
    traffic.assert_nothing_failed()


def workers(host: Host) -> set[str]:
    """The workers of all instances."""
    masters = [host.run(f"systemctl show iris-api@{number} --property=MainPID --value").stdout for number in (1, 2, 3)]
    return set(host.run(f"pgrep --parent {','.join(master.strip() for master in masters)}").stdout.split())


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_no_instance_is_left(load: Load, strike: Strike, ask: Ask, record: Record, how: str) -> None:
    """Clients get JSON at once, and everything works again by itself."""
    killed = "kill -KILL {master1} {worker1} {master2} {worker2} {master3} {worker3}"
    stopped = "systemctl stop iris-api.target; sleep 5; systemctl start iris-api.target"
    with load(linger=7) as traffic:
        strike(
            traffic,
            {"killed": killed, "stopped": stopped}[how],
            instances=(1, 2, 3),
            gone=("master1", "master2", "master3"),
            within=30,
        )
    statuses = {failure["reason"].partition(":")[0] for failure in traffic.failures}
    assert statuses <= {"status 502", "status 503"}, traffic.explain()
    for failure in traffic.failures:
        assert json.loads(failure["reason"].partition(": ")[2]).keys() == {"error", "code", "request_id"}
        assert failure["ended"] - failure["began"] < 1.5, traffic.explain()
    recovery = traffic.recovered_after()
    record(
        f"all three instances {how}" + (" for 5 s" if how == "stopped" else ""), traffic, recovery, "answered with 502"
    )
    traffic.assert_enough()
    assert recovery < {"killed": 15, "stopped": 15}[how]
