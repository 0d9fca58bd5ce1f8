"""What observing costs, from what hosts say of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tools import observing

UNIT = "Id={name}.service\nActiveState={state}\nCPUUsageNSec={spent}\n"


def said(moment: int, mtail: int, requests: int) -> str:
    units = [
        UNIT.format(name="mtail", state="active", spent=mtail),
        UNIT.format(name="grafana-server", state="inactive", spent=5),
    ]
    return f"{moment}\n" + "\n".join(units) + f"\nrequests={requests}\n---\n"


MEMORY = f"\nId=grafana-server.service\nPss=7\n\nId=mtail.service\nPss={20 * 1024}\n\n---\n"


def answer(number: float | None) -> str:
    result = [] if number is None else [{"metric": {}, "value": [1780315200, str(number)]}]
    return json.dumps({"status": "success", "data": {"result": result}}) + "\n"


def test_a_part_costs_what_it_has_spent_meanwhile() -> None:
    begin, end = said(10**18, 10**9, 1000), said(10**18 + 60 * 10**9, 10**9 + 300_000_000, 31000)
    cost = observing.parse(begin + end + MEMORY + answer(900) + answer(1.2))
    assert set(cost.parts) == {"mtail"}, "what does not run costs nothing"
    assert cost.parts["mtail"] == pytest.approx((0.005, 20 * 2**20))
    assert cost.requests == pytest.approx(500)
    assert cost.samples == 900
    assert cost.bytes_a_day == pytest.approx(900 * 1.2 * 86400)
    assert "  all                              0.50% of a core     20.0 MiB" in observing.screen("iris", cost)


def test_before_the_first_compaction_a_usual_size_is_taken() -> None:
    both = said(0, 0, 0) + said(10**9, 0, 0) + MEMORY
    assert observing.parse(both + answer(10) + answer(None)).bytes_a_day == 10 * observing.BYTES_A_SAMPLE * 86400
    elsewhere = observing.parse(both)
    assert (elsewhere.samples, elsewhere.bytes_a_day) == (0, 0), "Prometheus is on another host"


def test_a_mean_of_nothing_is_no_figure() -> None:
    assert observing.value('{"data": {"result": [{"value": [1, "NaN"]}]}}') == 0
    assert observing.value('{"data": {"result": [{"value": [1, "2.5"]}]}}') == 2.5


def test_the_throughput_is_compared_with_that_without() -> None:
    def at(requests: int) -> observing.Cost:
        return observing.parse(said(0, 0, 0) + said(10**9, 0, requests) + MEMORY)

    assert "  97.0% of the 1000 requests a second without them" in observing.screen("iris", at(970), at(1000))


def test_what_hosts_are_told_is_a_shell_script() -> None:
    look = observing.LOOK.format(units="mtail", seconds=1, port=9090)
    for script in (look, observing.PAUSED.format(look=look, running="mtail")):
        done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    line = " 9 9 31000 \n"
    [program] = [part for part in look.split("sed -n ")[1:] if part.startswith("'s/")]
    done = subprocess.run(["sed", "-n", program.split("'")[1]], input=line, capture_output=True, text=True, check=True)
    assert done.stdout == "requests=31000\n"


def test_prometheus_is_asked_at_the_port_of_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a shell that writes down what it is told, and says what a host would, stands for each host."""
    hosts = {"one": "{}", "two": "{fortress_prometheus_port: 19090}"}
    (tmp_path / "hosts.yml").write_text(
        f"all: {{hosts: {{{', '.join(f'{name}: {of}' for name, of in hosts.items())}}}}}\n"
    )
    answers = said(1_000_000_000, 0, 0) + said(2_000_000_000, 0, 0) + MEMORY + answer(1) + answer(1)
    (tmp_path / "answers").write_text(answers)
    (tmp_path / "ssh").write_text(f'#!/bin/sh\ncat >"{tmp_path}/told-$1"\ncat "{tmp_path}/answers"\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    observing.measure(str(tmp_path / "hosts.yml"), 1)
    ports = {name: re.findall(r"http://127.0.0.1:(\d+)/api", (tmp_path / f"told-{name}").read_text()) for name in hosts}
    assert ports == {"one": ["9090"], "two": ["19090"]}
