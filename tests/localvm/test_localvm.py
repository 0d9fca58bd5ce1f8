"""Boots real machines with tools/localvm, reboots them and cuts their power. Needs root and 172.30.0.24 to .28."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import ROOT

LOCALVM = ROOT / "tools" / "localvm"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
MACHINES = {"test-trixie": ("trixie", "172.30.0.24"), "test-bookworm": ("bookworm", "172.30.0.25")}


def localvm(*words: str | Path, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the tool as people do: a program, its output in a pipe."""
    done = subprocess.run(
        [sys.executable, LOCALVM, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def eventually(question: Callable[[], object], seconds: float = 30) -> None:
    """Wait until the question is answered with yes."""
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


@dataclass
class Guest:
    """A machine as its user sees it: over SSH, its host key checked."""

    name: str
    release: str
    address: str
    folder: Path

    @property
    def up(self) -> list[str]:
        key, known_hosts = str(self.folder / "key.pub"), str(self.folder / "known_hosts")
        options = ["--release", self.release, "--authorized-key", key, "--known-hosts", known_hosts]
        return ["up", self.name, "--address", self.address, "--disk-mb", "16", *options]

    @property
    def ssh(self) -> list[str]:
        known_hosts = f"UserKnownHostsFile={self.folder / 'known_hosts'}"
        options = [
            "-o",
            known_hosts,
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=5",
        ]
        return ["ssh", "-i", str(self.folder / "key"), *options, f"debian@{self.address}"]

    def run(self, command: str, check: bool = True) -> str:
        done = subprocess.run(
            [*self.ssh, command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def boot_id(self) -> str:
        return self.run(BOOT_ID, check=False)


def traces() -> dict[str, list[str]]:
    """What machines and outsiders could leave on the host; other people's machines are not looked at."""

    def lines(*command: str, about: str) -> list[str]:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return sorted(line for line in output.splitlines() if about in line)

    def names(*patterns: str) -> list[str]:
        return sorted(str(path) for pattern in patterns for path in Path("/").glob(pattern))

    return {
        "processes": lines("ps", "-ww", "-eo", "args=", about="/var/lib/fortress-localvm/test-"),
        "links": names("sys/class/net/fortress0", "sys/class/net/vb-test-*", "sys/class/net/fstr*"),
        "tables": lines("nft", "list", "tables", about="fortress_localvm"),
        "namespaces": names("run/netns/fortress-*"),
        # Where other machines are, the bridge stays, and the kernel notes only a moment later that ours left it.
        "routes": [
            route.replace("linkdown", "").strip()
            for network in ("172.30.0", "198.51.100")
            for route in lines("ip", "route", about=network)
        ],
        "forwarding": [Path("/proc/sys/net/ipv4/ip_forward").read_text()],
        "mounts": lines("cat", "/proc/self/mounts", about="/var/lib/fortress-localvm"),
        "groups": names("sys/fs/cgroup/*/fortress-localvm", "sys/fs/cgroup/*/fortress-localvm/test-*"),
        "files": names("var/lib/fortress-localvm", "var/lib/fortress-localvm/*test-*", "run/fortress-localvm")
        + names("run/systemd/nspawn/*/test-*"),
    }


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """The host is the same before the first machine and after the last."""
    assert os.geteuid() == 0, "these tests boot machines: run them as root"
    before = traces()
    yield
    assert traces() == before


@pytest.fixture(scope="module")
def guests(nothing_is_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Guest]]:
    """One machine of each release, made at the same time."""
    folder = tmp_path_factory.mktemp("localvm")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    guests = [Guest(name, release, address, folder) for name, (release, address) in MACHINES.items()]
    processes = [subprocess.Popen([sys.executable, LOCALVM, *guest.up]) for guest in guests]
    try:
        assert [process.wait(600) for process in processes] == [0, 0]
        yield guests
    finally:
        localvm("down", *MACHINES)


@pytest.fixture
def trixie(guests: list[Guest]) -> Guest:
    return guests[0]


@pytest.fixture
def bookworm(guests: list[Guest]) -> Guest:
    return guests[1]


@pytest.fixture(params=MACHINES)
def guest(request: pytest.FixtureRequest, guests: list[Guest]) -> Guest:
    return guests[list(MACHINES).index(request.param)]


def test_it_is_like_a_cloud_image(guest: Guest) -> None:
    eventually(lambda: guest.run("systemctl is-system-running", check=False) == "running")
    assert guest.run("hostname") == guest.name
    assert guest.run("id -un; sudo -n id -un").split() == ["debian", "root"]
    assert guest.run(". /etc/os-release; echo $VERSION_CODENAME") == guest.release
    assert guest.run("sudo passwd --status root | cut -d' ' -f2; sudo passwd --status debian | cut -d' ' -f2") == "L\nL"
    settings = guest.run("sudo sshd -T")
    assert "passwordauthentication no" in settings
    assert "kbdinteractiveauthentication no" in settings


def test_machines_share_no_identity(trixie: Guest, bookworm: Guest) -> None:
    for file in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"):
        assert trixie.run(f"cat {file}") != bookworm.run(f"cat {file}")
    assert trixie.run("ls /etc/ssh/ssh_host_*") == "/etc/ssh/ssh_host_ed25519_key\n/etc/ssh/ssh_host_ed25519_key.pub"


def test_known_hosts_is_the_users_alone(trixie: Guest) -> None:
    assert (trixie.folder / "known_hosts").stat().st_mode & 0o777 == 0o600


def test_it_reaches_the_mirror(guest: Guest) -> None:
    output = guest.run("sudo apt-get update --error-on=any")
    assert f"{guest.release}-security" in output


def test_it_trusts_what_the_host_trusts(guest: Guest) -> None:
    certificates = sorted(Path("/usr/local/share/ca-certificates").rglob("*.crt"))
    assert guest.run("ls /usr/local/share/ca-certificates").split() == [file.name for file in certificates]
    for file in certificates:
        guest.run(f"openssl verify /usr/local/share/ca-certificates/{file.name}")


def test_a_second_up_does_nothing(trixie: Guest) -> None:
    booted, started = trixie.boot_id(), time.monotonic()
    assert "already" in localvm(*trixie.up).stdout
    assert time.monotonic() - started < 2
    assert trixie.boot_id() == booted


def test_up_mends_a_lost_known_hosts(trixie: Guest) -> None:
    known_hosts = trixie.folder / "known_hosts"
    known_hosts.write_text(f"{trixie.address} ssh-ed25519 AAAAolder\nelsewhere ssh-ed25519 AAAAkept\n")
    localvm(*trixie.up)
    localvm(*Guest(*("test-bookworm", *MACHINES["test-bookworm"]), trixie.folder).up)
    trixie.run("true")
    assert "AAAAolder" not in known_hosts.read_text()
    assert "AAAAkept" in known_hosts.read_text()


def test_a_name_or_address_is_not_taken_twice(trixie: Guest, bookworm: Guest) -> None:
    key = trixie.up[-3]
    for words, reason in (
        (["test-trixie", "--address", "172.30.0.26"], "exists with address 172.30.0.24, not 172.30.0.26"),
        (["test-trixie", "--address", trixie.address, "--release", "bookworm"], "exists with release trixie"),
        (["test-other", "--address", trixie.address], "is the address of test-trixie"),
    ):
        done = localvm("up", *words, "--authorized-key", key, check=False)
        assert (done.returncode, reason in done.stderr, "localvm down" in done.stderr) == (1, True, True), done.stderr


def test_the_daemon_is_a_daemon(trixie: Guest) -> None:
    """It neither holds its caller's pipes nor sits in its session: a pipeline that ran `up` comes to its end."""
    file = Path("/var/lib/fortress-localvm", trixie.name, "supervisor")
    if not file.exists():
        pytest.skip("the host's systemd supervises here")
    pid = int(file.read_text())
    assert os.getsid(pid) == pid
    targets = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    assert targets == {"/dev/null", str(file), str(file.with_name("console.log"))}


def test_units_of_one_machine_are_not_those_of_another(trixie: Guest, bookworm: Guest) -> None:
    for guest in (trixie, bookworm):
        guest.run("sudo systemd-run --quiet --unit=same sleep 1000")
    trixie.run("sudo systemctl stop same")
    assert bookworm.run("systemctl is-active same") == "active"
    bookworm.run("sudo systemctl stop same")


def test_a_units_address_filter_is_enforced(guest: Guest) -> None:
    connect = f"""python3 -c 'import socket; socket.create_connection(("{guest.address}", 22), 3)'"""
    unit = "sudo systemd-run --quiet --wait"
    guest.run(f"{unit} {connect}")
    denied = f"{unit} --property=IPAddressDeny=any {connect} || echo refused"
    assert guest.run(denied) == "refused"


def test_it_survives_a_reboot(guest: Guest) -> None:
    """With its disk, which is a file system of its own and can be filled up."""
    booted = guest.boot_id()
    assert guest.run("findmnt --noheadings --output FSTYPE /srv/disk") == "ext4"
    guest.run("sudo dd if=/dev/zero of=/srv/disk/large bs=1M count=30", check=False)
    assert 0 <= int(guest.run("df --output=avail -B1M /srv/disk | tail -1")) <= 1
    guest.run("sudo rm /srv/disk/large; sudo touch /kept /srv/disk/kept; sudo reboot", check=False)
    eventually(lambda: guest.boot_id() not in ("", booted))
    guest.run("test -e /kept && test -e /srv/disk/kept")
    eventually(lambda: guest.run("systemctl is-system-running", check=False) == "running")


def test_stop_lets_services_end_and_start_brings_it_back(trixie: Guest) -> None:
    trixie.run("sudo systemd-run --quiet --unit=last --property='ExecStop=touch /ended' sleep 1000")
    localvm("stop", trixie.name)
    assert f"{trixie.release:<10} off" in localvm("list").stdout
    localvm("start", trixie.name)
    trixie.run("test -e /ended")


def test_a_cut_is_a_cut(trixie: Guest) -> None:
    trixie.run("sudo systemd-run --quiet --unit=cut --property='ExecStop=touch /farewell' sleep 1000")
    trixie.run("echo written | sudo tee /data; sync")
    # Nobody lives on to see that others are gone.
    survivor = "while systemctl show --property=Version; do :; done"
    for number in range(8):
        trixie.run(f"sudo systemd-run --quiet --unit=survivor{number} sh -c '{survivor}; touch /survivor{number}'")
    with socket.create_connection((trixie.address, 22), timeout=3) as peer:
        assert peer.recv(4) == b"SSH-"
        started = time.monotonic()
        localvm("cut", trixie.name)
        assert time.monotonic() - started < 3
        # A process that is killed has its connections closed; a host without power says nothing.
        with pytest.raises(TimeoutError):
            while peer.recv(1000):
                pass
    localvm("start", trixie.name)
    assert trixie.run("cat /data; ls /farewell /survivor*", check=False) == "written"
    eventually(lambda: trixie.run("systemctl is-system-running", check=False) == "running")


def test_up_recovers_what_a_crash_of_the_host_side_left(trixie: Guest) -> None:
    """The supervisor and systemd-nspawn are gone, the guest runs on without them: what the worst moment leaves."""
    file = Path("/var/lib/fortress-localvm", trixie.name, "supervisor")
    if not file.exists():
        pytest.skip("the host's systemd supervises here")
    booted = trixie.boot_id()
    nspawn = subprocess.check_output(["pgrep", "--full", f"^systemd-nspawn .*--machine={trixie.name} "], text=True)
    os.kill(int(file.read_text()), signal.SIGKILL)
    os.kill(int(nspawn), signal.SIGKILL)
    assert f"{trixie.release:<10} off" in localvm("list").stdout
    assert "already" not in localvm(*trixie.up).stdout
    assert trixie.boot_id() not in ("", booted)
    trixie.run("sudo systemd-run --quiet --wait true")


def test_an_outsider_connects_from_a_foreign_address(trixie: Guest) -> None:
    before = traces()
    done = localvm("outsider", "--", *trixie.ssh, "echo $SSH_CLIENT")
    assert done.stdout.startswith("198.51.100.7 ")
    assert localvm("outsider", "--address", "198.51.100.99", "--", *trixie.ssh, "echo $SSH_CLIENT").stdout.startswith(
        "198.51.100.99 "
    )
    assert localvm("outsider", "--", "sh", "-c", "exit 7", check=False).returncode == 7
    assert traces() == before


def test_an_outsider_who_is_stopped_leaves_nothing(trixie: Guest) -> None:
    before = traces()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            [sys.executable, LOCALVM, "outsider", "--", "sleep", "1000"],
            # A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        eventually(lambda pid=process.pid: subprocess.run(["pgrep", "-P", str(pid), "sleep"]).returncode == 0)  # type: ignore[misc]
        process.send_signal(number)
        assert process.wait(10) != 0
        # What a killed one could not clear away itself goes with the next.
        localvm("outsider", "--", "true")
        assert traces() == before


@pytest.mark.parametrize(("link", "let_in"), [("lan0", False), ("fstrlan0", True)])
def test_the_hosts_neighbours_are_not_let_in(trixie: Guest, link: str, let_in: bool) -> None:
    """Forwarding makes the host a router; only an outsider's link, here by its name, may use it to reach machines."""
    outside, inside = f"ip link add {link} type veth peer name eth0 netns test-lan", "ip -netns test-lan"
    subprocess.run(["ip", "netns", "add", "test-lan"], check=True)
    try:
        for command in (
            outside,
            f"ip address add 203.0.113.1/24 dev {link}",
            f"ip link set {link} up",
            f"{inside} address add 203.0.113.2/24 dev eth0",
            f"{inside} link set eth0 up",
            f"{inside} route add default via 203.0.113.1",
        ):
            subprocess.run(command.split(), check=True)
        knock = f"import socket; socket.create_connection(('{trixie.address}', 22), 2)"
        done = subprocess.run(["ip", "netns", "exec", "test-lan", sys.executable, "-c", knock], capture_output=True)
        assert (done.returncode == 0) == let_in, done.stderr
    finally:
        subprocess.run(["ip", "link", "delete", link], check=True)
        subprocess.run(["ip", "netns", "delete", "test-lan"], check=True)


def test_down_of_a_machine_takes_its_address_off_the_network(trixie: Guest) -> None:
    extra = Guest("test-extra", "trixie", "172.30.0.26", trixie.folder)
    before = traces()
    localvm(*extra.up)
    localvm("down", extra.name)
    assert traces() == before
    with pytest.raises(OSError):
        socket.create_connection((extra.address, 22), timeout=1)
    assert localvm("down", extra.name).stdout == "there is no machine test-extra\n"


def test_an_interrupted_build_leaves_nothing(trixie: Guest) -> None:
    cache = Path("/var/cache/fortress-localvm")
    before = sorted(cache.glob("*/"))
    # The same mirror spelt differently is another image to build.
    mirror = trixie.run("sed -n 's/^URIs: //p' /etc/apt/sources.list.d/debian.sources").split()[0]
    build = subprocess.Popen([sys.executable, LOCALVM, "build", "--mirror", mirror.rstrip("/") + "/./"])
    # mmdebstrap has mounted the guest's /proc and /sys by then.
    eventually(lambda: list(cache.glob(".build-*/tree/usr/bin/dpkg")), seconds=120)
    build.terminate()
    assert build.wait(20) == 128 + signal.SIGTERM
    assert sorted(cache.glob("*/")) == before
    for command in (["cat", "/proc/mounts"], ["ps", "-ww", "-eo", "args="]):
        assert ".build-" not in subprocess.check_output(command, text=True)


def test_it_works_where_systemd_is_pid_1(guest: Guest) -> None:
    """A machine in a machine: that host is supervised by systemd, and has its release's versions of everything."""
    options = f"--release {guest.release} --authorized-key key.pub --known-hosts known_hosts"
    up = f"sudo python3 localvm up inner {options} --address"

    def send(folder: Path, *names: str, to: str) -> None:
        with subprocess.Popen(["tar", "-C", str(folder), "-c", *names], stdout=subprocess.PIPE) as tar:
            subprocess.run([*guest.ssh, f"sudo mkdir -p {to} && sudo tar -C {to} -x"], stdin=tar.stdout, check=True)

    def inner(command: str) -> str:
        options = "-i key -o UserKnownHostsFile=known_hosts -o BatchMode=yes -o ConnectTimeout=5"
        return guest.run(f"ssh {options} debian@172.31.0.10 '{command}'", check=False)

    send(LOCALVM.parent, "localvm", to="/home/debian")
    image = json.loads(Path("/var/lib/fortress-localvm", guest.name, "machine.json").read_text())["image"]
    send(Path("/var/cache/fortress-localvm"), image, to="/var/cache/fortress-localvm")
    # An overlay holds no overlay's upper layer.
    guest.run("sudo mkdir /var/lib/fortress-localvm && sudo mount -t tmpfs tmpfs /var/lib/fortress-localvm")
    guest.run("ssh-keygen -q -t ed25519 -N '' -f key && sudo python3 localvm setup")
    assert "172.30.0.0/24 is routed over host0" in guest.run(f"{up} 172.30.0.10 2>&1", check=False)

    guest.run("sudo sed -i s/172.30.0.0/172.31.0.0/ localvm/network.py")
    guest.run("sudo nft 'table ip wall { chain forward { type filter hook forward priority 0; policy drop; }; }'")
    done = guest.run(f"{up} 172.31.0.10 2>&1")
    assert "inner is up at 172.31.0.10" in done
    assert "nftables table `ip wall`) drops forwarded packets" in done
    assert "already" in guest.run(f"{up} 172.31.0.10")
    assert guest.run("systemctl is-active fortress-vm-inner") == "active"
    booted = inner(BOOT_ID)
    inner("sudo touch /kept; sudo reboot")
    eventually(lambda: inner(BOOT_ID) not in ("", booted))
    for off in ("stop", "cut"):
        guest.run(f"sudo python3 localvm {off} inner")
        assert guest.run("systemctl is-active fortress-vm-inner", check=False) == "inactive"
        guest.run("sudo python3 localvm start inner")
    assert inner("ls /kept") == "/kept"
    assert guest.run("sudo python3 localvm prune") == ""
    guest.run("sudo python3 localvm down inner")
    assert guest.run("sudo python3 localvm prune") == f"/var/cache/fortress-localvm/{image} is deleted"
    places = "/sys/class/net/fortress0 /run/fortress-localvm /var/lib/fortress-localvm/*"
    assert guest.run(f"ls -d {places}; systemctl list-units --quiet 'fortress*'", check=False) == ""
