"""What nginx's configuration computes from a limit: plugins/filter/nginx.py."""

from __future__ import annotations

import re

import pytest
from ansible.errors import AnsibleFilterError
from ansible.plugins.loader import filter_loader

from tests import ROOT

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
numbers_above, retry_after = (filter_loader.get(name).j2_function for name in ("numbers_above", "retry_after"))


@pytest.mark.parametrize("limit", [0, 1, 8, 9, 10, 99, 100, 899, 909, 990, 1000, 1024])
def test_every_number_above_the_limit_is_matched_and_none_below(limit: int) -> None:
    pattern = re.compile(numbers_above(limit))
    assert [number for number in range(20_000) if pattern.fullmatch(str(number))] == list(range(limit + 1, 20_000))


@pytest.mark.parametrize("limit", [61440, 65536, 999_999, 16 * 2**20, 2 * 2**30])
def test_the_limit_is_exact_where_numbers_are_large(limit: int) -> None:
    pattern = re.compile(numbers_above(limit))
    for below in (0, 9, limit // 10, limit - 1, limit):
        assert not pattern.fullmatch(str(below))
    for above in (limit + 1, limit + 10, limit * 2, limit * 10, limit * 1000):
        assert pattern.fullmatch(str(above))


def test_a_pattern_of_numbers_reads_as_documented() -> None:
    assert numbers_above(61440) == (
        "[1-9][0-9]{5,}|[7-9][0-9]{4}|6[2-9][0-9]{3}|61[5-9][0-9]{2}|614[5-9][0-9]{1}|6144[1-9][0-9]{0}"
    )


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [("10r/s", 1), ("1r/s", 1), ("90r/m", 1), ("60r/m", 1), ("59r/m", 2), ("30r/m", 2), ("7r/m", 9), ("1r/m", 60)],
)
def test_the_seconds_until_the_next_request_are_rounded_up(rate: str, seconds: int) -> None:
    assert retry_after(rate) == seconds


@pytest.mark.parametrize("rate", ["", "10", "0r/s", "10r/h", "10r/s burst=5", "-1r/s"])
def test_what_is_no_rate_is_an_error_that_names_it(rate: str) -> None:
    with pytest.raises(AnsibleFilterError, match=re.escape(f"{rate!r} is no rate")):
        retry_after(rate)
