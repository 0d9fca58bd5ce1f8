"""Dates and times as requests have them: texts, by ISO 8601."""

import re
from datetime import date, datetime

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DATETIME = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d([.]\d{1,9})?)?([Zz]|[+-]\d\d:\d\d)?)?")


def is_date(text: str) -> bool:
    """Return whether a text is a date, such as 2026-01-31."""
    try:
        return bool(_DATE.fullmatch(text) and date.fromisoformat(text))
    except ValueError:
        return False


def is_datetime(text: str) -> bool:
    """Return whether a text is a date, or a date and a time, such as 2026-01-31T09:30:00Z."""
    try:
        return bool(_DATETIME.fullmatch(text) and datetime.fromisoformat(text.upper()))
    except ValueError:
        return False
