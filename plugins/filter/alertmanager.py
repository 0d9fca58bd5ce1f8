"""What Alertmanager is told: who is notified of what, and what is kept back because something else explains it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

DOCUMENTATION = r"""
name: alertmanager
short_description: The configuration of Alertmanager
description:
  - O(alertmanager_configuration) makes it of receivers and routes, for Alertmanager 0.25 and later.
  - O(alertmanager_secrets) lists the files that the configuration names.
  - O(alertmanager_mistakes) says what is wrong with receivers and routes.
author: Fortress
"""

Settings = Mapping[str, Any]

SECRETS = "/etc/prometheus/alertmanager-secrets"
WAYS = ("webhook_url", "email_to", "slack_url")
WEB = re.compile(r"https?://[^/\s]")
# As Alertmanager reads it: the largest unit first, and not nothing.
DURATION = re.compile(r"(?=.*[1-9])(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?")
EVERYBODY, NOBODY, HEARTBEAT = "everybody", "nobody", "heartbeat"

# What the parts of a host do not say once the host itself is down.
PARTS = (
    "GatewayLogUnread",
    "HostMetricsOld",
    "IrisApiInstanceDown",
    "IrisApiMixed",
    "IrisApiRestarts",
    "NginxDown",
    "NginxExporterDown",
    "NodeExporterBlind",
    "NodeExporterDown",
    "TargetDown",
    "TextfileUnreadable",
    "UnitFailed",
)
# What is only to be expected while somebody changes a host, and what says so: each for a short time.
CHANGES: dict[str, tuple[str, ...]] = {
    "DeploymentRuns": ("IrisApiInstanceDown", "IrisApiMixed", "IrisApiRestarts", "UnitFailed"),
    "HostReboots": ("HostDown", "ProbeFails", *PARTS),
    "HoldStands": ("IrisApiMixed",),
}
# Of the whole site, whatever host it is: a deployment goes from one to the next.
CHANGES_OF_THE_SITE: dict[str, tuple[str, ...]] = {
    name: ("IrisApiHostsDiffer", "IrisApiReleasesDiffer") for name in ("DeploymentRuns", "HoldStands")
}
# The worse one says it all.
WORSE: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("IrisApiDown", ("IrisApiInstanceDown", "IrisApiErrors", "GatewayUpstreamErrors", "ProbeFails"), ()),
    ("NginxDown", ("ProbeFails",), ("instance",)),
    ("CertificateExpiresSoon", ("CertificateExpires",), ("instance",)),
    ("ErrorBudgetBurnsFast", ("ErrorBudgetBurnsSteadily", "ErrorBudgetBurnsSlowly"), ()),
    ("ErrorBudgetBurnsSteadily", ("ErrorBudgetBurnsSlowly",), ()),
    ("LatencyBudgetBurnsFast", ("LatencyBudgetBurnsSteadily", "LatencyBudgetBurnsSlowly", "IrisApiSlow"), ()),
    ("LatencyBudgetBurnsSteadily", ("LatencyBudgetBurnsSlowly",), ()),
)


def alertmanager_configuration(
    receivers: Sequence[Settings],
    routes: Sequence[Settings],
    smtp: Settings,
    heartbeat_url: str,
    intervals: Mapping[str, str],
) -> dict[str, Any]:
    """Return what becomes alertmanager.yml.

    Args:
        receivers: `{"name": ..., "webhook_url": ...}` each, as roles/alertmanager/meta/argument_specs.yml has them.
        routes: `{"receivers": [...], "severities": [...]}` each; the first that fits decides.
        smtp: The mail server; empty where there is none.
        heartbeat_url: Where the dead man's switch is; empty where there is none.
        intervals: `group_wait`, `group_interval` and `repeat_interval`.
    """
    ways = {receiver["name"]: _ways(receiver) for receiver in receivers}
    groups = {EVERYBODY: list(ways), NOBODY: []}
    told: list[dict[str, Any]] = [
        {
            "receiver": HEARTBEAT if heartbeat_url else NOBODY,
            "matchers": ['alertname="Watchdog"'],
            "group_wait": "0s",
            "group_interval": "1m",
            # A little less than that: as long as that would be every other minute.
            "repeat_interval": "50s",
        },
        {"receiver": NOBODY, "matchers": ['severity="info"']},
    ]
    for route in routes:
        name = " and ".join(route["receivers"]) or NOBODY
        groups[name] = list(route["receivers"])
        interval = {"repeat_interval": route["repeat_interval"]} if route.get("repeat_interval") else {}
        told.append({"receiver": name, "matchers": list(_matchers(route))} | interval)
    made = [{"name": name} | _together(ways[each] for each in members) for name, members in groups.items()]
    if heartbeat_url:
        # Its end is no sign of life.
        made.append({"name": HEARTBEAT, "webhook_configs": [{"url": heartbeat_url, "send_resolved": False}]})
    return {
        "global": {"resolve_timeout": "5m"} | _smtp(smtp),
        "templates": ["alertmanager_templates/fortress.tmpl"],
        "route": {"receiver": EVERYBODY, "group_by": ["alertname"], **intervals, "routes": told},
        "receivers": made,
        "inhibit_rules": list(_inhibitions()),
    }


def alertmanager_secrets(receivers: Sequence[Settings], smtp: Settings) -> dict[str, str]:
    """Return the text of each file of a secret, by its path."""
    found = {
        f"{SECRETS}/{receiver['name']}_{kind}": f"{receiver[kind]}\n"
        for receiver in receivers
        for kind in ("webhook_token", "slack_url")
        if receiver.get(kind)
    }
    return found | ({f"{SECRETS}/smtp_password": f"{smtp['password']}\n"} if smtp.get("password") else {})


def alertmanager_mistakes(
    receivers: Sequence[Settings],
    routes: Sequence[Settings],
    smtp: Settings,
    heartbeat_url: str = "",
    intervals: Mapping[str, str] | None = None,
) -> list[str]:
    """Return a sentence for each thing that can't work, with what to do; it names no secret.

    Args:
        receivers: Who can be notified.
        routes: Who is notified of what.
        smtp: The mail server.
        heartbeat_url: Whom a sign of life is sent to; empty: nobody.
        intervals: How long Alertmanager waits, by the names of the variables that say so.
    """
    names = [str(receiver["name"]) for receiver in receivers]
    found = [
        f"alertmanager_receivers has {name} {names.count(name)} times; give each a name of its own."
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    for receiver in receivers:
        name = receiver["name"]
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(name)) or name in (EVERYBODY, NOBODY, HEARTBEAT):
            found.append(
                f"alertmanager_receivers has the name {name!r}; take letters, digits, - and _, "
                f"and not {EVERYBODY}, {NOBODY} or {HEARTBEAT}."
            )
        if not any(receiver.get(way) for way in WAYS):
            found.append(f"The receiver {name} can't be notified: give it {', '.join(WAYS[:-1])} or {WAYS[-1]}.")
        found += [
            f"{way} of the receiver {name} is no address of the web: it begins with https:// or http://."
            for way in ("webhook_url", "slack_url")
            if receiver.get(way) and not WEB.match(receiver[way])
        ]
        if receiver.get("webhook_token") and not receiver.get("webhook_url"):
            found.append(f"The receiver {name} has a webhook_token and no webhook_url: give it both, or neither.")
        if receiver.get("email_to") and not (smtp.get("server") and smtp.get("from")):
            found.append(
                f"The receiver {name} gets mail, and nothing says how: set server and from in fortress_alert_smtp, "
                "as in {server: 'mail.example.com:587', from: fortress@example.com}."
            )
    server = smtp.get("server") or ""
    if server and not re.search(r":\d+$", server):
        found.append(f"fortress_alert_smtp has the server {server}, without its port; give {server}:587, say.")
    for number, route in enumerate(routes, 1):
        found += [
            f"Route {number} of fortress_alert_routes notifies {name}, and there is no such receiver in "
            f"fortress_alert_receivers ({', '.join(names) or 'it is empty'})."
            for name in route["receivers"]
            if name not in names
        ]
    if heartbeat_url and not WEB.match(heartbeat_url):
        found.append("fortress_alert_heartbeat_url is no address of the web: it begins with https:// or http://.")
    waits = dict(intervals or {}) | {
        f"repeat_interval of route {number} of fortress_alert_routes": route["repeat_interval"]
        for number, route in enumerate(routes, 1)
        if route.get("repeat_interval")
    }
    found += [
        f"{where} is {wait!r}, which Alertmanager can't read; write for example 30s, 5m, 4h or 1d12h."
        for where, wait in waits.items()
        if not DURATION.fullmatch(str(wait))
    ]
    return found


def _ways(receiver: Settings) -> dict[str, list[dict[str, Any]]]:
    """Return how one receiver is notified, each way with the end of an alert too."""
    name, ways = receiver["name"], {}
    if receiver.get("webhook_url"):
        token = {"authorization": {"credentials_file": f"{SECRETS}/{name}_webhook_token"}}
        way = {"url": receiver["webhook_url"], "send_resolved": True}
        ways["webhook_configs"] = [way | ({"http_config": token} if receiver.get("webhook_token") else {})]
    if receiver.get("email_to"):
        ways["email_configs"] = [
            {
                "to": ", ".join(receiver["email_to"]),
                "send_resolved": True,
                "headers": {"Subject": '{{ template "fortress.title" . }}'},
                "text": '{{ template "fortress.text" . }}',
                "html": "",
            }
        ]
    if receiver.get("slack_url"):
        channel = {"channel": receiver["slack_channel"]} if receiver.get("slack_channel") else {}
        way = {"api_url_file": f"{SECRETS}/{name}_slack_url", "send_resolved": True}
        texts = {
            "title": '{{ template "fortress.title" . }}',
            # Debian's Alertmanager has no page to link to.
            "title_link": "{{ (index .Alerts 0).GeneratorURL }}",
            "text": '{{ template "fortress.text" . }}',
        }
        ways["slack_configs"] = [way | channel | texts]
    return ways


def _together(ways: Iterable[Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    joined: dict[str, list[Any]] = {}
    for way in ways:
        for kind, each in way.items():
            joined[kind] = [*joined.get(kind, []), *each]
    return joined


def _matchers(route: Settings) -> Iterator[str]:
    for label, values in (("severity", "severities"), ("alertname", "alerts"), ("host", "hosts")):
        if route.get(values):
            yield _one_of(label, route[values])


def _one_of(label: str, values: Iterable[str]) -> str:
    # The text of a matcher is Go's and the pattern RE2's: a dot is all that names of hosts have of either.
    return f'{label}=~"{"|".join(str(value).replace(".", "[.]") for value in values)}"'


def _smtp(smtp: Settings) -> dict[str, Any]:
    if not smtp.get("server"):
        return {}
    told = {"smtp_smarthost": smtp["server"], "smtp_from": smtp["from"]}
    if smtp.get("user"):
        told |= {"smtp_auth_username": smtp["user"]}
    if smtp.get("password"):
        told |= {"smtp_auth_password_file": f"{SECRETS}/smtp_password"}
    return told | {"smtp_require_tls": boolean(smtp.get("require_tls", True))}


def _inhibitions() -> Iterator[dict[str, Any]]:
    def rule(source: list[str], targets: Iterable[str], equal: Iterable[str]) -> dict[str, Any]:
        return {"source_matchers": source, "target_matchers": [_one_of("alertname", targets)], "equal": list(equal)}

    yield rule(['alertname="HostDown"'], PARTS, ["host"])
    for source, targets, equal in WORSE:
        yield rule([f'alertname="{source}"'], targets, equal)
    for change, targets in CHANGES.items():
        yield rule([f'alertname="{change}"'], targets, ["host"])
    for change, targets in CHANGES_OF_THE_SITE.items():
        yield rule([f'alertname="{change}"'], targets, [])


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "alertmanager_configuration": alertmanager_configuration,
            "alertmanager_secrets": alertmanager_secrets,
            "alertmanager_mistakes": alertmanager_mistakes,
        }
