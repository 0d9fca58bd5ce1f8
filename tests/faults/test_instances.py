"""Instances of the API die, freeze and come back, and no client notices."""

from __future__ import annotations

import json

import pytest
from conftest import Load, Record, Strike
from testinfra.host import Host

testinfra_hosts = ["ansible://gateway"]


@pytest.mark.parametrize(
    ("fault", "do", "gone", "within"),
    [
        ("kill -9 of a worker", "kill -KILL {worker1}", "worker1", 10),
        ("kill -9 of a master", "kill -KILL {master1}", "master1", 15),
        ("kill -9 of a whole instance", "kill -KILL {master1} {worker1}", "master1", 15),
        ("SIGSTOP of a worker", "kill -STOP {worker1}", "worker1", 15),
        ("SIGSTOP of a master", "kill -STOP {master1}", "master1", 30),
        ("SIGSTOP of a whole instance", "kill -STOP {master1} {worker1}", "master1", 30),
        ("SIGTERM of a unit's main process", "kill -TERM {master1}", "master1", 15),
        ("SIGTERM of a worker", "kill -TERM {worker1}", "worker1", 15),
    ],
)
def test_an_instance_dies(
    load: Load, strike: Strike, record: Record, fault: str, do: str, gone: str, within: float
) -> None:
    with load() as traffic:
        found = strike(traffic, do, instances=(1,), gone=(gone,), within=within)
    record(fault, traffic, found["took"]["1"])
    traffic.assert_nothing_failed()


def test_two_instances_die_at_once(load: Load, strike: Strike, record: Record) -> None:
    with load() as traffic:
        found = strike(
            traffic,
            "kill -KILL {master1} {worker1} {master2} {worker2}",
            instances=(1, 2),
            gone=("master1", "master2"),
            within=20,
        )
    record("kill -9 of two whole instances at once", traffic, max(found["took"].values()))
    traffic.assert_nothing_failed()
