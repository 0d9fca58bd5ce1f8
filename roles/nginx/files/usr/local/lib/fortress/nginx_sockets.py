#!/usr/bin/python3
"""Start nginx with listening sockets that outlive it, so that a restart refuses no connection.

    nginx_sockets.py 0.0.0.0:80 0.0.0.0:443 -- /usr/sbin/nginx -g 'master_process on;'
    nginx_sockets.py --take PROCESS

systemd keeps the sockets while nginx is restarted, by hand or because it died (sd_notify(3), FDSTORE): connections wait
in them. nginx takes them as it does from its own predecessor when its program is upgraded, by the variable NGINX. When
nginx is stopped, systemd closes them.

The second form runs before nginx is stopped, and has systemd keep the sockets of one that was started without them: by
release 1.0.0, or by Debian's unit.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PID_FILE = Path("/run/nginx.pid")
# systemd's first descriptor, and what it calls those that it was given to keep.
FIRST = 3
NAME = "listening"
# As nginx has it.
BACKLOG = 511
# The number of the system call, on every architecture: pidfd_getfd(2).
PIDFD_GETFD = 438


def parse(address: str) -> tuple[str, int]:
    """Return host and port of 0.0.0.0:80 or [::]:80."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def listen(address: str) -> socket.socket:
    """Return a socket that listens as one of nginx' own does."""
    host, port = parse(address)
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((host, port))
    made.listen(BACKLOG)
    # nginx does not set it on a socket that it was given.
    made.setblocking(False)
    return made


def given(environment: dict[str, str]) -> list[socket.socket]:
    """Return the sockets that systemd has kept."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(environment.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=number) for number in range(FIRST, FIRST + count)]


def sockets(addresses: Sequence[str], kept: Sequence[socket.socket]) -> list[socket.socket]:
    """Return a socket for each address: one that was kept, or a new one. What was kept for others is closed.

    As nginx does, an address has none of its own where all addresses (0.0.0.0, [::]) have one of that port.
    """
    every = {parse(address) for address in addresses}
    wanted = [
        address
        for address in dict.fromkeys(addresses)
        for host, port in [parse(address)]
        if host in ("0.0.0.0", "::") or ("::" if ":" in host else "0.0.0.0", port) not in every
    ]
    found = {one.getsockname()[:2]: one for one in kept}
    for name in found.keys() - {parse(address) for address in wanted}:
        found[name].close()
    return [found.get(parse(address)) or listen(address) for address in wanted]


def notify(text: str, descriptors: Sequence[int] = ()) -> None:
    """Tell systemd something; nothing where there is no systemd."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.connect(f"\0{path[1:]}" if path.startswith("@") else path)
            socket.send_fds(end, [text.encode()], list(descriptors))


def barrier() -> None:
    """Return when systemd has read what it was told."""
    read, write = os.pipe()
    notify("BARRIER=1", [write])
    os.close(write)
    poll = select.poll()
    poll.register(read, 0)
    poll.poll(5000)
    os.close(read)


def release() -> None:
    """Have systemd close what it has kept: what it holds of an address nobody else can bind."""
    notify(f"FDSTOREREMOVE=1\nFDNAME={NAME}")
    barrier()


def keep(open_ones: Sequence[socket.socket]) -> None:
    """Have systemd keep these sockets."""
    notify(f"FDSTORE=1\nFDNAME={NAME}", [one.fileno() for one in open_ones])
    barrier()


def listening(process: int) -> list[socket.socket]:
    """Return the sockets that another process listens on, shared with it: connections go on waiting in them.

    Raises:
        OSError: the process is gone, or its sockets can't be had, as in some containers.
    """
    numbers = [
        int(file.name) for file in Path(f"/proc/{process}/fd").iterdir() if os.readlink(file).startswith("socket:")
    ]
    libc, handle = ctypes.CDLL(None, use_errno=True), os.pidfd_open(process)
    found = []
    for number in numbers:
        if (copy := libc.syscall(PIDFD_GETFD, handle, number, 0)) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        one = socket.socket(fileno=copy)
        if one.family in (socket.AF_INET, socket.AF_INET6) and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.append(one)
    os.close(handle)
    return found


def take(process: int) -> None:
    """Have systemd keep the sockets of an nginx that runs, unless it keeps some already."""
    command = ["systemctl", "show", "--property=NFileDescriptorStore", "--value", "nginx.service"]
    if subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout.strip() == "0":
        keep(listening(process))


def start(command: Sequence[str], open_ones: Sequence[socket.socket], pid_file: Path) -> int:
    """Start nginx with these sockets; return 0 when it runs, or its own status where it ended."""
    numbers = [one.fileno() for one in open_ones]
    environment = os.environ | {"NGINX": "".join(f"{number};" for number in numbers)}
    # With sockets that were given, nginx stays in the foreground: the child is its master.
    child = subprocess.Popen(command, env=environment, pass_fds=numbers, start_new_session=True)
    while (status := child.poll()) is None:
        if pid_file.exists() and pid_file.read_text().strip() == str(child.pid):
            return 0
        time.sleep(0.01)
    return status or 1


def main() -> int:
    """Run as a program."""
    if sys.argv[1] == "--take":
        try:
            # No process is named where it has ended by itself.
            for process in sys.argv[2:]:
                take(int(process))
        except OSError as error:
            print(f"connections are refused while nginx restarts: its sockets can't be taken: {error}", file=sys.stderr)
        return 0
    end = sys.argv.index("--")
    kept = given(dict(os.environ))
    release()
    open_ones = sockets(sys.argv[1:end], kept)
    keep(open_ones)
    return start(sys.argv[end + 1 :], open_ones, PID_FILE)


if __name__ == "__main__":
    sys.exit(main())
