"""Whether a certificate can stay: its dates, its names, its issuer; and whether two clocks agree about dates."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: certificates
short_description: Whether a certificate can stay
description:
  - O(certificate_date) writes a moment as certificates do, so that dates can be compared as text.
  - O(is_current_certificate) checks issuer, names and dates of what community.crypto.x509_certificate_info returns.
  - O(certificate_metrics) writes their dates for Prometheus.
  - O(clock_difference) says how many seconds two clocks are apart.
  - O(uncovered_names) lists the DNS names that a certificate is not for.
author: Fortress
"""


def certificate_date(moment: datetime.datetime, days: int = 0, hours: int = 0) -> str:
    """Return a moment in UTC as `20261126013500Z`, so many days and hours later: such dates sort as text.

    Args:
        moment: What Ansible's `now()` returns: without a time zone it is local time.
        days: How much later, in days of 24 hours.
        hours: How much later, in hours.
    """
    later = moment.astimezone(datetime.UTC) + datetime.timedelta(days=days, hours=hours)
    return later.strftime("%Y%m%d%H%M%SZ")


def is_current_certificate(
    certificate: Mapping[str, Any],
    ca: Mapping[str, Any],
    names: Sequence[str],
    now: str,
    renewal_date: str,
    validity_days: int,
) -> bool:
    """Return whether a CA issued a certificate for exactly these names, and it is valid now and beyond a date.

    Args:
        certificate: What `community.crypto.x509_certificate_info` returns of it.
        ca: The same of the CA's certificate.
        names: The names it is to have, each once, as `DNS:iris.example.com` or `IP:192.0.2.7`, in any order.
        now: As `certificate_date` writes it. One that begins later was issued by a clock that was ahead.
        renewal_date: A date as `certificate_date` writes it.
        validity_days: One that was issued for longer than that, in days of 24 hours, is not accepted by everybody.
    """
    life = _moment(certificate["not_after"]) - _moment(certificate["not_before"])
    return bool(
        certificate["authority_key_identifier"] == ca["subject_key_identifier"]
        and sorted(certificate["subject_alt_name"] or []) == sorted(names)
        and certificate["not_before"] <= now
        and certificate["not_after"] > renewal_date
        and life <= datetime.timedelta(days=validity_days)
    )


def clock_difference(one: str, other: str) -> int:
    """Return how many seconds two clocks are apart that say `2026-11-26T01:35:00Z` and something else of that form."""
    first, second = (datetime.datetime.strptime(clock, "%Y-%m-%dT%H:%M:%SZ") for clock in (one, other))
    return round(abs((first - second).total_seconds()))


def certificate_metrics(certificates: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the dates of certificates as node_exporter reads them from a file, in seconds since 1970.

    Args:
        certificates: What `community.crypto.x509_certificate_info` returns of each, by what it is: `gateway`, `ca`.
    """
    lines = []
    for date, meaning in (("not_before", "Since when"), ("not_after", "Until when")):
        metric = f"fortress_certificate_{date}_seconds"
        lines += [f"# HELP {metric} {meaning} the certificate is valid.", f"# TYPE {metric} gauge"]
        lines += [
            f'{metric}{{certificate="{kind}"}} {_moment(info[date]).replace(tzinfo=datetime.UTC).timestamp():.0f}'
            for kind, info in certificates.items()
        ]
    return "\n".join(lines) + "\n"


def uncovered_names(dns_names: Sequence[str], subject_alt_names: Iterable[str] | None) -> list[str]:
    """Return the DNS names that a certificate is not for, in their order.

    A name is covered by itself, or by a wildcard in place of its first label.

    Args:
        dns_names: Names that clients use.
        subject_alt_names: Those of the certificate, as `DNS:*.example.com` or `IP:192.0.2.7`; None where it has none.
    """
    covered = {name.removeprefix("DNS:") for name in subject_alt_names or []}
    return [name for name in dns_names if name not in covered and _wildcard(name) not in covered]


def _moment(date: str) -> datetime.datetime:
    return datetime.datetime.strptime(date, "%Y%m%d%H%M%SZ")


def _wildcard(name: str) -> str | None:
    label, _, domain = name.partition(".")
    return f"*.{domain}" if label and domain else None


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "certificate_date": certificate_date,
            "certificate_metrics": certificate_metrics,
            "clock_difference": clock_difference,
            "is_current_certificate": is_current_certificate,
            "uncovered_names": uncovered_names,
        }
