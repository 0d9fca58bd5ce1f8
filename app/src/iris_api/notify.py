"""Tells systemd how the service is: see sd_notify(3).

Written here because the package that does just this, sdnotify, has stood still since 2017 and hides every exception.
"""

import asyncio
import logging
import os
import socket

logger = logging.getLogger(__name__)


def notify(*assignments: str) -> None:
    """Send assignments such as READY=1 to systemd; outside of a systemd unit do nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(1)
            channel.sendto("\n".join(assignments).encode(), address)
    except OSError as error:
        logger.warning("systemd did not get %s: %s", assignments, error)


async def heartbeat() -> None:
    """Feed systemd's watchdog for as long as the event loop turns."""
    if not (microseconds := int(os.environ.get("WATCHDOG_USEC", 0))):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 1e6 / 4)
