"""One JSON object a line on standard output: from loggers, ours and others', and from whatever is no logger."""

import io
import json
import logging
import logging.config
import os
import sys
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON that any parser takes; whatever a client sent comes out escaped.

    Under systemd the line starts with a priority such as <3>, which the journal takes off again, so that
    `journalctl -p err` works. Of python-json-logger only a loop over the record's fields would be used: the priority,
    strict JSON and an event that was logged wrongly would be written here all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self._in_journal = "JOURNAL_STREAM" in os.environ

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        try:
            event["message"] = record.getMessage()
        except Exception as error:
            # An event that was logged wrongly is still an event.
            event["message"] = f"{record.msg!s} {record.args!r} ({error!r})"
        event.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stack"] = record.stack_info
        line = _strict_json(event)
        return f"<{_PRIORITIES.get(record.levelname, 6)}>{line}" if self._in_journal else line


def _strict_json(event: dict[str, Any]) -> str:
    """Return an event as strict JSON, in ASCII: Python's own would let NaN and halves of surrogate pairs through."""
    text = json.dumps(event, default=str, ensure_ascii=False)
    return json.dumps(json.loads(text.encode(errors="replace"), parse_constant=str))


class _Lines(io.TextIOBase):
    """A stream that logs each line that is written to it."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(str.strip, lines):
            self._logger.warning("%s", line)
        return len(text)


def configure(level: str) -> None:
    """Log all that this process writes as events, before gunicorn has read its configuration and after.

    That is more than loggers: Python's warnings, exceptions that end the process or that nobody can catch, and what
    libraries print to standard error.
    """
    logging.config.dictConfig(logging_config(level))
    logging.captureWarnings(True)
    # Where standard output is broken there is nowhere to say so.
    logging.raiseExceptions = False
    sys.stderr = _Lines(logging.getLogger("stderr"))
    sys.excepthook = lambda *raised: logging.getLogger("python").critical("Uncaught exception", exc_info=raised)


def logging_config(level: str) -> dict[str, Any]:
    """Return the logging configuration in the form of `logging.config.dictConfig`."""
    own = {"level": level.upper(), "handlers": ["stdout"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}},
        "root": {"level": level.upper(), "handlers": ["stdout"]},
        "loggers": {"gunicorn.error": own, "gunicorn.access": own},
    }
