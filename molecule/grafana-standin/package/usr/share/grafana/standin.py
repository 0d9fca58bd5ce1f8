"""A web server in Grafana's place that says of itself that it is not Grafana."""

from __future__ import annotations

import argparse
import configparser
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

HEALTH = {"database": "none: this is a stand-in, not Grafana", "version": "0.0.0+standin1"}
METRICS = """\
# HELP standin_info This is a stand-in, not Grafana.
# TYPE standin_info gauge
standin_info{version="0.0.0+standin1"} 1
"""
LOGIN = b"<!doctype html><title>Stand-in for Grafana</title><h1>This is a stand-in, not Grafana</h1>\n"


def main() -> None:
    """Read the address from grafana.ini as Grafana would, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    config = configparser.ConfigParser(interpolation=None)
    with parser.parse_args().config.open(encoding="utf-8") as stream:
        config.read_file(stream)
    # Grafana does not start when a file that its settings name can't be read.
    for option in ("admin_password", "secret_key"):
        expand(config.get("security", option))
    server = config["server"]
    Handler.prefix = urlsplit(server["root_url"]).path.rstrip("/")
    ThreadingHTTPServer((server["http_addr"], int(server["http_port"])), Handler).serve_forever()


def expand(value: str) -> str:
    """Resolve a setting of the form $__file{PATH}."""
    if value.startswith("$__file{") and value.endswith("}"):
        return Path(value.removeprefix("$__file{").removesuffix("}")).read_text(encoding="utf-8").strip()
    return value


class Handler(BaseHTTPRequestHandler):
    """Answers at the paths a visitor, a probe or Prometheus comes to first, with and without the sub-path."""

    prefix = ""

    def do_GET(self) -> None:
        """Serve the health report, metrics and the login page."""
        match urlsplit(self.path).path.removeprefix(self.prefix):
            case "/api/health":
                self.answer(200, "application/json", json.dumps(HEALTH).encode())
            case "/metrics":
                self.answer(200, "text/plain; version=0.0.4; charset=utf-8", METRICS.encode())
            case "/login":
                self.answer(200, "text/html; charset=utf-8", LOGIN)
            case _:
                self.answer(404, "text/plain", b"This is a stand-in, not Grafana.\n")

    # As Grafana does: HEAD is GET without the body.
    do_HEAD = do_GET

    def answer(self, status: int, kind: str, body: bytes) -> None:
        """Send one answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


if __name__ == "__main__":
    main()
