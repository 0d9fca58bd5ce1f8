"""Notifies systemd of the state of the service: see sd_notify(3).

Written here because the package that does just this, sdnotify, has stood still since 2017 and hides every exception.
"""

import asyncio
import logging
import os
import socket

logger = logging.getLogger(__name__)


def notify(*assignments: str, patience: float = 5) -> None:
    """Send assignments such as READY=1 to systemd; outside of a systemd unit do nothing.

    If systemd does not take it within `patience` seconds, the message is lost and the log says so.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(patience)
            channel.sendto("\n".join(assignments).encode(), address)
    except OSError as error:
        logger.warning("systemd did not get %s: %s", assignments, error)


def parent_is_stopped() -> bool:
    """Return whether the parent process has been stopped (SIGSTOP), so that it replaces and ends nobody."""
    try:
        with open(f"/proc/{os.getppid()}/stat", encoding="utf-8") as file:
            return file.read().rpartition(") ")[2].startswith("T")
    except OSError:
        # No /proc, or the parent has just gone.
        return False


async def heartbeat() -> None:
    """Feed systemd's watchdog for as long as the event loop turns and the master that watches this worker does too."""
    if not (microseconds := int(os.environ.get("WATCHDOG_USEC", 0))):
        return
    interval = min(1, microseconds / 1e6 / 4)
    while True:
        if not parent_is_stopped():
            # Requests must not wait for a busy systemd: it gets the next beat.
            notify("WATCHDOG=1", patience=0)
        await asyncio.sleep(interval)
