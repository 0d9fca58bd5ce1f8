"""What is counted of the gateway's access log: against the format that nginx writes, and by mtail itself."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader

from tests import ROOT
from tests.controller import render

PROGRAM = "etc/mtail/fortress-gateway.mtail"
UNIT = "etc/systemd/system/mtail.service.d/fortress.conf"
DEFAULTS = DataLoader().load_from_file(str(ROOT / "roles/mtail/defaults/main.yml"))
# As nginx has them; what a client chooses is among them.
REQUEST: dict[str, Any] = {
    "time_iso8601": "2026-06-01T12:00:00+00:00",
    "msec": "1780315200.123",
    "remote_addr": "192.0.2.7",
    "logged_user": "iris",
    "fortress_accepted_password": "",
    "logged_method": "POST",
    "logged_path": "/predict",
    "fortress_named": "predict",
    "fortress_weight": 1,
    "fortress_status": 200,
    "bytes_sent": 512,
    "request_time": "0.003",
    "fortress_request_id": "0123456789abcdef",
    "limit_req_status": "PASSED",
    "connection_requests": 1,
    "upstream_addr": "127.0.0.1:8001",
    "upstream_status": "200",
    "upstream_bytes_sent": "412",
    "upstream_response_time": "0.003",
    "logged_host": "iris.fortress.test",
    "logged_protocol": "HTTP/2.0",
    "ssl_protocol": "TLSv1.3",
    "logged_agent": "curl/8",
}


def log_line(**request: Any) -> str:
    """Return the line that nginx writes for a request, by its own log_format; texts as escape=json writes them."""
    text = render("nginx", "etc/nginx/fortress.d/log.conf")
    line = "".join(re.findall(r"^ +'(.*)'", text.partition("escape=json")[2], re.MULTILINE))
    values = REQUEST | request
    assert set(re.findall(r"\$(\w+)", line)) == set(REQUEST)
    return re.sub(r"\$(\w+)", lambda found: json.dumps(str(values[found[1]]), ensure_ascii=False)[1:-1], line)


def pattern() -> re.Pattern[str]:
    """Return the regular expression by which the program reads a line."""
    fragments = re.findall(r"^ +/(.*)/ (?:\+|\{)$", render("mtail", PROGRAM), re.MULTILINE)
    return re.compile("".join(fragment.replace(r"\/", "/") for fragment in fragments))


def test_the_program_reads_what_nginx_writes() -> None:
    line = log_line()
    json.loads(line)
    found = pattern().match(line)
    assert found
    assert found.groupdict() == {
        "password": "",
        "method": "POST",
        "route": "predict",
        "weight": "1",
        "status": "200",
        "bytes": "512",
        "seconds": "0.003",
        "limit": "PASSED",
        "upstreams": "127.0.0.1:8001",
    }


@pytest.mark.parametrize(
    "text", ['x","status":200,"route":"predict', "\\", '\\"', "a\nb", "é😀", '"}\n{"time":"', "x" * 300]
)
def test_no_text_of_a_client_changes_what_is_counted(text: str) -> None:
    """Of a user, a method, a path: nobody writes a field of the log by it."""
    for name in ("logged_user", "logged_method", "logged_path", "logged_host", "logged_agent"):
        found = pattern().match(log_line(**{name: text, "fortress_status": 401, "fortress_named": "other"}))
        assert found, name
        assert (found["status"], found["route"], found["weight"]) == ("401", "other", "1"), name


def test_the_expression_is_as_short_as_mtail_takes_one() -> None:
    assert len(pattern().pattern) < 1024


def test_labels_are_few_and_of_nginx() -> None:
    """Routes x methods x statuses are bounded by nginx and this program, whatever clients send."""
    program = render("mtail", PROGRAM)
    labels = dict(
        re.findall(r'^(?:counter|histogram) \w+ as "(\w+)"(?: by ([\w, ]+?))?(?: buckets .*)?$', program, re.MULTILINE)
    )
    assert labels["fortress_gateway_requests_total"] == "route, method, status, answered_by"
    assert {given for name, given in labels.items() if name != "fortress_gateway_requests_total"} == {"", "route"}
    assert "[$route][known_method][$status][answerer]" in program, "the client's own method would be a label"


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
    assert f"access_log {DEFAULTS['mtail_log_file']} " in log
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


def counted(mtail: str, folder: Path, *lines: str) -> dict[str, float]:
    """Return what mtail has counted of a log: `{"name{label=value,...}": ...}`, histograms by their number."""
    (folder / "progs").mkdir()
    (folder / "progs" / "gateway.mtail").write_text(render("mtail", PROGRAM))
    (folder / "access.log").write_text("".join(f"{line}\n" for line in lines))
    command = [mtail, "--one_shot", "--logtostderr", f"--progs={folder}/progs", f"--logs={folder}/access.log"]
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
    return found


def test_mtail_compiles_it(mtail: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.mtail").write_text(render("mtail", PROGRAM))
    command = [mtail, "--compile_only", "--logtostderr", "--address=127.0.0.1", "--port=0", f"--progs={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    (tmp_path / "gateway.mtail").write_text(render("mtail", PROGRAM).replace("+= $weight", "+= $wieght"))
    assert subprocess.run(command, capture_output=True, check=False, timeout=30).returncode != 0


def test_requests_are_counted_by_route_status_and_who_answered(mtail: str, tmp_path: Path) -> None:
    refused = {"fortress_status": 401, "upstream_addr": "", "logged_user": "mallory"}
    limited = {"fortress_status": 503, "upstream_addr": "", "limit_req_status": "REJECTED"}
    found = counted(
        mtail,
        tmp_path,
        *[log_line()] * 3,
        *[log_line(**refused)] * 37,
        *[log_line(**limited)] * 5,
        log_line(**limited, fortress_weight=95, connection_requests=100),
        log_line(fortress_status=503),
        log_line(fortress_status=502, upstream_addr="127.0.0.1:8001 : 127.0.0.1:8002", request_time="5.001"),
        log_line(fortress_accepted_password="previous"),
        log_line(logged_method="BREW", fortress_named="other", fortress_status=405, upstream_addr=""),
        log_line(logged_user='x","status":200,"route":"predict', **limited),
        '{"time":"cut',
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
    assert found["fortress_gateway_log_lines_total{}"] == 52
    assert found["fortress_gateway_unread_log_lines_total{}"] == 1


@pytest.fixture
def running(mtail: str, tmp_path: Path) -> Iterator[Callable[[], dict[str, float]]]:
    """An mtail that runs as its unit has it; return a function that returns what Prometheus would read."""
    (tmp_path / "progs").mkdir()
    (tmp_path / "progs" / "gateway.mtail").write_text(render("mtail", PROGRAM))
    for name in ("access.log", "presets"):
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

    write("access.log", *[log_line()] * 3)
    # What is renamed before mtail has found it would not be read at all.
    assert wait_for(lambda: running()["fortress_gateway_log_lines_total"] >= 3)
    # logrotate renames and creates, and nginx, which is told after that, still writes to the file that it has open.
    (tmp_path / "access.log").rename(tmp_path / "access.log.1")
    write("access.log.1", log_line())
    (tmp_path / "access.log").touch()
    write("access.log", *[log_line()] * 2)
    assert wait_for(lambda: running()["fortress_gateway_log_lines_total"] >= 6)
    assert running()["fortress_gateway_log_lines_total"] == 6
    assert running()["fortress_gateway_unread_log_lines_total"] == 0
    # The time of each is in a bucket, also of what took less than a millisecond.
    write("access.log", log_line(request_time="0.000"))
    first_bucket = 'fortress_gateway_request_duration_seconds_bucket{route="predict",le="0.001"}'
    assert wait_for(lambda: running().get(first_bucket) == 1)
