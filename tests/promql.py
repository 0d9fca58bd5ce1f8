"""Which metrics an expression of PromQL asks for."""

from __future__ import annotations

import re

WORDS = {"and", "or", "unless", "by", "on", "without", "ignoring", "group_left", "group_right", "offset", "bool"}


def metrics(expression: str) -> set[str]:
    """Return the names of metrics, those of functions, labels and durations left out."""
    text = re.sub(r'"[^"]*"', '""', expression)
    text = re.sub(r"{[^}]*}|\[[^]]*\]", " ", text)
    text = re.sub(r"\b(?:by|on|without|ignoring|group_left|group_right) ?\([^)]*\)", " ", text)
    text = re.sub(r"\boffset \w+", " ", text)
    names = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:])(?!\s*\()", text)
    return set(names) - WORDS
