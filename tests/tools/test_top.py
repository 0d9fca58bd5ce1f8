"""`make top`: who asked a gateway, by its log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import top
from tools.top import clients, table


def line(address: str, status: int = 200, **more: object) -> str:
    return json.dumps(
        {"remote_addr": address, "status": status, "limit": "PASSED", "bytes": 500, "path": "/predict"} | more
    )


LOG = [
    *[line("192.0.2.1")] * 30,
    *[line("192.0.2.2", 503, limit="REJECTED", weight=100, route="predict")] * 2,
    *[line("192.0.2.3", 401, limit="PASSED")] * 5,
    line("192.0.2.4", 502),
    '{"remote_addr":"192.0.2.9","sta',
]


def test_each_client_has_its_counts_and_a_line_may_stand_for_many_requests() -> None:
    found = clients(LOG)
    counts = {name: (each.requests, each.limited, each.refused, each.failed) for name, each in found.items()}
    assert counts == {
        "192.0.2.1": (30, 0, 0, 0),
        "192.0.2.2": (200, 200, 0, 0),
        "192.0.2.3": (5, 0, 5, 0),
        "192.0.2.4": (1, 0, 0, 1),
    }


def test_the_busiest_come_first_and_who_tries_passwords_is_never_left_out() -> None:
    rows = table(clients(LOG), shown=2).splitlines()
    assert [row.split()[0] for row in rows][:4] == ["ADDRESS", "192.0.2.2", "192.0.2.1", "192.0.2.3"]
    assert rows[1].split() == ["192.0.2.2", "200", "200", "0", "0", "0.0", "predict"]


def test_what_a_client_sent_does_not_reach_the_terminal() -> None:
    assert "\x1b" not in table(clients([line("192.0.2.1", path="/\x1b[2J")]))


def test_a_host_that_is_not_there_is_no_empty_log(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("gateway: {hosts: {gw1: {ansible_connection: local}}}\n")
    with pytest.raises(SystemExit, match="has no host typo: it has gw1"):
        top.main(["-i", str(tmp_path / "hosts.yml"), "--hosts", "typo"])
