"""Runs at an outsider's address: opens connections, or asks for as much as is answered, and prints what became of it.

Takes one argument, JSON. `do` is one of:

- "connect": open `count` connections to `port` at `rate` a second (without one: at once), send `data` on each and keep
  them. Prints {"open": ..., "refused": ..., "seconds": ...}. Each further line of its input is another order,
  {"open": count}, {"close": count} or {"send": text}, and is answered by a line.
- "ask": send `data` over `connections` connections of HTTP/1.1 again and again for `seconds`, `pipelined` times in one
  write; where there is a number `each`, a connection is replaced after so many, at most `rate` times a second.
  Prints {"answers": ..., "refused": ..., "opened": ...}.
- "ask2": the same over HTTP/2 for a list of `headers`.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
from typing import Any

PATIENCE = 3.0
# As many as nginx lets one have open.
STREAMS = 8
REQUESTS = 990
"""Over one connection of HTTP/2; after 1000 nginx closes it (keepalive_requests)."""
NAME = "iris.fortress.test"


class Connections:
    """Those that an outsider has opened."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.kept: list[socket.socket] = []

    def open(self, count: int) -> None:
        """Open so many more."""
        before, began = len(self.kept), time.monotonic()
        for number in range(count):
            if self.wanted.get("rate"):
                time.sleep(max(0.0, began + number / self.wanted["rate"] - time.monotonic()))
            try:
                connection = socket.create_connection((self.wanted["host"], self.wanted["port"]), timeout=PATIENCE)
                connection.sendall(self.wanted["data"].encode())
                self.kept.append(connection)
            except OSError:
                pass
        opened = len(self.kept) - before
        tell(open=opened, refused=count - opened, seconds=time.monotonic() - began)

    def close(self, count: int) -> None:
        """Hang up on so many."""
        for _ in range(count):
            self.kept.pop().close()
        tell(open=len(self.kept))

    def send(self, text: str) -> None:
        """Send the same on each, and see which are answered."""
        answered = 0
        for connection in self.kept:
            try:
                connection.sendall(text.encode())
                # Of an answer that came before only the beginning was looked at.
                answered += b"HTTP/1.1 " in connection.recv(65536)
            except OSError:
                pass
        tell(answered=answered)


class Crowd:
    """Some connections, each asked by a thread of its own."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        # One for all connections: to make it takes longer than a handshake.
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.context.set_alpn_protocols(["h2" if wanted["do"] == "ask2" else "http/1.1"])
        self.began = time.monotonic()
        self.end = self.began + wanted["seconds"]
        self.lock = threading.Lock()
        self.opened = self.answers = self.refused = 0

    def open(self) -> socket.socket:
        """Connect as soon as the rate allows it."""
        with self.lock:
            due = self.began + self.opened / self.wanted.get("rate", 1e9)
            self.opened += 1
        time.sleep(max(0.0, due - time.monotonic()))
        plain = socket.create_connection((self.wanted["host"], self.wanted["port"]), timeout=PATIENCE)
        if self.wanted["port"] != 443:
            return plain
        return self.context.wrap_socket(plain, server_hostname=NAME)

    def run(self) -> None:
        """Send requests until the time is over."""
        ask = {"ask": self.ask, "ask2": self.ask2}[self.wanted["do"]]

        def work() -> None:
            while time.monotonic() < self.end:
                try:
                    ask()
                except OSError as error:
                    with self.lock:
                        self.refused += 1
                    if isinstance(error, ConnectionRefusedError):
                        time.sleep(0.01)

        threads = [threading.Thread(target=work) for _ in range(self.wanted["connections"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tell(answers=self.answers, refused=self.refused, opened=self.opened)

    def count(self, answers: int) -> None:
        with self.lock:
            self.answers += answers

    def ask(self) -> None:
        """Send requests over one connection of HTTP/1.1."""
        pipelined, left = self.wanted["pipelined"], self.wanted.get("each", 10**9)
        with self.open() as connection:
            while left > 0 and time.monotonic() < self.end:
                connection.sendall(self.wanted["data"].encode("latin-1") * pipelined)
                left -= pipelined
                waiting = pipelined
                while waiting > 0:
                    if not (data := connection.recv(65536)):
                        return
                    waiting -= (answers := data.count(b"HTTP/1.1 "))
                    self.count(answers)

    def ask2(self) -> None:
        """Send requests over one connection of HTTP/2, as often as nginx lets one."""
        # Not everything here needs it.
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from h2.events import DataReceived, StreamEnded, StreamReset

        protocol = H2Connection(H2Configuration(header_encoding="utf-8"))
        waiting, left = 0, REQUESTS
        protocol.initiate_connection()
        with self.open() as connection:
            while (waiting or left) and time.monotonic() < self.end:
                while waiting < STREAMS and left:
                    headers = [(name, value) for name, value in self.wanted["headers"]]
                    protocol.send_headers(protocol.get_next_available_stream_id(), headers, end_stream=True)
                    waiting, left = waiting + 1, left - 1
                connection.sendall(protocol.data_to_send())
                if not (data := connection.recv(65536)):
                    return
                for event in protocol.receive_data(data):
                    if isinstance(event, DataReceived):
                        protocol.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                    elif isinstance(event, StreamEnded | StreamReset):
                        waiting -= 1
                        self.count(1)
                connection.sendall(protocol.data_to_send())


def tell(**what: float) -> None:
    """Print one line."""
    print(json.dumps(what), flush=True)


def main() -> None:
    """Do what the argument says."""
    wanted = json.loads(sys.argv[1])
    if wanted["do"] == "connect":
        connections = Connections(wanted)
        connections.open(wanted["count"])
        for line in sys.stdin:
            for order, what in json.loads(line).items():
                getattr(connections, order)(what)
    else:
        Crowd(wanted).run()


if __name__ == "__main__":
    main()
