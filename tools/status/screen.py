"""One screen of a site, by rich."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tools.status.judge import Finding, days, firing, traffic, worst

STYLES = {"ok": "bold green", "warning": "bold yellow", "critical": "bold red", "unknown": "bold magenta"}


def show(console: Console, inventory: str, hosts: dict[str, dict[str, Any]], findings: list[Finding]) -> None:
    """Print it."""
    level = worst(findings)
    # Of the moment when the first of them answered.
    when = next((datetime.fromtimestamp(host["time"], UTC) for host in hosts.values() if "time" in host), None)
    title = Text.assemble(
        (level.upper(), STYLES[level]), f"  {inventory}  {when or datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    )
    console.print(Group(title, Text(), _hosts(hosts), Text(), _site(hosts)))
    if findings:
        console.print(Text(), _findings(findings))


def _hosts(hosts: dict[str, dict[str, Any]]) -> Table:
    """Return a row for each host, which 80 characters hold; the groups give way where a name is long."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("HOST", overflow="fold", no_wrap=max(map(len, hosts)) <= 24)
    table.add_column("GROUPS", overflow="fold")
    for column in ("UNITS", "INSTANCES", "CERTIFICATE"):
        table.add_column(column, no_wrap=True)
    for name, host in hosts.items():
        groups = " ".join(host["groups"])
        if "unreachable" in host:
            table.add_row(name, groups, Text("no answer", style=STYLES["unknown"]))
            continue
        units = host["units"] or []
        active = [unit for unit in units if unit["ActiveState"] == "active"]
        instances = host.get("instances") or []
        ready = [each for each in instances if each["ready"]]
        table.add_row(
            name,
            groups,
            _of(len(active), len(units), "active"),
            _of(len(ready), len(instances), "ready") if "api" in host["groups"] else "",
            _certificate(host),
        )
    return table


def _of(count: int, whole: int, what: str) -> Text:
    return Text(f"{count} of {whole} {what}", style="" if count == whole and whole else STYLES["warning"])


def _serving(hosts: dict[str, dict[str, Any]]) -> str:
    """Return what instances serve, a line for each model and release, and on which hosts where they differ."""
    found: dict[str, list[str]] = {}
    for name, host in hosts.items():
        for each in host.get("instances") or []:
            if each["ready"]:
                what = f"{each['model']} {each['model_version']} ({each['engine']}) by {each['release']}"
                found.setdefault(what, []).append(name)
    if len(found) == 1:
        return next(iter(found))
    return "\n".join(f"{what}, on {', '.join(dict.fromkeys(names))}" for what, names in found.items())


def _certificate(host: dict[str, Any]) -> str:
    dates = (host.get("certificates") or {}).get("gateway")
    return f"{days(dates['not_after'] - host['time'])} left" if dates else ""


def _site(hosts: dict[str, dict[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    if serving := _serving(hosts):
        table.add_row("Serving", serving)
    if said := traffic(hosts):
        p99 = "" if said["p99"] is None else f", p99 {said['p99'] * 1000:.1f} ms"
        share = f" ({said['errors'] / said['requests']:.2%})" if said["requests"] else ""
        what = f"{said['requests']} requests, {said['errors']} errors{share}{p99}; {said['source']}"
        table.add_row(f"Last {days(said['seconds'])}", what)
    for name, host in hosts.items():
        if events := host.get("history"):
            last = events[-1]
            what = f"{last['time']} {last['event']} {last['model']} by {last['release']}, {last['who']}"
            table.add_row("Deployment", what if len(hosts) == 1 else f"{name}: {what}")
        if hold := host.get("hold"):
            table.add_row("Deployments held", f"since {hold['time']} by {hold['who']}: {hold['why']}")
        if (prometheus := host.get("prometheus")) and "error" not in prometheus:
            targets = prometheus["targets"]
            up = sum(target["health"] == "up" for target in targets)
            table.add_row("Targets", f"{up} of {len(targets)} up")
            alerts = firing(prometheus)
            names = ", ".join(sorted({alert["labels"]["alertname"] for alert in alerts}))
            table.add_row("Alerts", f"{len(alerts)} firing: {names}" if alerts else "none firing")
    return table


def _findings(findings: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column()
    table.add_column(overflow="fold")
    for finding in findings:
        text = Text(finding.text)
        if finding.todo:
            text.append(f"\n{finding.todo}", style="dim")
        table.add_row(Text(finding.level.upper(), style=STYLES[finding.level]), finding.where, text)
    return table
