"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from . import image, mirror, network
from .common import CACHE, STATE, Problem, locked, missing_packages, remove_tree, run
from .machine import Machine, create, load, load_all, public_key, require_free_address, valid_name
from .supervisor import Daemon


def say(text: str) -> None:
    """Print a line, unbuffered."""
    print(text, flush=True)


def require_host() -> None:
    """Raise Problem unless run as root on a host with the packages that are needed."""
    if os.geteuid() != 0:
        raise Problem(f"this needs root: sudo python3 {shlex.join(sys.argv)}")
    if missing := missing_packages():
        raise Problem(f"the host lacks packages: apt-get install {' '.join(missing)} (or: localvm setup)")


def existing(name: str) -> Machine:
    """The machine of that name, or a Problem that names those there are."""
    if machine := load(valid_name(name)):
        return machine
    known = ", ".join(machine.name for machine in load_all()) or "none"
    raise Problem(f"there is no machine {name} (there are: {known}): `localvm up {name} ...` makes it")


def setup(_: argparse.Namespace) -> None:
    """Install the host's packages."""
    if os.geteuid() != 0:
        raise Problem(f"this needs root: sudo python3 {shlex.join(sys.argv)}")
    if not (missing := missing_packages()):
        return
    say(f"installing {' '.join(missing)} ...")
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run("apt-get", "update")
    run("apt-get", "install", "--yes", "--no-install-recommends", *missing)


def build(options: argparse.Namespace) -> None:
    """Build the image."""
    mirrors = mirror.find(options.mirror, options.security_mirror)
    say(str(image.path(image.ensure(options.release, mirrors))))


@contextlib.contextmanager
def state_locked() -> Iterator[None]:
    """Hold the machines' state; when no machine is left in it, leave nothing else of ours on the host either."""
    with locked(STATE):
        try:
            yield
        finally:
            if not load_all():
                network.remove()
                for leftover in STATE.iterdir():
                    remove_tree(leftover)
                # Somebody's disk may be mounted here: that stays.
                with contextlib.suppress(OSError):
                    STATE.rmdir()


def up(options: argparse.Namespace) -> None:
    """Create what is missing, boot what is off."""
    name, address = valid_name(options.name), network.machine_address(options.address)
    key = public_key(options.authorized_key)
    started = time.monotonic()
    built = None
    if not load(name):
        # Whatever can be checked is checked before the long work.
        require_free_address(address)
        network.require_free_subnet()
        built = image.ensure(options.release, mirror.find(options.mirror, options.security_mirror))
    with state_locked():
        machine = load(name)
        if machine:
            check_same(machine, options, key)
        else:
            if built is None or not image.path(built).is_dir():
                raise Problem("somebody removed the machine or its image at this moment: run the same command again")
            login = str(options.authorized_key.resolve())
            machine = Machine(name, address, options.release, built, login, options.disk_mb)
            create(machine, key, [str(server) for server in options.dns or network.resolvers()])
        was_running = machine.running
        machine.start()
        if options.known_hosts:
            trust(machine, options.known_hosts)
    machine.wait_for_ssh()
    took = "already" if was_running else f"in {time.monotonic() - started:.1f} s"
    say(f"{name} is up at {address} ({took})")


def check_same(machine: Machine, options: argparse.Namespace, key: str) -> None:
    """Raise Problem if a machine was made with another address, release, disk or key than the options name."""
    again = f"`localvm down {machine.name}` deletes it, then up makes it anew"
    for what in ("address", "release", "disk_mb"):
        if (has := getattr(machine, what)) != (wanted := getattr(options, what)):
            raise Problem(f"{machine.name} exists with {what} {has}, not {wanted}: {again}")
    if key not in (machine.home / "upper/home/debian/.ssh/authorized_keys").read_text():
        raise Problem(f"{machine.name} exists and does not know the key {options.authorized_key}: {again}")


def trust(machine: Machine, file: Path) -> None:
    """Write the machine's host key into a known_hosts file, in place of an older one of its address."""
    others = []
    if file.exists():
        others = [line for line in file.read_text().splitlines() if line.split(" ", 1)[0] != machine.address]
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o600)
        # Under sudo the file is for the user who called.
        os.chown(file, int(os.environ.get("SUDO_UID", -1)), int(os.environ.get("SUDO_GID", -1)))
    file.chmod(0o600)
    file.write_text("\n".join([*others, f"{machine.address} {machine.host_key}"]) + "\n")


def start(options: argparse.Namespace) -> None:
    """Boot a machine that is off."""
    machine = existing(options.name)
    with state_locked():
        machine.start()
    machine.wait_for_ssh()
    say(f"{machine.name} is up at {machine.address}")


def stop(options: argparse.Namespace) -> None:
    """Power a machine off."""
    existing(options.name).stop()


def cut(options: argparse.Namespace) -> None:
    """Cut a machine's power."""
    existing(options.name).cut()


def down(options: argparse.Namespace) -> None:
    """Delete machines, and with the last one everything else but the cache."""
    names = [machine.name for machine in load_all()] if options.all else [valid_name(name) for name in options.name]
    if not names and not options.all:
        raise Problem("which machine? `localvm down NAME`, or `localvm down --all`")
    with state_locked():
        for name in names:
            if machine := load(name):
                machine.delete()
                say(f"{name} is deleted")
            else:
                say(f"there is no machine {name}")


def show(_: argparse.Namespace) -> None:
    """List the machines."""
    for machine in load_all():
        say(f"{machine.name:<24} {machine.address:<14} {machine.release:<10} {'up' if machine.running else 'off'}")


def prune(_: argparse.Namespace) -> None:
    """Delete unused images."""
    with state_locked():
        for name in image.prune({machine.image for machine in load_all()}):
            say(f"{CACHE / name} is deleted")


def ssh(options: argparse.Namespace) -> int:
    """Open a shell on a machine, or run a command there."""
    machine = existing(options.name)
    known_hosts = machine.home / "known_hosts"
    trust(machine, known_hosts)
    identity = options.identity or Path(machine.authorized_key).with_suffix("")
    command = ["ssh", "-i", str(identity), "-o", f"UserKnownHostsFile={known_hosts}", "-o", "LogLevel=ERROR"]
    return subprocess.call([*command, f"debian@{machine.address}", *options.command])


def outsider(options: argparse.Namespace) -> int:
    """Run a command as an outsider."""
    if not options.command:
        raise Problem("run what? `localvm outsider -- curl http://172.30.0.10/`")
    with network.outsider(options.address) as namespace:
        return subprocess.call(["ip", "netns", "exec", namespace, *options.command])


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    top = argparse.ArgumentParser(
        prog="localvm",
        description="Local Debian machines (systemd-nspawn) for development and tests. Needs root. "
        f"Machines get addresses in {network.SUBNET} and reach the outside through the host.",
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, action: object, text: str, more: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}")
        sub.set_defaults(action=action)
        return sub

    def with_image_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--release", choices=image.RELEASES, default="trixie", help="Debian release (default: %(default)s)"
        )
        sub.add_argument("--mirror", metavar="URL", help="Debian mirror (default: what the host's apt uses)")
        sub.add_argument("--security-mirror", metavar="URL", help="Debian security mirror (default: likewise)")

    command("setup", setup, "install the Debian packages this tool needs on the host")
    with_image_options(command("build", build, "build and cache the image, and make no machine"))

    sub = command(
        "up", up, "make a machine and boot it, and wait until SSH answers", "What is there already is left alone."
    )
    sub.add_argument("name", metavar="NAME", help="name, and host name")
    sub.add_argument("--address", required=True, help=f"its address in {network.SUBNET}")
    sub.add_argument(
        "--authorized-key",
        required=True,
        type=Path,
        metavar="FILE.pub",
        help="SSH public key that may log in as debian",
    )
    sub.add_argument("--known-hosts", type=Path, metavar="FILE", help="write the machine's SSH host key here")
    sub.add_argument(
        "--disk-mb",
        type=int,
        default=0,
        metavar="MB",
        help="give it a disk of this size beside its root, at /srv/disk: one that can be filled up",
    )
    sub.add_argument(
        "--dns",
        action="append",
        type=ipaddress.IPv4Address,
        metavar="ADDRESS",
        help="name server for the guest (default: the host's)",
    )
    with_image_options(sub)

    for name, action, text, more in (
        ("start", start, "boot a machine that is off", "Returns when SSH answers."),
        ("stop", stop, "power a machine off, and keep its disk", ""),
        (
            "cut",
            cut,
            "cut a machine's power: everything in it dies at once; its disk stays",
            "What the guest had written stays too, synced or not: the host, which holds the cache, does not crash.",
        ),
    ):
        command(name, action, text, more).add_argument("name", metavar="NAME")

    sub = command("down", down, "delete machines", "With the last one go bridge, address translation and forwarding.")
    sub.add_argument("name", metavar="NAME", nargs="*")
    sub.add_argument("--all", action="store_true", help="every machine")

    command("list", show, "list the machines: name, address, release, up or off")
    command("prune", prune, "delete the cached images that no machine uses", f"They lie in {CACHE}.")

    sub = command("ssh", ssh, "open a shell on a machine as debian, or run a command there")
    sub.add_argument("--identity", type=Path, metavar="FILE", help="private key (default: beside the authorized key)")
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER)

    sub = command(
        "outsider",
        outsider,
        "run a command from an address outside every allowlist",
        f"It runs in a network namespace of its own with an address in {network.OUTSIDERS}, which the machines can "
        "answer; all of it is gone when the command ends, and its exit status is passed on.",
    )
    sub.add_argument("--address", help="the outsider's address (default: a free one)")
    sub.add_argument("command", metavar="CMD", nargs=argparse.REMAINDER)
    return top


def main() -> int:
    """Run one command; return the exit status."""
    # An ordinary user's PATH, kept by sudo, may lack them.
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    if sys.argv[1:2] == ["_supervise"]:
        Daemon().supervise(sys.argv[2], sys.argv[3:])
        return 0
    options = parser().parse_args()
    if getattr(options, "command", None) and options.command[0] == "--":
        del options.command[0]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        if options.action is not setup:
            require_host()
        return options.action(options) or 0
    except (Problem, OSError) as problem:
        print(f"localvm: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
