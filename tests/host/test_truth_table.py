"""The truth table of nginx' upstreams.conf, row by row: the gateway's own nginx, and instances that fail on demand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from tests import ROOT

testinfra_hosts = ["ansible://gateway"]

TABLE = ROOT / "roles" / "nginx" / "templates" / "etc" / "nginx" / "fortress.d" / "upstreams.conf"
AGAIN = ["never asked", "no", "once", "twice"]
COUNTS = ["no", "yes", "yes, two", "yes, three"]
ROWS = {
    cells[0].partition(" (")[0]: cells[1:]
    for line in TABLE.read_text().splitlines()
    if (cells := [cell.strip() for cell in line.strip("# |").split("|")]) and line.startswith("# | ")
    if cells[0] != "Cause" and not cells[0].startswith("---")
}


@pytest.fixture(scope="module")
def observed(host: Host) -> dict[str, dict[str, Any]]:
    """What came of every cause; they are brought about in one go, which takes half a minute."""
    program = (Path(__file__).parent / "stub_site.py").read_text()
    done = host.run(f"python3 - <<'PROGRAM'\n{program}\nPROGRAM")
    assert done.rc == 0, done.stderr
    return dict(json.loads(done.stdout))


def who_answers(found: dict[str, Any]) -> str:
    """Return who sent the whole of an answer; who sent it names itself, but for nginx."""
    served_by = found["headers"].get("x-served-by")
    if found["status"] == 0 or (served_by is None and not found["body"]):
        return "nobody"
    if served_by is None:
        return "nginx"
    return "the instance" if served_by == found["asked"][0] else "another instance"


def with_what(found: dict[str, Any]) -> str:
    """Return what the client, or else the log, has of it."""
    if who_answers(found) == "nobody":
        return f"{found['status']}, cut short" if found["status"] else f"{found['log']['status']} in the log"
    body = json.loads(found["body"] or "{}")
    code = f" `{body['code']}`" if "code" in body else ""
    return f"{found['status']}{code}{', Retry-After' if 'retry-after' in found['headers'] else ''}"


def test_every_cause_has_a_row_and_every_row_a_cause(observed: dict[str, dict[str, Any]]) -> None:
    assert {re.sub(r", over .*", "", cause) for cause in observed} == set(ROWS)


@pytest.mark.parametrize("cause", ROWS)
def test_what_becomes_of_a_request(host: Host, observed: dict[str, dict[str, Any]], cause: str) -> None:
    who, what, again, counts = ROWS[cause]
    limit = re.search(r"limit_req_status (\d+)", host.file("/etc/nginx/fortress.d/limits.conf").content_string)
    assert limit
    what = what.replace("`nginx_rate_limit_status`", limit[1])
    for found in (found for name, found in observed.items() if re.sub(r", over .*", "", name) == cause):
        outcome = who_answers(found), with_what(found), AGAIN[len(found["asked"])], COUNTS[len(found["left_out"])]
        assert outcome == (who, what, again, counts), found
        assert found["log"]["status"] == int(re.sub(r"\D", "", what)[:3])
        if who == "nginx":
            assert json.loads(found["body"])["request_id"] == found["headers"]["x-request-id"]


def test_no_third_instance_sees_a_request_that_kills(observed: dict[str, dict[str, Any]]) -> None:
    for name in ("poison", "poison, over kept connections"):
        assert len(set(observed[name]["seen"])) == 2


def test_an_instance_that_saw_nothing_uses_up_no_try(observed: dict[str, dict[str, Any]]) -> None:
    assert observed["two dead"]["seen"] == [18003]
    assert observed["host gone"]["seen"] == [18002]


def test_who_hangs_up_costs_the_instance_nothing(observed: dict[str, dict[str, Any]]) -> None:
    """The gateway leaves the instance at once, which sees it and can stop."""
    for name in ("client gone", "client gone, over HTTP/2"):
        assert observed[name]["log"]["request_time"] < 0.55
