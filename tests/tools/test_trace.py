"""`make trace` shows one request on its way through gateway and instances."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import trace
from tools.remote import Hosts

ID = "0123456789abcdef0123456789abcdef"
# As log.conf of the role nginx has nginx write it, of a request for which the first instance gave no answer.
ACCESS: dict[str, Any] = {
    "time": "2026-11-26T13:00:00+00:00",
    "msec": 1795698000.250,
    "remote_addr": "172.30.0.1",
    "user": "iris",
    "password": "",
    "method": "POST",
    "path": "/predict",
    "status": 500,
    "bytes": 512,
    "request_time": 0.021,
    "request_id": ID,
    "limit": "PASSED",
    "connection_requests": 1,
    "upstream_addr": "127.0.0.1:8001, 127.0.0.1:8002",
    "upstream_status": "502, 500",
    "upstream_bytes_sent": "0, 300",
    "upstream_response_time": "0.001, 0.018",
    "host": "iris.fortress.test",
    "http_version": "HTTP/2.0",
    "ssl_protocol": "TLSv1.3",
    "user_agent": "curl/8",
}
EVENT = {
    "time": "2026-11-26T13:00:00.240+00:00",
    "level": "error",
    "logger": "iris_api.http",
    "message": "Unexpected error",
    "request_id": ID,
    "path": "/predict",
    "exception": "Traceback (most recent call last):\nZeroDivisionError: division by zero",
}
# As `journalctl --output=json` writes an entry.
ENTRY = {
    "MESSAGE": json.dumps(EVENT),
    "_SYSTEMD_UNIT": "iris-api@2.service",
    "__REALTIME_TIMESTAMP": "1795698000240000",
    "PRIORITY": "3",
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine as a host of a site, with programs that say what its logs have, and an inventory of it."""
    real = shutil.which("zgrep")
    assert real
    # The real zgrep looks for the same in these files, in the place of the host's.
    search = f'exec {real} "$1" "$2" "$3" "$4" {tmp_path}/access.log*'
    programs = {
        "sudo": 'exec "$@"',
        "zgrep": search,
        "journalctl": f'echo "$@" >>{tmp_path}/asked; cat {tmp_path}/journal',
    }
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    other = ACCESS | {"request_id": "other"}
    (tmp_path / "access.log").write_text(json.dumps(other, separators=(",", ":")) + "\n")
    (tmp_path / "access.log.1").write_text(json.dumps(ACCESS, separators=(",", ":")) + "\n")
    subprocess.run(["gzip", "--keep", "--force", tmp_path / "access.log"], check=True)
    (tmp_path / "journal").write_text(json.dumps(ENTRY) + "\n" + json.dumps(ENTRY | {"MESSAGE": "no JSON"}) + "\n")
    members = {"hosts": {"fortress": None}}
    children = {"gateway": members, "api": members, "monitoring": members}
    hosts = {"fortress": {"ansible_connection": "local"}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": children}}))
    return tmp_path


def test_a_request_is_shown_through_gateway_and_instances(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.main(["-i", str(host / "hosts.yml"), ID]) == 0
    said = capsys.readouterr().out
    lines = [line.strip() for line in said.splitlines()]
    # In the order of time: nginx writes when the answer has been sent.
    assert lines == [
        "2026-11-26 13:00:00.240  iris-api@2 on fortress  ERROR Unexpected error",
        "path: /predict",
        "Traceback (most recent call last):",
        "ZeroDivisionError: division by zero",
        "2026-11-26 13:00:00.250  nginx on fortress       "
        "POST /predict by iris from 172.30.0.1: 500 after 21 ms, 512 bytes",
        "asked 127.0.0.1:8001 (iris-api@1): 502 after 1 ms",
        "asked 127.0.0.1:8002 (iris-api@2): 500 after 18 ms",
    ]
    # The journal has no index of ids: it is searched a minute before and after.
    assert "--since=@1795697940 --until=@1795698060" in (host / "asked").read_text()


def test_a_request_that_went_well_is_not_missed_in_the_journal(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "journal").write_text("")
    assert trace.main(["-i", str(host / "hosts.yml"), ID]) == 0
    assert "The instances wrote nothing of it" in capsys.readouterr().out


def test_an_id_that_no_log_has_is_not_found_and_why_that_may_be(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (host / "journal").write_text("")
    assert trace.main(["-i", str(host / "hosts.yml"), "nobody"]) == 1
    assert "No host has written of nobody" in capsys.readouterr().err
    assert "--since=-1day --until=now" in (host / "asked").read_text()


@pytest.mark.parametrize("wrong", ["", "a'; reboot; '", "$(id)", "a" * 129])
def test_what_is_no_id_reaches_no_host(host: Path, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    assert trace.main(["-i", str(host / "hosts.yml"), wrong]) == 1
    assert "is no id of a request" in capsys.readouterr().err
    assert not (host / "asked").exists()


def test_what_a_limit_refused_says_so_and_that_no_instance_was_asked() -> None:
    refused = ACCESS | {"limit": "REJECTED", "status": 503, "user": "", "upstream_addr": "", "upstream_status": ""}
    step = trace.at_gateway("gate", json.dumps(refused | {"upstream_response_time": ""}), {})
    assert step.text == "POST /predict from 172.30.0.1: 503 after 21 ms, 512 bytes"
    assert step.more == ["the rate limit: REJECTED", "no instance was asked"]


def test_an_entry_that_is_no_event_is_shown_as_it_is() -> None:
    raw = trace.in_unit("api1", json.dumps(ENTRY | {"MESSAGE": list(b"caf\xe9 " + ID.encode())}))
    assert (raw.where, raw.text) == ("iris-api@2 on api1", f"caf\ufffd {ID}")
    assert trace.in_unit("api1", json.dumps(ENTRY | {"MESSAGE": "[1]"})).text == "[1]"


def test_an_instance_is_numbered_by_the_ports_of_the_host_that_has_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an address that no host has any more, none is."""
    hosts: dict[str, Any] = {
        "gate": {"ansible_host": "192.0.2.10"},
        "api1": {"ansible_host": "192.0.2.11"},
        "api2": {"ansible_host": "2001:db8::5", "fortress_api_base_port": 9001},
    }
    groups = {"gateway": ["gate"], "api": ["api1", "api2"], "monitoring": ["gate"]}
    children = {group: {"hosts": dict.fromkeys(members)} for group, members in groups.items()}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": children}}))
    asked = {
        "upstream_addr": "192.0.2.11:8002, [2001:db8::5]:9002, 192.0.2.9:8001",
        "upstream_status": "502, 502, 500",
        "upstream_response_time": "0.001, 0.002, 0.018",
    }
    lines = {"gate": [json.dumps(ACCESS | asked)]}
    monkeypatch.setattr(trace, "run", lambda reach, command: lines.items() if "zgrep" in command else ())
    [step] = trace.steps(Hosts(str(tmp_path / "hosts.yml")), ID)
    assert step.more == [
        "asked 192.0.2.11:8002 (iris-api@2): 502 after 1 ms",
        "asked [2001:db8::5]:9002 (iris-api@2): 502 after 2 ms",
        "asked 192.0.2.9:8001: 500 after 18 ms",
    ]
