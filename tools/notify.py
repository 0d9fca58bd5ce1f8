"""Send a test notification to whoever is told of alerts, and say who got it: `make notify`.

    python -m tools.notify -i inventory/prod                                    as of a critical alert
    python -m tools.notify -i inventory/prod --severity warning --host api2     as of a warning of a host

The alert TestNotification goes to Alertmanager on each monitoring host, and from there by the routes, passwords and
addresses of every other one. It ends after a minute, which is told too. Exit code 1: somebody was not reached.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

import yaml

from tools.remote import Hosts, ssh

ALERT = "TestNotification"
CONFIGURATION = "/etc/prometheus/alertmanager.yml"
ENDS_AFTER = timedelta(minutes=1)
POLL_SECONDS = 1.0
# Alertmanager tries for as long as `group_interval`, at least 10 s; only then it writes which receivers it gave up.
LEAST_PATIENCE_SECONDS = 10.0
WRITES_SECONDS = 5.0

Ask = Callable[[str], str]
"""Runs a command on a monitoring host and returns what it prints."""


class Count(NamedTuple):
    """Notifications of one kind (`webhook`, `email`, `slack`) since Alertmanager's start."""

    begun: float = 0
    through: float = 0


def addressees(configuration: str, receiver: str) -> dict[str, str]:
    """Return whom each way of a receiver reaches: `{"email[0]": "ops@example.com"}`, as Alertmanager's log names ways.

    Args:
        configuration: The text of alertmanager.yml.
        receiver: One of its receivers, by name.
    """
    [ways] = [each for each in yaml.safe_load(configuration)["receivers"] if each["name"] == receiver]
    who = {
        "webhook": lambda way: urlsplit(way["url"]).netloc.rpartition("@")[2],
        "email": lambda way: way["to"],
        "slack": lambda way: way["api_url_file"].rpartition("/")[2].removesuffix("_slack_url"),
    }
    return {
        f"{kind}[{number}]": who[kind](way)
        for kind in who
        for number, way in enumerate(ways.get(f"{kind}_configs", []))
    }


def counts(metrics: str) -> dict[str, Count]:
    """Return how many notifications were begun and how many went through, by kind.

    Args:
        metrics: Those of Alertmanager. It counts a notification when it begins, and a request when it was answered.
    """
    found: dict[str, Count] = {}
    pattern = r"^alertmanager_(notifications|notification_requests|notification_requests_failed)_total\{(.+)\} (\S+)$"
    for name, labels, value in re.findall(pattern, metrics, re.MULTILINE):
        [kind] = re.findall(r'integration="(\w+)"', labels)
        begun, through = found.get(kind, Count())
        if name == "notifications":
            begun += float(value)
        else:
            through += -float(value) if name.endswith("failed") else float(value)
        found[kind] = Count(begun, through)
    return found


def failures(log: str, receiver: str) -> dict[str, str]:
    """Return why a receiver was not reached, by its way (`email[0]`); addresses without their path.

    Args:
        log: What Alertmanager has written; it tries again after the one kind of failures, and gives up after the other.
        receiver: Whose failures are meant, by name.
    """
    found = {}
    name = re.escape(receiver)
    for line in log.splitlines():
        error = re.search(r'\berr="((?:[^"\\]|\\.)*)"', line)
        if not error:
            continue
        # A path may be a secret, as in the address of an incoming webhook.
        text = re.sub(r"(https?://[^/\s\"]+)[^\s\";]*", r"\1/...", error[1].replace('\\"', '"'))
        if tried := re.search(rf'\breceiver=(?:{name}|"{name}") integration=(\w+\[\d+\])', line):
            found[tried[1]] = text
        # Of several that it gave up it writes in one line.
        for each in re.split(rf"(?:; |\\n)(?={name}/)", text):
            if given_up := re.match(rf"{name}/(\w+\[\d+\]): (?:.*? after \d+ attempts: )?(.*)", each):
                found[given_up[1]] = given_up[2].rstrip(": ")
    return found


def seconds(duration: str) -> float:
    """Return what Alertmanager calls `10s`, `1m` or `1h30m`."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdw])", duration))


def notify(
    ask: Ask, port: int, labels: Mapping[str, str], sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """Send the test alert and wait; yield a line for each who is notified, a failure's beginning with `FAILED`.

    Raises:
        subprocess.CalledProcessError: Alertmanager did not answer, or does not know the alert.
    """
    amtool = f"amtool --alertmanager.url=http://127.0.0.1:{port}"
    metrics = f"curl --silent --fail --max-time 5 http://127.0.0.1:{port}/metrics"
    named = shlex.join(f"{name}={value}" for name, value in labels.items())
    configuration = ask(f"sudo cat {CONFIGURATION}")
    receiver = ask(f"sudo amtool config routes test --config.file={CONFIGURATION} {named}").strip()
    who = addressees(configuration, receiver)
    if not who:
        yield "FAILED: nobody is told of such an alert: see fortress_alert_receivers and fortress_alert_routes."
        return
    before, began = counts(ask(metrics)), ask("date +%s").strip()
    ends = (datetime.now(UTC) + ENDS_AFTER).strftime("%Y-%m-%dT%H:%M:%SZ")
    summary = shlex.quote("--annotation=summary=A test: who reads this is told of alerts.")
    ask(f"{amtool} alert add {named} {summary} --annotation=description='Nothing is wrong.' --end={ends}")
    route = yaml.safe_load(configuration)["route"]
    patience = max(seconds(route["group_interval"]), LEAST_PATIENCE_SECONDS) + WRITES_SECONDS
    # From then on it is among those that have begun. The heartbeat may be as well: a webhook too.
    sleep(seconds(route["group_wait"]) + POLL_SECONDS)
    failed: dict[str, str] = {}
    pending = set(who)
    # Of each kind how many did not go through, at the best moment: Alertmanager soon begins those anew that it gave up.
    unreached = dict.fromkeys(map(kind_of, who), math.inf)
    for _ in range(round(patience / POLL_SECONDS)):
        log = ask(f"sudo journalctl --unit=prometheus-alertmanager --since=@{began} --output=cat --no-pager")
        failed, after = failures(log, receiver), counts(ask(metrics))
        for kind, least in unreached.items():
            then, now = before.get(kind, Count()), after.get(kind, Count())
            if now.begun > then.begun:
                unreached[kind] = min(least, (now.begun - then.begun) - (now.through - then.through))
        pending = {
            way
            for way in set(who) - set(failed)
            if unreached[kind_of(way)] > sum(kind_of(each) == kind_of(way) for each in failed)
        }
        if not pending:
            break
        sleep(POLL_SECONDS)
    for way, address in who.items():
        if way in failed:
            yield f"FAILED: {kind_of(way)} to {address}: {failed[way]}"
        elif way in pending:
            yield f"FAILED: {kind_of(way)} to {address}: no answer within {patience:.0f} s"
        else:
            yield f"told: {kind_of(way)} to {address}"


def kind_of(way: str) -> str:
    """Return `email` of `email[0]`."""
    return way.partition("[")[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", required=True, help="a folder or file, as for ansible-playbook")
    parser.add_argument("--severity", choices=["critical", "warning"], default="critical", help="as of such an alert")
    parser.add_argument("--host", help="as of an alert of this host of the inventory")
    options = parser.parse_args(arguments)
    hosts = Hosts(options.inventory)
    labels = {"alertname": ALERT, "severity": options.severity, "site": hosts.variable("fortress_domain")}
    if options.host:
        hosts.require(options.host)
        labels["host"] = options.host

    def lines(name: str, reach: Mapping[str, str], port: int) -> list[str]:
        def ask(command: str) -> str:
            argv = [*(ssh(name, reach) or ["sh", "-c"]), command]
            return subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout

        try:
            return list(notify(ask, port, labels))
        except subprocess.CalledProcessError as error:
            return [f"FAILED: `{error.cmd[-1].partition(' ')[0]}` on this host: {error.stderr.strip() or error}"]

    reached = hosts.reach("monitoring")
    ports = [int(hosts.variable("fortress_alertmanager_port", name)) for name in reached]
    with ThreadPoolExecutor() as pool:
        said = dict(zip(reached, pool.map(lines, reached, reached.values(), ports), strict=True))
    for name, found in said.items():
        for line in found:
            print(f"{name}: {line}")
    return int(any(line.startswith("FAILED") for found in said.values() for line in found))


if __name__ == "__main__":
    sys.exit(main())
