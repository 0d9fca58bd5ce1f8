"""A machine: an overlay over the image, what makes it itself written into it, and its life."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from . import image, network
from .common import STATE, Problem, last_lines, remove_tree, require_free_space, run, succeeds
from .supervisor import kill_all, leader, supervisor

NEEDS_MB = 1000
SSH_TIMEOUT = 90
STOP_TIMEOUT = 60
POWER_OFF = signal.SIGRTMIN + 4

# Few, as on a disk of many small files: they can be used up in a moment.
DISK_INODES = 128

# The mounts live in a namespace of their own and end with the machine, however that ends.
BOOT = """
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
if [ -e "$2/disk.img" ]; then mount -o loop "$2/disk.img" "$2/disk"; fi
shift 2
exec "$@"
"""


def valid_name(name: str) -> str:
    """Check a machine's name, which is its host name too."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?", name):
        raise Problem(f"{name!r} is no name for a machine: at most 32 of a-z, 0-9 and -, a letter first, no - last")
    return name


def public_key(file: Path) -> str:
    """Read the key that may log in."""
    try:
        text = file.read_text().strip()
    except OSError as error:
        raise Problem(
            f"cannot read the public key {file}: {error.strerror}. "
            f"To make one: ssh-keygen -t ed25519 -f {file.with_suffix('')}"
        ) from None
    if "PRIVATE KEY" in text:
        raise Problem(f"{file} is the private key: give its public half, {file}.pub")
    if not re.match(r"(ssh-|ecdsa-|sk-)\S+ \S+", text):
        raise Problem(f"{file} holds no SSH public key")
    return text


@dataclass(frozen=True)
class Machine:
    """A machine that exists, running or not."""

    name: str
    address: str
    release: str
    image: str
    #: The file its login key came from.
    authorized_key: str
    #: The size of a disk of its own beside its root, at /srv/disk; 0 is none.
    disk_mb: int = 0

    @property
    def home(self) -> Path:
        """Where everything of the machine lies."""
        return STATE / self.name

    @property
    def console(self) -> Path:
        """What the guest said on its console."""
        return self.home / "console.log"

    @property
    def port(self) -> str:
        """The bridge's port that it hangs on. A longer name than the kernel takes is an alternative one of it."""
        return f"vb-{self.name}"

    @property
    def host_key(self) -> str:
        """The public half of its SSH host key."""
        return " ".join((self.home / "upper/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2])

    @property
    def running(self) -> bool:
        """Whether it is kept running."""
        return supervisor().alive(self.name)

    def command(self) -> list[str]:
        """What boots it."""
        return [
            *("unshare", "--mount", "--propagation=private", "sh", "-euc", BOOT, "boot"),
            *(str(image.path(self.image)), str(self.home)),
            *("systemd-nspawn", "--quiet", "--boot", f"--directory={self.home}/root", f"--machine={self.name}"),
            *("--register=no", "--keep-unit", "--link-journal=no", "--timezone=off", "--resolv-conf=off"),
            f"--network-bridge={network.BRIDGE}",
            *([f"--bind={self.home}/disk:/srv/disk"] if self.disk_mb else []),
            # Without bpf IPAddressDeny= in the guest's units is accepted and does nothing; without pidfd_getfd nothing
            # in the guest can take over the sockets of an nginx that runs, which a real machine allows.
            *("--capability=CAP_BPF,CAP_PERFMON", "--system-call-filter=bpf pidfd_getfd"),
        ]

    def start(self) -> None:
        """Boot it, unless it runs."""
        network.ensure()
        if not self.running:
            if not image.path(self.image).is_dir():
                raise Problem(f"the image of {self.name} is gone: `localvm down {self.name}`, then up again")
            supervisor().release(self.name)
            # A port that a crash left behind has the name the new one wants.
            succeeds("ip", "link", "delete", self.port)
            supervisor().start(self.name, self.command(), self.console)

    def wait_for_ssh(self) -> None:
        """Return once its SSH server answers."""
        deadline = time.monotonic() + SSH_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((self.address, 22), timeout=2) as connection:
                if connection.recv(4) == b"SSH-":
                    return
            if not self.running:
                break
            time.sleep(0.1)
        what = f"did not answer on port 22 within {SSH_TIMEOUT} s" if self.running else "ended while booting"
        raise Problem(f"{self.name} {what}; the end of {self.console}:\n{last_lines(self.console)}")

    def stop(self) -> None:
        """Power it off cleanly."""
        deadline = time.monotonic() + STOP_TIMEOUT
        while self.running:
            if time.monotonic() > deadline:
                raise Problem(f"{self.name} does not power off: `localvm cut {self.name}` pulls the plug")
            # Said again and again: a guest early in its boot is deaf.
            if pid := leader(supervisor().groups(self.name)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, POWER_OFF)
            for _ in range(20):
                if self.running:
                    time.sleep(0.1)
        supervisor().release(self.name)

    def cut(self) -> None:
        """Cut its power: everything in it dies at once, its disk stays, and its peers hear nothing of it."""
        # The kernel closes the connections of whoever dies, and says so: with its cable pulled nobody hears that.
        succeeds("ip", "link", "set", self.port, "down")
        kill_all(supervisor().groups(self.name))
        supervisor().release(self.name)

    def delete(self) -> None:
        """Cut its power and delete it."""
        self.cut()
        succeeds("ip", "neighbour", "flush", "to", self.address, "dev", network.BRIDGE)
        remove_tree(self.home)


def load(name: str) -> Machine | None:
    """The machine of that name."""
    try:
        return Machine(**json.loads((STATE / name / "machine.json").read_text()))
    except FileNotFoundError:
        return None


def load_all() -> list[Machine]:
    """Every machine, by name."""
    machines = (load(file.parent.name) for file in sorted(STATE.glob("[a-z]*/machine.json")))
    return [machine for machine in machines if machine]


def require_free_address(address: str) -> None:
    """Raise Problem if another machine has the address."""
    for other in load_all():
        if other.address == address:
            raise Problem(f"{address} is the address of {other.name}: choose another, or `localvm down {other.name}`")


def create(machine: Machine, key: str, resolvers: list[str]) -> None:
    """Make the machine, under a name of no meaning until it is whole."""
    require_free_address(machine.address)
    require_free_space(STATE, NEEDS_MB + machine.disk_mb)
    # What an interrupted `down` left of another.
    remove_tree(machine.home)
    draft = STATE / f".new-{machine.name}"
    try:
        for directory in ("upper", "work", "root"):
            (draft / directory).mkdir(parents=True)
        _personalize(draft / "upper", machine, key, resolvers)
        if machine.disk_mb:
            (draft / "disk").mkdir()
            with (draft / "disk.img").open("wb") as disk:
                disk.truncate(machine.disk_mb * 2**20)
            run("mkfs.ext4", "-q", "-m", "0", "-N", str(DISK_INODES), draft / "disk.img")
        (draft / "machine.json").write_text(json.dumps(asdict(machine), indent=2) + "\n")
        draft.rename(machine.home)
    finally:
        remove_tree(draft)


def _personalize(upper: Path, machine: Machine, key: str, resolvers: list[str]) -> None:
    """Write what makes the guest itself into its layer over the image."""
    lower = image.path(machine.image)

    def write(path: str, text: str, mode: int = 0o644) -> None:
        file = upper / path
        for parent in reversed(Path(path).parents):
            if not (upper / parent).exists():
                (upper / parent).mkdir()
            # A directory of the upper layer hides the attributes of the one below.
            like = (lower / parent).stat()
            os.chown(upper / parent, like.st_uid, like.st_gid)
            os.chmod(upper / parent, like.st_mode)
        file.touch(mode)
        file.chmod(mode)
        file.write_text(text)
        owner = file.parent.stat()
        os.chown(file, owner.st_uid, owner.st_gid)

    write("etc/hostname", f"{machine.name}\n")
    write("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {machine.name}\n::1 localhost ip6-localhost ip6-loopback\n")
    write("etc/machine-id", f"{uuid.uuid4().hex}\n")
    write("etc/resolv.conf", "".join(f"nameserver {server}\n" for server in resolvers))
    write(
        "etc/systemd/network/10-host0.network",
        f"[Match]\nName=host0\n\n[Network]\nAddress={machine.address}/{network.SUBNET.prefixlen}\n"
        f"Gateway={network.GATEWAY}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
    )
    write("home/debian/.ssh/authorized_keys", f"{key}\n", 0o600)
    for path, text in proxy_files(dict(os.environ)).items():
        write(path, text)
    host_key = upper / "etc/ssh/ssh_host_ed25519_key"
    write(str(host_key.relative_to(upper)), "", 0o600)
    host_key.unlink()
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{machine.name}", "-f", host_key)


def proxy_files(environment: dict[str, str]) -> dict[str, str]:
    """The host's proxy settings for the guest: for apt, and for whoever logs in."""
    proxies = {}
    for name in ("http_proxy", "https_proxy"):
        value = environment.get(name) or environment.get(name.upper())
        # A proxy on the host's loopback is not the guest's.
        if value and urlsplit(value).hostname not in {"localhost", "127.0.0.1", "::1"}:
            proxies[name] = value
    if not proxies:
        return {}
    direct = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    no_proxy = ",".join(filter(None, (direct, "localhost,127.0.0.1,::1", str(network.SUBNET))))
    apt = "".join(f'Acquire::{name.split("_")[0]}::Proxy "{value}";\n' for name, value in proxies.items())
    login = "".join(f"{name}={value}\n" for name, value in {**proxies, "no_proxy": no_proxy}.items())
    return {"etc/apt/apt.conf.d/80proxy": apt, "etc/environment": login}
