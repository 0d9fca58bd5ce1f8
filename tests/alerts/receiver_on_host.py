"""What receivers of notifications are to a test: runs on the host, and writes down what comes by HTTP and by mail.

python3 receiver_on_host.py FOLDER PORT MAIL_PORT

Of the folder it takes `certificate.pem` and `key.pem`, for the mail server's STARTTLS, and `token` and `password`:
without them nobody posts or sends mail. Into its file `received` goes a line of JSON for each POST and each mail. Needs
python3-aiosmtpd.
"""

from __future__ import annotations

import email
import json
import ssl
import sys
import time
from email.policy import default
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

FOLDER, PORT, MAIL_PORT = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
USER = b"fortress"


def keep(**entry: Any) -> None:
    """Write down what came, and when."""
    with (FOLDER / "received").open("a") as file:
        file.write(json.dumps({"at": time.time(), **entry}) + "\n")


class Receiver(BaseHTTPRequestHandler):
    """Answers every POST, and keeps it, unless it has another token."""

    def do_POST(self) -> None:  # The name that http.server wants.
        """Keep path, token and body."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        token = self.headers.get("Authorization", "")
        # A heartbeat has none, and Slack neither.
        known = token in ("", f"Bearer {(FOLDER / 'token').read_text()}")
        if known:
            keep(path=self.path, token=token, body=body)
        self.send_response(200 if known else 401)
        self.end_headers()
        # Slack's answer, without which a message counts as refused.
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Mails:
    """Takes every mail, and keeps it."""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep who is written to, subject and text."""
        mail = email.message_from_bytes(envelope.content, policy=default)
        text = mail.get_body(("plain",))
        body = text.get_content() if text else ""
        keep(path="mail", to=envelope.rcpt_tos, sender=envelope.mail_from, subject=mail["Subject"], body=body)
        return "250 OK"


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
    """Let in who has the password."""
    expected = LoginPassword(USER, (FOLDER / "password").read_bytes())
    return AuthResult(success=isinstance(given, LoginPassword) and given == expected)


if __name__ == "__main__":
    (FOLDER / "received").touch()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(FOLDER / "certificate.pem", FOLDER / "key.pem")
    Controller(
        Mails(),
        hostname="127.0.0.1",
        port=MAIL_PORT,
        tls_context=tls,
        require_starttls=True,
        authenticator=authenticate,
        auth_required=True,
        # Its prompts are others than Alertmanager knows.
        auth_exclude_mechanism=["LOGIN"],
    ).start()
    HTTPServer(("127.0.0.1", PORT), Receiver).serve_forever()
