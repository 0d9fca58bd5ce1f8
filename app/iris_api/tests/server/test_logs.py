from __future__ import annotations

import json
import logging
import sys

import pytest
from pydantic_core import from_json

from iris_api.server.logs import JsonFormatter


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("test").makeRecord(
        "test", logging.ERROR, __file__, 1, message, arguments, None, extra=extra
    )


def test_an_event_is_one_line_whatever_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    line = JsonFormatter().format(record("bad %s", 'path\n"\u2028\ud800', request_id="abc"))
    assert line.isascii() and "\n" not in line
    event = json.loads(line)
    assert event["message"] == 'bad path\n"\u2028?'
    assert (event["level"], event["logger"], event["request_id"]) == ("error", "test", "abc")


@pytest.mark.parametrize(
    "odd",
    [
        record("%d rows", "many"),
        record("%s"),
        record("ratio", ratio=float("nan")),
        record("limit", limit={1: [float("inf"), "\ud800", b"\xff", {"x"}]}),
        record("\ud800", **{"\udfff": 1}),
    ],
)
def test_a_strict_parser_takes_whatever_was_logged(odd: logging.LogRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    line = JsonFormatter().format(odd)
    assert line.isascii() and "\n" not in line
    assert from_json(line).keys() >= {"time", "level", "logger", "message"}


def test_an_exception_is_part_of_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    event = record("bad")
    try:
        raise ValueError("reason")
    except ValueError:
        event.exc_info = sys.exc_info()
    line = JsonFormatter().format(event)
    assert "\n" not in line
    assert "ValueError: reason" in json.loads(line)["exception"]


def test_the_journal_learns_the_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    assert JsonFormatter().format(record("bad")).startswith('<3>{"time": ')
