"""Whether a certificate can stay: plugins/filter/certificates.py."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible.plugins.loader import filter_loader

from tests import ROOT

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
certificate_date, certificate_metrics, clock_difference, is_current_certificate, uncovered_names = (
    filter_loader.get(name).j2_function
    for name in (
        "certificate_date",
        "certificate_metrics",
        "clock_difference",
        "is_current_certificate",
        "uncovered_names",
    )
)

CA = {"subject_key_identifier": "aa:bb"}
NAMES = ["DNS:iris.example.com", "IP:192.0.2.7"]
CERTIFICATE = {
    "authority_key_identifier": "aa:bb",
    "subject_alt_name": ["IP:192.0.2.7", "DNS:iris.example.com"],
    "not_before": "20260101000000Z",
    "not_after": "20270101000000Z",
}
NOW = "20260601000000Z"
DAY_BEFORE = "20261231000000Z"


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A control node nine hours ahead of UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("later", "date"),
    [({}, "20261231180000Z"), ({"days": 30}, "20270130180000Z"), ({"days": 1, "hours": -1}, "20270101170000Z")],
)
def test_a_date_is_written_in_utc_so_that_it_sorts_as_text(tokyo: None, later: dict[str, int], date: str) -> None:
    """What Ansible's `now()` returns has no time zone and is local time."""
    assert certificate_date(datetime.datetime(2027, 1, 1, 3), **later) == date
    assert certificate_date(datetime.datetime(2026, 12, 31, 18, tzinfo=datetime.UTC), **later) == date


def test_a_certificate_of_this_ca_for_these_names_is_current_in_any_order() -> None:
    assert is_current_certificate(CERTIFICATE, CA, NAMES, NOW, DAY_BEFORE, 365)
    assert is_current_certificate(CERTIFICATE | {"not_before": NOW}, CA, NAMES, NOW, DAY_BEFORE, 365)


@pytest.mark.parametrize(
    "change",
    [
        {"authority_key_identifier": "cc:dd"},
        {"subject_alt_name": ["DNS:iris.example.com"]},
        {"subject_alt_name": [*NAMES, "DNS:rosa.example.com"]},
        {"subject_alt_name": None},
        {"not_after": DAY_BEFORE},
        {"not_after": "20261230235959Z"},
        {"not_after": "20270101000001Z"},
        {"not_before": "20251231235959Z"},
        {"not_before": "20260601000001Z"},
    ],
)
def test_another_issuer_other_names_a_near_end_a_long_life_or_a_beginning_to_come_are_not(
    change: dict[str, Any],
) -> None:
    assert not is_current_certificate(CERTIFICATE | change, CA, NAMES, NOW, DAY_BEFORE, 365)


def test_the_dates_are_metrics_in_seconds_of_utc(tokyo: None) -> None:
    ca = {"not_before": "19700101000000Z", "not_after": "19700102000000Z"}
    lines = certificate_metrics({"gateway": CERTIFICATE, "ca": ca}).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'fortress_certificate_not_before_seconds{certificate="gateway"} 1767225600',
        'fortress_certificate_not_before_seconds{certificate="ca"} 0',
        'fortress_certificate_not_after_seconds{certificate="gateway"} 1798761600',
        'fortress_certificate_not_after_seconds{certificate="ca"} 86400',
    ]


@pytest.mark.parametrize(
    ("other", "seconds"),
    [
        ("2026-11-26T01:35:00Z", 0),
        ("2026-11-26T01:40:01Z", 301),
        ("2026-11-26T01:29:59Z", 301),
        ("2028-11-26T01:35:00Z", 731 * 86400),
    ],
)
def test_clocks_are_so_many_seconds_apart_whichever_is_ahead(other: str, seconds: int) -> None:
    assert clock_difference("2026-11-26T01:35:00Z", other) == seconds


@pytest.mark.parametrize(
    ("certificate_has", "uncovered"),
    [
        (["DNS:iris.example.com", "DNS:example.com"], []),
        (["DNS:*.example.com"], ["example.com"]),
        (["DNS:*.example.com", "DNS:example.com", "IP:192.0.2.7"], []),
        (["DNS:*.com"], ["iris.example.com"]),
        (["DNS:iris.example.org", "DNS:irisXexample.com"], ["iris.example.com", "example.com"]),
        ([], ["iris.example.com", "example.com"]),
        (None, ["iris.example.com", "example.com"]),
    ],
)
def test_a_name_is_covered_by_itself_or_a_wildcard_of_one_label(
    certificate_has: list[str] | None, uncovered: list[str]
) -> None:
    assert uncovered_names(["iris.example.com", "example.com"], certificate_has) == uncovered


def test_a_name_without_a_dot_is_covered_by_itself_alone() -> None:
    assert uncovered_names(["localhost"], ["DNS:*."]) == ["localhost"]
    assert uncovered_names(["localhost"], ["DNS:localhost"]) == []


def test_a_wildcard_stands_for_a_label_that_is_there() -> None:
    assert uncovered_names([".example.com"], ["DNS:*.example.com"]) == [".example.com"]
