"""What nginx's configuration computes from a limit: patterns and seconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: nginx
short_description: What nginx's configuration computes from a limit
description:
  - O(numbers_above) writes a regular expression of the decimal numbers above a limit, as nginx compares no numbers.
  - O(retry_after) gives the seconds until a rate limit lets the next request through.
author: Fortress
"""


def numbers_above(limit: int) -> str:
    """Return a regular expression that matches the decimal numbers above a limit that do not begin with 0.

    Above 61440 are `[1-9][0-9]{5,}`, which has more digits, and of those with as many `[7-9][0-9]{4}`,
    `6[2-9][0-9]{3}`, `61[5-9][0-9]{2}` and so on: up to some digit the same, and there a higher one.
    It is to be anchored by who uses it.
    """
    digits = str(limit)
    longer = f"[1-9][0-9]{{{len(digits)},}}"
    higher = [
        f"{digits[:at]}[{int(digit) + 1}-9][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if digit != "9"
    ]
    return "|".join([longer, *higher])


def retry_after(rate: str) -> int:
    """Return the seconds until the next request is let through, rounded up, at a rate like `10r/s` or `30r/m`."""
    parsed = re.fullmatch(r"([1-9][0-9]*)r/([sm])", rate)
    if parsed is None:
        raise AnsibleFilterError(f"retry_after: {rate!r} is no rate of nginx such as 10r/s or 30r/m.")
    period = 60 if parsed[2] == "m" else 1
    return -(-period // int(parsed[1]))


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"numbers_above": numbers_above, "retry_after": retry_after}
