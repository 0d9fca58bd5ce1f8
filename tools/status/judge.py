"""What is wrong with a site, from what its hosts said."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

INVENTORIES = Path(__file__).resolve().parents[2] / "inventory"

Level = Literal["ok", "warning", "critical", "unknown"]
# As monitoring plugins end.
CODES: dict[Level, int] = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}
# What is known to be wrong comes before what is not known.
_ORDER: tuple[Level, ...] = ("ok", "unknown", "warning", "critical")
# Without these its group does nothing for users.
_VITAL = {"nginx.service": "No request reaches the API through this gateway."}
# Fires always, so that its silence is noticed.
_ALWAYS = {"Watchdog"}
# Shares of a certificate's life, as in the alerts.
_EXPIRES, _EXPIRES_SOON = 0.25, 0.1
# Below so many errors a share says nothing.
_FEWEST_ERRORS = 10


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or that could not be found out."""

    level: Level
    where: str
    text: str
    todo: str = ""
    """What to type or to look at."""


def worst(findings: list[Finding]) -> Level:
    """Return the level of the whole."""
    return max((finding.level for finding in findings), key=_ORDER.index, default="ok")


def named(findings: list[Finding], inventory: str) -> list[Finding]:
    """Return them with the inventory's name in each `make` that is to be typed, unless it is the Makefile's default."""
    folder = Path(inventory).resolve()
    if folder.parent != INVENTORIES or folder.name == "local":
        return findings
    told = rf"make \1 INVENTORY={folder.name}"
    return [replace(finding, todo=re.sub(r"\bmake ([a-z-]+)", told, finding.todo)) for finding in findings]


def judge(hosts: dict[str, dict[str, Any]]) -> list[Finding]:
    """Return what is wrong, the worst first. `hosts` has what each said, or why it said nothing (`unreachable`)."""
    found = []
    for name, host in hosts.items():
        if why := host.get("unreachable"):
            found.append(Finding("unknown", name, f"does not answer: {why}", f"make ssh HOST={name}"))
            continue
        if not host["root"]:
            todo = "Let its login use sudo without a password for this"
            found.append(Finding("unknown", name, "is asked without root: logs and history may be missing.", todo))
        found += [Finding("unknown", name, f"could not be read: {problem}") for problem in host["problems"]]
        found += _units(name, host) + _certificates(name, host) + _prometheus(name, host)
    found += _instances(hosts) + _traffic(traffic(hosts))
    return sorted(found, key=lambda finding: -_ORDER.index(finding.level))


def _units(name: str, host: dict[str, Any]) -> list[Finding]:
    found = []
    for unit in host["units"] or []:
        # Instances are told of by whether they answer.
        if unit["ActiveState"] != "active" and not unit["Id"].startswith("iris-api@"):
            level: Level = "critical" if unit["Id"] in _VITAL else "warning"
            text = f"{unit['Id']} is {unit['ActiveState']} ({unit['SubState']}). {_VITAL.get(unit['Id'], '')}".rstrip()
            todo = f"make ssh HOST={name}, then systemctl status {unit['Id']}"
            found.append(Finding(level, name, text, todo))
    return found


def _certificates(name: str, host: dict[str, Any]) -> list[Finding]:
    found = []
    for certificate, dates in (host.get("certificates") or {}).items():
        left = dates["not_after"] - host["time"]
        share = left / (dates["not_after"] - dates["not_before"])
        limit = _EXPIRES if certificate == "gateway" else _EXPIRES_SOON
        if share < limit:
            level: Level = "critical" if certificate == "gateway" and share < _EXPIRES_SOON else "warning"
            text = f"The certificate ({certificate}) " + (f"ends in {days(left)}." if left > 0 else "has ended.")
            todo = "make renew-certificates" if certificate == "gateway" else "docs/operations.md, A new CA"
            found.append(Finding(level, name, text, todo))
    return found


def _prometheus(name: str, host: dict[str, Any]) -> list[Finding]:
    if not (said := host.get("prometheus")):
        return []
    if why := said.get("error"):
        text = f"Prometheus does not answer ({why}): no alert fires. What is here comes from the hosts."
        return [Finding("warning", name, text, f"make ssh HOST={name}, then systemctl status prometheus")]
    found = []
    if down := [_target(target) for target in said["targets"] if target["health"] != "up"]:
        text = f"{len(down)} of {len(said['targets'])} targets are not scraped: {', '.join(sorted(down))}."
        found.append(Finding("warning", name, text))
    for alert in firing(said):
        severity = alert["labels"].get("severity")
        level: Level = "critical" if severity == "critical" else "warning"
        text = f"{alert['labels']['alertname']}: {alert['annotations'].get('summary', '')}"
        found.append(Finding(level, name, text, alert["annotations"].get("runbook", "")))
    return found


def firing(said: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alerts that somebody is to know of: not those for other rules, nor the one that always fires."""
    return [
        alert
        for alert in said.get("alerts", [])
        if alert["labels"]["alertname"] not in _ALWAYS and alert["labels"].get("severity") != "info"
    ]


def _target(target: dict[str, Any]) -> str:
    labels = target["labels"]
    where = f" on {labels['host']}" if "host" in labels else ""
    return f"{labels['job']} {labels['instance']}{where}"


def _instances(hosts: dict[str, dict[str, Any]]) -> list[Finding]:
    found = []
    asked = {
        (name, number): instance
        for name, host in hosts.items()
        for number, instance in enumerate(host.get("instances") or [], 1)
    }
    dead = [key for key, instance in asked.items() if not instance["ready"]]
    if asked and len(dead) == len(asked):
        name = dead[0][0]
        todo = f"make ssh HOST={name}, then journalctl --unit='iris-api@*' -n 50"
        found.append(Finding("critical", "site", "No instance is ready: every prediction fails.", todo))
    else:
        for name, number in dead:
            unit = f"iris-api@{number}"
            todo = f"make ssh HOST={name}, then systemctl status {unit}"
            text = f"{unit} is not ready: {asked[name, number]['why']}. The others carry its load."
            found.append(Finding("warning", name, text, todo))
    served = {key: instance for key, instance in asked.items() if instance["ready"]}
    for name in dict.fromkeys(name for name, _ in served):
        current = (hosts[name].get("current") or "").rpartition("/")[2]
        wrong = [n for (of, n), each in served.items() if of == name and current and each["deployment"] != current]
        if wrong:
            text = f"{', '.join(f'iris-api@{n}' for n in wrong)} does not serve what was deployed last ({current})."
            found.append(Finding("warning", name, text, f"make ssh HOST={name}, then sudo iris-deploy recover"))
    # Of hosts with different Pythons each has the release that was built for its own.
    what = {(each["model"], each["model_version"], re.sub(r"-cp\d+$", "", each["release"])) for each in served.values()}
    if len(what) > 1:
        told = "; ".join(sorted(f"{model} {version} by {release}" for model, version, release in what))
        found.append(Finding("warning", "site", f"The instances serve {len(what)} things: {told}.", "make history"))
    return found


def traffic(hosts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return requests, errors and p99 (seconds), of how many seconds, and who says so; empty where nobody does.

    Prometheus' figures, of all instances; where it gives none, those of the gateways' logs, added up. p99 of several
    logs is that of the slowest gateway.
    """
    for name, host in hosts.items():
        values = (host.get("prometheus") or {}).get("values") or {}
        if values.get("requests") is not None:
            return {
                "source": f"Prometheus on {name}",
                "requests": round(values["requests"]),
                "errors": round(values["errors"] or 0),
                "p99": values["p99"],
                "seconds": host["prometheus"]["seconds"],
            }
    logs = {name: host["traffic"] for name, host in hosts.items() if host.get("traffic")}
    if not logs:
        return {}
    return {
        "source": f"the access log of {', '.join(logs)}",
        "requests": sum(log["requests"] for log in logs.values()),
        "errors": sum(log["errors"] for log in logs.values()),
        "p99": max((log["p99"] for log in logs.values() if log["requests"]), default=None),
        "seconds": min(log["seconds"] for log in logs.values()),
    }


def _traffic(said: dict[str, Any]) -> list[Finding]:
    if not said or said["errors"] < _FEWEST_ERRORS or said["errors"] < 0.01 * said["requests"]:
        return []
    share = said["errors"] / said["requests"]
    level: Level = "critical" if share >= 0.1 else "warning"
    text = f"{share:.1%} of the predictions failed ({said['errors']} of {said['requests']})."
    return [Finding(level, "site", text, "make logs; a line's request_id: make trace ID=...")]


def days(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 0:
        return "the past"
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
