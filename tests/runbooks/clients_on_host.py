"""Clients of the gateway and of the instances, good and bad ones: runs on the host until it is stopped.

python3 clients_on_host.py FOLDER WHAT, one of the functions below; FOLDER has address, login, row.json and rows.csv.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()


def predictions() -> None:
    """Predict as clients do who keep to the limit, each from an address of its own."""
    side_by_side(through_the_gateway(f"127.0.0.{number}", pause=0.125) for number in range(2, 6))


def guesses() -> None:
    """Try one password after the other."""
    side_by_side([through_the_gateway("127.0.0.6", pause=0.12, login="iris:wrong")])


def greedy() -> None:
    """Ask for more than the limit allows."""
    side_by_side([through_the_gateway("127.0.0.7", pause=0.02)])


def halves() -> None:
    """Open many connections at a time, and send no more than half a request over any."""
    gateway = (FOLDER / "address").read_text()
    while True:
        opened = []
        for _ in range(150):
            with suppress(OSError):
                opened.append(socket.create_connection((gateway, 80), timeout=1, source_address=("127.0.0.8", 0)))
                opened[-1].send(b"GET / HTTP/1.1\r\n")
        time.sleep(1)
        for each in opened:
            each.close()
        time.sleep(5)


def many() -> None:
    """Send nothing to very many addresses of this host, each time the kernel is about to forget them."""
    room = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text()) * 9 // 10
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.10", 0))
        while True:
            for number in range(room):
                high, low = divmod(number % 65536, 256)
                client.sendto(b"", (f"127.9.{high}.{low}", 7000 + number // 65536))
            time.sleep(15)


def batches() -> None:
    """Send a thousand of the rows that come in these days from each of twenty addresses, within the limit."""
    side_by_side(
        through_the_gateway(f"127.0.1.{number}", pause=1, body=rows_now, headers={"Content-Type": "text/csv"})
        for number in range(1, 21)
    )


def errors() -> None:
    """Ask about a row on which the model fails, each time by the same request id."""
    row = json.loads((FOLDER / "row.json").read_text())
    body = json.dumps(row | {next(iter(row)): 77}).encode()
    side_by_side([through_the_gateway("127.0.0.9", pause=0.2, body=lambda: body, headers={"X-Request-ID": "errors"})])


def rows() -> None:
    """Send the first instance what the world is like now, every two seconds."""
    while True:
        ask_an_instance(8001, rows_now())
        time.sleep(2)


def endless() -> None:
    """Ask the third instance for what its model does not come to an end with."""
    header, row, *_ = rows_now().decode().splitlines()
    hangs = ",".join(["77", *row.split(",")[1:]])
    while True:
        ask_an_instance(8003, "\n".join([header, *[hangs] * 50_000]).encode(), patience=30)
        time.sleep(1)


def rows_now() -> bytes:
    """Return a table of the rows that come in these days."""
    return (FOLDER / "rows.csv").read_bytes()


def ask_an_instance(port: int, table: bytes, patience: float = 10) -> None:
    """Send a table to an instance, whatever it answers."""
    with suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
        connection.request("POST", "/predict", table, {"Content-Type": "text/csv"})
        connection.getresponse().read()
        connection.close()


def through_the_gateway(
    source: str,
    pause: float,
    login: str = "",
    body: Callable[[], bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> Callable[[], None]:
    """Return what asks for predictions from an address, again and again, over a connection that is kept.

    Of one row, as JSON, unless a body is given, which is asked for each time, and, in the headers, its type.
    """
    credentials = b64encode((login or (FOLDER / "login").read_text()).encode()).decode()
    sent = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"} | (headers or {})
    row, gateway = (FOLDER / "row.json").read_bytes(), (FOLDER / "address").read_text()

    def ask() -> None:
        connection: http.client.HTTPSConnection | None = None
        while True:
            try:
                # Whose certificate it is matters to other tests.
                connection = connection or http.client.HTTPSConnection(
                    gateway, timeout=10, source_address=(source, 0), context=ssl._create_unverified_context()
                )
                connection.request("POST", "/predict", body() if body else row, sent)
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection = None
                time.sleep(0.5)
            time.sleep(pause)

    return ask


def side_by_side(all_of_them: Iterable[Callable[[], None]]) -> None:
    """Run functions that do not end, each in a thread."""
    threads = [threading.Thread(target=each) for each in all_of_them]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    every = (predictions, guesses, greedy, halves, many, batches, errors, rows, endless)
    {each.__name__: each for each in every}[sys.argv[2]]()
