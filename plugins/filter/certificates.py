"""Whether a certificate can stay: its dates, its names, its issuer."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: certificates
short_description: Whether a certificate can stay
description:
  - O(certificate_date) writes a moment as certificates do, so that dates can be compared as text.
  - O(is_current_certificate) checks issuer, names and end of what community.crypto.x509_certificate_info returns.
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
    certificate: Mapping[str, Any], ca: Mapping[str, Any], names: Sequence[str], renewal_date: str
) -> bool:
    """Return whether a CA issued a certificate for exactly these names, and it is valid beyond a date.

    Args:
        certificate: What `community.crypto.x509_certificate_info` returns of it.
        ca: The same of the CA's certificate.
        names: The names it is to have, each once, as `DNS:iris.example.com` or `IP:192.0.2.7`, in any order.
        renewal_date: A date as `certificate_date` writes it.
    """
    return bool(
        certificate["authority_key_identifier"] == ca["subject_key_identifier"]
        and sorted(certificate["subject_alt_name"] or []) == sorted(names)
        and certificate["not_after"] > renewal_date
    )


def uncovered_names(dns_names: Sequence[str], subject_alt_names: Iterable[str] | None) -> list[str]:
    """Return the DNS names that a certificate is not for, in their order.

    A name is covered by itself, or by a wildcard in place of its first label.

    Args:
        dns_names: Names that clients use.
        subject_alt_names: Those of the certificate, as `DNS:*.example.com` or `IP:192.0.2.7`; None where it has none.
    """
    covered = {name.removeprefix("DNS:") for name in subject_alt_names or []}
    return [name for name in dns_names if name not in covered and _wildcard(name) not in covered]


def _wildcard(name: str) -> str | None:
    label, _, domain = name.partition(".")
    return f"*.{domain}" if label and domain else None


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "certificate_date": certificate_date,
            "is_current_certificate": is_current_certificate,
            "uncovered_names": uncovered_names,
        }
