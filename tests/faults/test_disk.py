"""A partition is full: of the logs, of the releases. Small ones are laid over those of the host for the test."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.faults.traffic import Load, Record
from tests.operator import deploy

testinfra_hosts = ["ansible://gateway"]

HOME = "/opt/iris-api"
REOPEN = "systemctl kill --kill-whom=main --signal=USR1 nginx && sleep 0.5"


@pytest.fixture
def full_logs(host: Host) -> Iterator[None]:
    """A log partition without a free byte, which nginx writes to."""
    host.run_expect(
        [0],
        f"mount -t tmpfs -o size=64k,mode=0755 tmpfs /var/log/nginx && chown www-data:adm /var/log/nginx && {REOPEN}"
        " && test -e /var/log/nginx/access.log && { cat /dev/zero > /var/log/nginx/filling 2>/dev/null;"
        " test $(df --output=avail /var/log/nginx | tail -1) = 0; }",
    )
    try:
        yield
    finally:
        host.run_expect([0], f"umount --lazy /var/log/nginx && {REOPEN}")


def test_the_log_partition_is_full(host: Host, load: Load, record: Record, full_logs: None) -> None:
    def written() -> int:
        return int(host.run("stat --format=%s /var/log/nginx/access.log").stdout)

    before = written()
    with load() as traffic:
        time.sleep(5)
    # Less than a page: the rest of the file's last one.
    assert written() - before < 4096, "the partition was not full"
    record("log partition full", traffic, None, "no log, so retries are not known")
    traffic.assert_nothing_failed()


@pytest.fixture
def full_releases(host: Host) -> Iterator[None]:
    """A partition of releases without room, from which one can read: writes go to a layer that is full."""
    host.run_expect(
        [0],
        "mkdir -p /run/full && mount -t tmpfs -o size=128k,mode=0755 tmpfs /run/full"
        " && mkdir /run/full/upper /run/full/work"
        f" && mount -t overlay -o lowerdir={HOME},upperdir=/run/full/upper,workdir=/run/full/work overlay {HOME}"
        f" && {{ cat /dev/zero > {HOME}/filling 2>/dev/null; test $(df --output=avail /run/full | tail -1) = 0; }}",
    )
    try:
        yield
    finally:
        host.run_expect([0], f"umount --lazy {HOME} && umount --lazy /run/full && rmdir /run/full")


def test_the_release_partition_is_full(
    host: Host, inventory: str, load: Load, record: Record, full_releases: None
) -> None:
    """The run ends red and says why; no instance was touched."""
    show = "systemctl show iris-api@1 iris-api@2 iris-api@3 --property=MainPID"
    before = host.run(show).stdout
    with load() as traffic:
        # One that no other test here has put on the host before.
        done = deploy(inventory, "-e", "fortress_model_name=wine")
    assert done.returncode != 0
    assert "No space left on device" in done.stdout, done.stdout
    assert host.run(show).stdout == before
    record("release partition full while a model is rolled out", traffic, None, "refused, the old one goes on")
    traffic.assert_nothing_failed()
