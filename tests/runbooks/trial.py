"""Runbooks are tried: while a fault stands, their commands are run as they stand on the page, and the alert ends."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

from testinfra.host import Host

from tests import ROOT, operator
from tests.monitored import features_of, now, query, value_in, wait_for
from tests.runbooks.faults import FOLDER, Fault, clients, unit
from tests.runbooks.hurried import hurried
from tests.runbooks.page import MAKE, ON_CONTROL_NODE, PROMETHEUS, commands
from tools.rules.__main__ import rendered

# Of a unit that does not run, 3 is systemctl's answer and no failure; and make may be asked for what fails now.
ANSWERS = {0, 1, 3}
MAKES = {0, 2}


def put(host: Host, path: str, text: str) -> None:
    """Write a file that everybody may read."""
    content = base64.b64encode(text.encode()).decode()
    host.check_output(f"echo {content} | base64 -d | install -m 0644 /dev/stdin {path}")


def table(features: list[dict[str, Any]], rows: Sequence[Sequence[float | None]]) -> str:
    """Return a thousand rows as CSV, these in turn; None is a gap."""
    header = ",".join(str(feature["name"]) for feature in features)
    lines = [",".join("" if value is None else f"{value:.6g}" for value in row) for row in rows]
    return "\n".join([header, *(lines * 1000)[:1000], ""])


def worlds(host: Host, features: list[dict[str, Any]]) -> tuple[str, str, str]:
    """Return rows like those of training; some by which the model is in doubt, a tenth in mm for cm; some with gaps."""
    bins = range(len(features[0]["reference"]["shares"]))
    usual = [[value_in(feature, number) for feature in features] for number in bins]
    every = [
        [value_in(*each) for each in zip(features, some, strict=True)] for some in product(bins, repeat=len(features))
    ]
    names = [feature["name"] for feature in features]
    put(host, f"{FOLDER}/every.json", json.dumps([dict(zip(names, row, strict=True)) for row in every]))
    answers = json.loads(
        host.check_output(
            "curl --silent --fail --header 'Content-Type: application/json' "
            f"--data-binary @{FOLDER}/every.json http://127.0.0.1:8001/predict"
        )
    )
    confidence = [max(answer["prediction_proba"]) for answer in answers]
    doubtful = every[confidence.index(min(confidence))]
    shifted = [*[doubtful] * 9, [10 * value for value in usual[-1]]]
    gaps = [[*row[:-1], None] for row in usual] + usual
    return table(features, usual), table(features, shifted), table(features, gaps)


def give(host: Host, rules: dict[str, str]) -> None:
    """Have Prometheus go by these rules."""
    for name, text in rules.items():
        put(host, f"/etc/prometheus/rules/{name}", text)
    host.check_output("systemctl reload prometheus")


@contextmanager
def asked(host: Host) -> Iterator[None]:
    """Clients that keep to the limit, rows that are like those of training, and what faults are made of.

    At the end they are gone, and Prometheus goes by the site's own rules again.
    """
    features = features_of(host)
    host.check_output(f"install -d {FOLDER} && touch {FOLDER}/fails {FOLDER}/grows {FOLDER}/opens {FOLDER}/leaks")
    usual, shifted, gaps = worlds(host, features)
    for name in ("clients", "limits"):
        put(host, f"{FOLDER}/{name}.py", (ROOT / "tests" / "runbooks" / f"{name}_on_host.py").read_text())
    put(host, f"{FOLDER}/usual.csv", usual)
    put(host, f"{FOLDER}/shifted.csv", shifted)
    put(host, f"{FOLDER}/gaps.csv", gaps)
    put(host, f"{FOLDER}/address", os.environ["FORTRESS_HOST"])
    put(host, f"{FOLDER}/login", f"{os.environ['FORTRESS_USER']}:{os.environ['FORTRESS_PASSWORD']}")
    row = {feature["name"]: value_in(feature, 0) for feature in features}
    put(host, f"{FOLDER}/row.json", json.dumps(row))
    host.check_output(f"ln -s usual.csv {FOLDER}/rows.csv; {clients('predictions')}; {clients('rows')}")
    try:
        yield
    finally:
        host.run("systemctl stop 'fortress-fault-*'; rm -f /run/systemd/system/fortress-fault-*")
        host.run("systemctl daemon-reload; systemctl reset-failed 'fortress-fault-*'")
        host.run(f"rm -r {FOLDER}")
        give(host, rendered())


def firing(host: Host, since: float | None = None) -> set[str]:
    """Return the alerts that fire, or that have fired since a time of the host's clock."""
    alerts = 'ALERTS{alertstate="firing"}'
    if since:
        alerts = f"last_over_time({alerts}[{now(host) - since + 1:.0f}s])"
    return {each["metric"]["alertname"] for each in query(host, f"count by (alertname) ({alerts})")}


class Machine:
    """What else runs on the machine of a local VM, whose processors are the machine's."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._before = self._now()
        self._others = 0.0

    def explains(self) -> set[str]:
        """Return the alert that is right to fire where its fault has ended, and others keep the processors busy."""
        now = self._now()
        [every, idle, own] = (late - early for late, early in zip(now, self._before, strict=True))
        # Of a shorter time it says little.
        if every > 10 * os.sysconf("SC_CLK_TCK"):
            self._before, self._others = now, 1 - (idle + own) / every
        ended = not self._host.service(unit("busy")).is_running
        return {"ProcessorBusy"} if ended and self._others > 0.8 else set()

    def _now(self) -> tuple[float, float, float]:
        """Return the time of all processors, what of it they were idle, and what this host's processes had of it."""
        said = self._host.check_output("head -1 /proc/stat; cat /sys/fs/cgroup/cpu.stat")
        ticks = [int(number) for number in re.findall(r"\d+", said.partition("\n")[0])][:8]
        own = int(re.findall(r"usage_usec (\d+)", said)[0])
        return sum(ticks), ticks[3], own * os.sysconf("SC_CLK_TCK") / 1e6


class Reader:
    """Who reads the runbooks, and types what they say: on the host, on the control node, or into Prometheus."""

    def __init__(self, host: Host, inventory: str, *options: str) -> None:
        self._host = host
        self._inventory = inventory
        self._options = options
        self.typed: set[str] = set()

    def types(self, command: str, fine: set[int], of_make: set[int]) -> str:
        """Run a command, those of make once for all faults that stand at the same time; return what a host says."""
        if command.startswith(PROMETHEUS):
            assert query(self._host, command.removeprefix(PROMETHEUS)), f"nothing of {command}"
        elif command.startswith((MAKE, *ON_CONTROL_NODE)):
            if command in self.typed:
                return ""
            self.typed.add(command)
            type_there = operator.make if command.startswith(MAKE) else operator.types
            made = type_there(command, self._inventory, *self._options)
            assert made.returncode in of_make, f"{command}: {made.stdout[-6000:]}{made.stderr}"
        else:
            done = self._host.run(command)
            assert done.rc in fine, f"{command}: {done.stdout[-2000:]}{done.stderr}"
            return str(done.stdout)
        return ""


def try_runbooks(host: Host, inventory: str, faults: Sequence[Fault], *options: str) -> None:
    """Cause faults side by side, and hold that what their runbooks say ends the alerts; the options are Ansible's."""
    alerts = {fault.alert for fault in faults}
    give(host, hurried())
    reader = Reader(host, inventory, *options)
    begun, ended = now(host), False
    try:
        for fault in faults:
            if callable(fault.cause):
                fault.cause(host, inventory)
            elif fault.cause:
                host.run(fault.cause)
        wait_for(lambda: alerts <= firing(host, begun), 300)
        silent = alerts - firing(host, begun)
        assert not silent, f"caused, and not firing: {silent}"
        said = dict.fromkeys(alerts, "")
        for fault in faults:
            for command in commands(fault, "Confirm"):
                said[fault.alert] += reader.types(command, ANSWERS, MAKES)
        reader.typed.clear()
        # First what takes no time: what is converged is what is wrong then.
        for fault in faults:
            host.check_output(fault.repair or "true")
        acts = [(fault.alert, command) for fault in faults for command in commands(fault, "Act")]
        for alert, command in sorted(acts, key=lambda act: act[1].startswith(MAKE)):
            said[alert] += reader.types(command, {0}, {0})
        unseen = {fault.shows: said[fault.alert] for fault in faults if fault.shows not in said[fault.alert]}
        assert not unseen, f"not named by the commands: {unseen}"
        # Who converges gets the site's own.
        give(host, hurried())
        reader.typed.clear()
        machine = Machine(host)
        wait_for(lambda: not alerts & firing(host) - machine.explains(), 300)
        left = alerts & firing(host) - machine.explains()
        assert not left, f"still firing: {left}"
        for fault in faults:
            for command in commands(fault, "Check"):
                reader.types(command, {0}, {0})
        ended = True
    finally:
        for fault in faults:
            host.run(f"{fault.repair or 'true'}; {fault.undo or 'true'}")
        host.run(
            "systemctl start nginx prometheus-nginx-exporter prometheus-node-exporter prometheus-alertmanager mtail "
            "fortress-host-metrics iris-api.target iris-api@1 iris-api@2 iris-api@3"
        )
        if not ended:
            # What was changed by hand must not be there for the next ones.
            reader.typed.clear()
            reader.types("make converge", {0}, MAKES)
