"""What is counted of the gateway's requests: against the format that nginx writes, and by mtail itself."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader

from tests import ROOT
from tests.controller import render

PROGRAM = "etc/mtail/fortress-gateway.mtail"
UNIT = "etc/systemd/system/mtail.service.d/fortress.conf"
DEFAULTS = DataLoader().load_from_file(str(ROOT / "roles/mtail/defaults/main.yml"))
# As nginx has them: no client chooses any of them (tests/roles/test_nginx_templates.py).
REQUEST: dict[str, Any] = {
    "fortress_named": "predict",
    "fortress_known_method": "POST",
    "fortress_status": 200,
    "fortress_answered_by": "upstream",
    "fortress_weight": 1,
    "bytes_sent": 512,
    "request_time": "0.003",
    "fortress_accepted_password": "",
    "fortress_retried": "",
}


@cache
def log_format() -> str:
    """Return nginx' own log_format."""
    text = render("nginx", "etc/nginx/fortress.d/log.conf").partition("log_format fortress_counts")[2]
    return "".join(re.findall(r"^ +'(.*)'", text, re.MULTILINE))


def log_line(**request: Any) -> str:
    """Return the line that nginx writes for a request."""
    line = log_format()
    values = REQUEST | request
    assert set(re.findall(r"\$(\w+)", line)) == set(values)
    return re.sub(r"\$(\w+)", lambda found: str(values[found[1]]), line)


def patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the regular expressions by which the program reads a line: that of most lines, and that of all."""
    most, *every = re.findall(r"^ */(.*)/ (?:\+|\{)$", render("mtail", PROGRAM), re.MULTILINE)
    return re.compile(most), re.compile("".join(every))


def test_the_program_reads_what_nginx_writes() -> None:
    most, every = patterns()
    read = {"route": "predict", "method": "POST", "status": "200", "bytes": "512", "seconds": "0.003"}
    line = log_line()
    common, found = most.match(line), every.match(line)
    assert common
    assert found
    assert common.groupdict() == read
    assert found.groupdict() == read | {"answered_by": "upstream", "weight": "1", "password": "", "retried": ""}


def test_no_line_that_says_more_than_the_common_ones_is_taken_for_one() -> None:
    most, every = patterns()
    for said in (
        {"fortress_answered_by": "gateway"},
        {"fortress_answered_by": "limiter"},
        {"fortress_weight": 95},
        {"fortress_accepted_password": "previous"},
        {"fortress_retried": "retried"},
    ):
        line = log_line(**said)
        assert every.match(line)
        assert not most.match(line), said


def test_the_expressions_are_as_short_as_mtail_takes_them() -> None:
    assert all(len(each.pattern) < 1024 for each in patterns())


def test_labels_are_few_and_of_nginx() -> None:
    """Routes x methods x statuses are bounded by nginx and this program, whatever clients send."""
    program = render("mtail", PROGRAM)
    labels = dict(
        re.findall(r'^(?:counter|histogram) \w+ as "(\w+)"(?: by ([\w, ]+?))?(?: buckets .*)?$', program, re.MULTILINE)
    )
    assert labels["fortress_gateway_requests_total"] == "route, method, status, answered_by"
    assert {given for name, given in labels.items() if name != "fortress_gateway_requests_total"} == {"", "route"}
    assert "requests[$route][$method][$status][$answered_by] +=" in program


def test_every_preset_is_of_a_route_and_a_status_that_can_be() -> None:
    program = render("mtail", PROGRAM)
    presets = re.findall(r'^  requests\["(\w+)"\]\["(\w+)"\]\["(\d+)"\]\["(\w+)"\] \+= 0$', program, re.MULTILINE)
    assert len(presets) == len(set(presets)) > 100
    assert {route for route, *_ in presets} == set(DEFAULTS["mtail_routes"])
    for wanted in (
        ("predict", "POST", "503", "limiter"),
        ("predict", "POST", "429", "limiter"),
        ("predict", "POST", "503", "upstream"),
        ("predict", "POST", "500", "upstream"),
        ("predict", "POST", "502", "upstream"),
        ("predict", "POST", "504", "upstream"),
        ("predict", "POST", "401", "gateway"),
        ("probe", "GET", "401", "gateway"),
        ("v2", "POST", "502", "upstream"),
    ):
        assert wanted in presets


def test_mtail_listens_where_it_is_told(preflights: Callable[..., list[str]]) -> None:
    for listen, flags in (
        (":3903", "--address= --port=3903 "),
        ("192.0.2.7:3904", "--address=192.0.2.7 --port=3904 "),
        ("[2001:db8::7]:3903", "--address=2001:db8::7 --port=3903 "),
    ):
        assert flags in render("mtail", UNIT, mtail_listen_address=listen)
    fine, refused = preflights("mtail", {"mtail_listen_address": listen}, {"mtail_listen_address": "3903"})
    assert fine == ""
    assert "mtail_listen_address is 3903; give ADDRESS:PORT" in refused


def test_mtail_reads_the_log_that_nginx_writes_and_may_read_no_other_file_of_its_group() -> None:
    unit = render("mtail", UNIT)
    log = render("nginx", "etc/nginx/fortress.d/log.conf")
    assert f"access_log {DEFAULTS['mtail_log_file']} fortress_counts " in log
    assert f"--logs={DEFAULTS['mtail_log_file']} " in unit
    rotation = render("nginx", "etc/logrotate.d/nginx")
    assert f"    create 0640 www-data {DEFAULTS['mtail_log_group']}\n" in rotation
    assert f"\nSupplementaryGroups={DEFAULTS['mtail_log_group']}\n" in unit
    assert "IPAddressAllow=localhost 192.0.2.9\n" in render("mtail", UNIT, mtail_clients=["192.0.2.9"])


def test_it_comes_back_however_often_it_dies() -> None:
    unit, _, service = render("mtail", UNIT).partition("[Service]")
    assert "StartLimitIntervalSec=0" in unit
    assert "\nRestart=always\nRestartSec=2\n" in service


# --- by mtail itself -----------------------------------------------------------------------------------------------


def counted(mtail: str, folder: Path, *lines: str, program: str = "") -> dict[str, float]:
    """Return what mtail has counted of a log: `{"name{label=value,...}": ...}`, histograms by number and sum."""
    (folder / "progs").mkdir(parents=True)
    (folder / "progs" / "gateway.mtail").write_text(program or render("mtail", PROGRAM))
    (folder / "counts.log").write_text("".join(f"{line}\n" for line in lines))
    command = [mtail, "--one_shot", "--logtostderr", f"--progs={folder}/progs", f"--logs={folder}/counts.log"]
    command += ["--address=127.0.0.1", "--port=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = {}
    begin = min(place for place in map(done.stdout.find, "[{") if place >= 0)
    metrics, _ = json.JSONDecoder().raw_decode(done.stdout[begin:])
    # One list, or one for each name.
    for metric in metrics if isinstance(metrics, list) else [each for some in metrics.values() for each in some]:
        for series in metric.get("LabelValues") or []:
            labels = ",".join(series.get("Labels") or [])
            value = series["Value"]
            found[f"{metric['Name']}{{{labels}}}"] = value.get("Count", value.get("Value", 0))
            if "Sum" in value:
                found[f"{metric['Name']}_sum{{{labels}}}"] = value["Sum"]
    return found


def test_mtail_compiles_it(mtail: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.mtail").write_text(render("mtail", PROGRAM))
    command = [mtail, "--compile_only", "--logtostderr", "--address=127.0.0.1", "--port=0", f"--progs={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    (tmp_path / "gateway.mtail").write_text(render("mtail", PROGRAM).replace("+= $weight", "+= $wieght"))
    assert subprocess.run(command, capture_output=True, check=False, timeout=30).returncode != 0


def test_requests_are_counted_by_route_status_and_who_answered(mtail: str, tmp_path: Path) -> None:
    refused = {"fortress_status": 401, "fortress_answered_by": "gateway"}
    limited = {"fortress_status": 503, "fortress_answered_by": "limiter"}
    found = counted(
        mtail,
        tmp_path,
        *[log_line()] * 3,
        *[log_line(**refused)] * 37,
        *[log_line(**limited)] * 5,
        log_line(**limited, fortress_weight=95),
        log_line(fortress_status=503),
        log_line(fortress_status=502, fortress_retried="retried", request_time="5.001"),
        log_line(fortress_accepted_password="previous"),
        # An instance's own 401 is no wrong password at the gateway.
        log_line(fortress_status=401, fortress_named="v2"),
        log_line(
            fortress_known_method="other",
            fortress_named="other",
            fortress_status=405,
            fortress_answered_by="gateway",
        ),
        log_line(**limited),
        log_line()[:20],
    )
    requests = "fortress_gateway_requests_total"
    assert found[f"{requests}{{predict,POST,200,upstream}}"] == 4
    assert (
        found[f"{requests}{{predict,POST,401,gateway}}"]
        == found["fortress_gateway_refused_logins_total{predict}"]
        == 37
    )
    assert (
        found[f"{requests}{{predict,POST,503,limiter}}"]
        == found["fortress_gateway_limited_requests_total{predict}"]
        == 101
    )
    assert found[f"{requests}{{predict,POST,503,upstream}}"] == 1
    assert found[f"{requests}{{predict,POST,504,upstream}}"] == 0, "it is there before the first one"
    assert found[f"{requests}{{other,other,405,gateway}}"] == 1
    assert found["fortress_gateway_retried_requests_total{predict}"] == 1
    assert found["fortress_gateway_previous_password_requests_total{}"] == 1
    assert found["fortress_gateway_request_duration_seconds{predict}"] == 6
    assert found[f"{requests}{{v2,POST,401,upstream}}"] == 1
    assert "fortress_gateway_refused_logins_total{v2}" in found
    assert found["fortress_gateway_refused_logins_total{v2}"] == 0
    assert found["fortress_gateway_log_lines_total{}"] == 53
    assert found["fortress_gateway_unread_log_lines_total{}"] == 1


def test_common_lines_count_as_they_would_by_the_pattern_of_all(mtail: str, tmp_path: Path) -> None:
    program = render("mtail", PROGRAM)
    without, removed = re.subn(r"^/.* upstream 1 .*/ \{\n(?:  .*\n)+\}\n", "", program, flags=re.MULTILINE)
    assert removed == 1
    lines = [
        "preset",
        *[log_line()] * 3,
        log_line(fortress_status=500, request_time="5.001", bytes_sent=9),
        log_line(fortress_named="v2", fortress_known_method="other", fortress_status="009"),
    ]
    found = counted(mtail, tmp_path / "most", *lines)
    assert found["fortress_gateway_request_duration_seconds{predict}"] == 4
    assert found["fortress_gateway_request_duration_seconds_sum{predict}"] == pytest.approx(5.012)
    assert found["fortress_gateway_requests_total{v2,other,009,upstream}"] == 1
    assert found == counted(mtail, tmp_path / "all", *lines, program=without)


@pytest.fixture
def running(mtail: str, tmp_path: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """An mtail that runs as its unit has it; return a function that returns what Prometheus would read."""
    (tmp_path / "progs").mkdir()
    (tmp_path / "progs" / "gateway.mtail").write_text(render("mtail", PROGRAM))
    for name in ("counts.log", "presets"):
        (tmp_path / name).touch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [flags] = re.findall(r"^ExecStart=/usr/bin/mtail (.*\\\n.*)$", render("mtail", UNIT), re.MULTILINE)
    told = flags.replace("\\\n", "").replace("/etc/mtail", f"{tmp_path}/progs").replace("--port=3903", f"--port={port}")
    told = told.replace("/var/log/nginx/", f"{tmp_path}/").replace("/run/fortress-mtail/", f"{tmp_path}/")
    command = [mtail, *told.replace("--address=", "--address=127.0.0.1").split()]

    def read() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(number) for name, _, number in (line.rpartition(" ") for line in lines) if name[:1] != "#"}

    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        yield read
        process.terminate()


def wait_for(what: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if what():
                return True
        time.sleep(0.05)
    return False


def test_series_are_there_before_the_first_request_and_a_rotation_loses_none(
    running: Callable[[], dict[str, float]], tmp_path: Path
) -> None:
    def write(name: str, *lines: str) -> None:
        with (tmp_path / name).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def presets() -> bool:
        write("presets", "preset")
        return any(name.startswith("fortress_gateway_requests_total{") for name in running())

    assert wait_for(presets)
    first = running()
    assert {number for name, number in first.items() if name.startswith("fortress_gateway_")} == {0}
    assert not [name for name in first if name.startswith("fortress_gateway") and "prog=" in name]

    line = log_line()
    write("counts.log", *[line] * 3)
    # What is renamed before mtail has found it would not be read at all.
    assert wait_for(lambda: running()["fortress_gateway_log_lines_total"] >= 3)
    # logrotate renames and creates, and nginx, which is told after that, still writes to the file that it has open.
    with (tmp_path / "counts.log").open("a") as still_open:
        (tmp_path / "counts.log").rename(tmp_path / "counts.log.1")
        still_open.write(f"{line}\n")
    (tmp_path / "counts.log").touch()
    write("counts.log", *[line] * 2)
    assert wait_for(lambda: running()["fortress_gateway_log_lines_total"] >= 6)
    assert running()["fortress_gateway_log_lines_total"] == 6
    assert running()["fortress_gateway_unread_log_lines_total"] == 0
    # The time of each is in a bucket, also of what took less than a millisecond.
    write("counts.log", log_line(request_time="0.000"))
    first_bucket = 'fortress_gateway_request_duration_seconds_bucket{route="predict",le="0.001"}'
    assert wait_for(lambda: running().get(first_bucket) == 1)
