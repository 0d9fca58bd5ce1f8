"""What a receiver of notifications is to a test: runs on the host, and writes down each POST as a line of JSON.

python3 receiver_on_host.py PORT FILE
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any


class Receiver(BaseHTTPRequestHandler):
    """Answers every POST, and keeps it."""

    file: Path

    def do_POST(self) -> None:  # The name that http.server wants.
        """Write down path, token and body."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        entry = {"at": time.time(), "path": self.path, "token": self.headers.get("Authorization", ""), "body": body}
        with self.file.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    Receiver.file = Path(sys.argv[2])
    Receiver.file.touch()
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
