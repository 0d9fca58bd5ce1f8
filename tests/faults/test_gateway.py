"""The gateway is told to read its configuration again, is offered a broken one, and dies."""

from __future__ import annotations

import time

import pytest
from testinfra.host import Host

from tests.faults.traffic import Load, Record
from tests.operator import play

testinfra_hosts = ["ansible://gateway"]


def master(host: Host) -> str:
    return str(host.run("systemctl show nginx --property=MainPID --value").stdout).strip()


def test_reloads(host: Host, load: Load, record: Record) -> None:
    before = master(host)
    with load() as traffic:
        for _ in range(5):
            assert host.run("systemctl reload nginx").rc == 0
            time.sleep(1.5)
    assert master(host) == before
    record("five reloads of nginx", traffic, traffic.recovered_after())
    traffic.assert_nothing_failed()
    # At most each kept connection once a reload.
    assert traffic.kinds["keep-alive"].hit_closed <= 5, traffic.kinds
    assert traffic.kinds["http2"].hit_closed <= 5, traffic.kinds


def test_a_broken_configuration(host: Host, inventory: str, load: Load, record: Record) -> None:
    before = master(host), host.run(f"pgrep --parent {master(host)}").stdout
    with load() as traffic:
        done = play(inventory, "playbooks/gateway.yml", nginx_extra_config="location = /x { no_such_directive; }")
    assert done.returncode != 0
    assert 'unknown directive "no_such_directive"' in done.stdout
    assert (master(host), host.run(f"pgrep --parent {master(host)}").stdout) == before
    record("a converge that brings a broken nginx configuration", traffic, None, "refused, the old one goes on")
    traffic.assert_nothing_failed()


@pytest.mark.parametrize(
    ("fault", "do", "within"),
    [
        ("kill -9 of a worker of nginx", "kill -KILL $(pgrep --parent {master} | head -n 1)", 1),
        ("kill -9 of nginx' master", "kill -KILL {master}", 3),
        ("kill -9 of all of nginx", "kill -KILL {master} $(pgrep --parent {master})", 3),
        ("SIGTERM of nginx' master", "kill -TERM {master}", 3),
    ],
)
def test_nginx_dies(host: Host, load: Load, record: Record, fault: str, do: str, within: float) -> None:
    """Nobody else can answer meanwhile: what counts is how soon it is back."""
    command = do.format(master=master(host))
    since = host.run("date '+%F %T'").stdout.strip()
    with load(linger=within + 2) as traffic:
        traffic.strike()
        assert host.run(command).rc == 0
    recovery = traffic.recovered_after()
    record(fault, traffic, recovery, "nothing else can answer")
    traffic.assert_enough()
    # It ends as it was told to, and not because its sandbox is too tight.
    assert "status=31/SYS" not in host.run(f"journalctl --unit=nginx --since='{since}'").stdout
    assert recovery < within, traffic.explain()
    assert all(failure["began"] < traffic.struck + within for failure in traffic.failures), traffic.explain()


@pytest.mark.parametrize("whom", ["$(pgrep --parent {master})", "{master} $(pgrep --parent {master})"])
def test_every_worker_of_nginx_is_frozen(host: Host, load: Load, record: Record, whom: str) -> None:
    """They are replaced; a worker that is slow, or one of several that is frozen, is left alone."""
    with load(linger=15) as traffic:
        traffic.strike()
        assert host.run(f"kill -STOP {whom.format(master=master(host))}").rc == 0
    recovery = traffic.recovered_after()
    fault = "SIGSTOP of all of nginx" if whom.startswith("{master}") else "SIGSTOP of every worker of nginx"
    record(fault, traffic, recovery, "nothing else can answer")
    traffic.assert_enough()
    assert recovery < 15, traffic.explain()


@pytest.mark.parametrize(
    ("fault", "do"),
    [
        ("the file of passwords is emptied", "truncate --size=0 {file}"),
        ("the file of passwords is cut in the middle of a line", "truncate --size=-9 {file}"),
        ("the file of passwords is deleted", "rm {file}"),
    ],
)
def test_the_file_of_passwords_is_damaged(host: Host, load: Load, record: Record, fault: str, do: str) -> None:
    file = "/etc/nginx/fortress.htpasswd"
    before = host.run(f"stat --format='%U %G %a' {file}; cat {file}").stdout
    with load(linger=4) as traffic:
        traffic.strike()
        assert host.run(do.format(file=file)).rc == 0
    recovery = traffic.recovered_after()
    record(fault, traffic, recovery)
    assert host.run(f"stat --format='%U %G %a' {file}; cat {file}").stdout == before
    traffic.assert_enough()
    assert recovery < 2, traffic.explain()
