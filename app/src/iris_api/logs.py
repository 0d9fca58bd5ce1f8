"""One JSON object a line on standard output, for our own loggers, gunicorn's and uvicorn's alike."""

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; whatever a client sent comes out escaped.

    Under systemd the line starts with a priority such as <3>, which the journal takes off again, so that
    `journalctl -p err` works.
    """

    def __init__(self) -> None:
        """See whether the journal reads along."""
        super().__init__()
        self._in_journal = "JOURNAL_STREAM" in os.environ

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        event.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        line = json.dumps(event, default=str)
        return f"<{_PRIORITIES.get(record.levelname, 6)}>{line}" if self._in_journal else line


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
