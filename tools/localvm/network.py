"""The machines' network: a bridge, address translation in a dedicated table, and clients outside of every allowlist."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from .common import RUN, STATE, Problem, locked, run, succeeds

BRIDGE = "fortress0"
SUBNET = ipaddress.IPv4Network("172.30.0.0/24")
GATEWAY = SUBNET[1]
OUTSIDERS = ipaddress.IPv4Network("198.51.100.0/24")
TABLE = "fortress_localvm"
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
REMEMBERED = RUN / "ip_forward"

# The size clamp: the host's way out may carry less than the bridge, and not every network tells.
RULES = f"""
table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
    chain postrouting {{
        type nat hook postrouting priority srcnat
        ip saddr {SUBNET} ip daddr != {OUTSIDERS} oifname != "{BRIDGE}" masquerade
    }}
    chain forward {{
        type filter hook forward priority filter
        iifname "{BRIDGE}" tcp flags syn tcp option maxseg size set rt mtu
        oifname "{BRIDGE}" iifname != {{ "{BRIDGE}", "fstr*" }} ct state new drop
    }}
}}
"""


def machine_address(text: str) -> str:
    """Check an address for a machine."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise Problem(f"{text!r} is no IPv4 address: give one of {SUBNET[2]} ... {SUBNET[-2]}") from None
    if address not in SUBNET or address in (SUBNET[0], GATEWAY, SUBNET[-1]):
        raise Problem(f"{address} is not for machines: give one of {SUBNET[2]} ... {SUBNET[-2]}")
    return str(address)


def overlapping(routes: list[dict[str, str]]) -> dict[str, str] | None:
    """The first of the host's routes (as `ip -json route` prints them) that claims our addresses."""
    for route in routes:
        if route["dst"] == "default" or route.get("dev") == BRIDGE:
            continue
        if ipaddress.IPv4Network(route["dst"]).overlaps(SUBNET):
            return route
    return None


def require_free_subnet() -> None:
    """Raise Problem if the host routes our subnet elsewhere."""
    if taken := overlapping(json.loads(run("ip", "-json", "-4", "route", "show"))):
        raise Problem(
            f"{SUBNET} is taken: {taken['dst']} is routed over {taken.get('dev', 'another interface')}. "
            f"Take that network down first (`ip route show {taken['dst']}` shows it)"
        )


def firewalls(chains: dict[str, list[dict[str, dict[str, str]]]]) -> list[str]:
    """The tables (as `nft -j list chains` prints them) that drop forwarded packets by default; ours does not."""
    forward = (item["chain"] for item in chains["nftables"] if item.get("chain", {}).get("hook") == "forward")
    return [f"{chain['family']} {chain['table']}" for chain in forward if chain.get("policy") == "drop"]


def warn_of_firewalls() -> None:
    """Warn of tables that keep machines from the outside: in nftables no table can overrule another's drop."""
    for table in firewalls(json.loads(run("nft", "-j", "list", "chains"))):
        print(
            f"localvm: the host's firewall (nftables table `{table}`) drops forwarded packets, so machines may not "
            f"reach the outside. Let it accept what comes from and goes to {BRIDGE}. Where Docker made it: "
            f"iptables -I DOCKER-USER -i {BRIDGE} -j ACCEPT; iptables -I DOCKER-USER -o {BRIDGE} -j ACCEPT",
            file=sys.stderr,
        )


def ensure() -> None:
    """Bring up what is missing: bridge, forwarding, table."""
    if new := not Path("/sys/class/net", BRIDGE).exists():
        require_free_subnet()
        warn_of_firewalls()
        # An address of its own: otherwise the bridge takes a port's, and changes it as machines come and go.
        run("ip", "link", "add", BRIDGE, "address", "02:f0:17:1e:55:01", "type", "bridge")
    run("ip", "address", "replace", f"{GATEWAY}/{SUBNET.prefixlen}", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    # A new bridge on a host that was rebooted or crashed: what an older run remembered is void.
    if new or not REMEMBERED.exists():
        RUN.mkdir(parents=True, exist_ok=True)
        REMEMBERED.write_text(FORWARD.read_text())
    if FORWARD.read_text().strip() != "1":
        FORWARD.write_text("1")
    run("nft", "-f", "-", stdin=RULES)


def remove() -> None:
    """Put the host's network back as it was."""
    remove_dead_outsiders()
    for port in Path("/sys/class/net", BRIDGE, "brif").glob("*"):
        succeeds("ip", "link", "delete", port.name)
    succeeds("ip", "link", "delete", BRIDGE)
    succeeds("nft", "delete", "table", "ip", TABLE)
    if REMEMBERED.exists():
        FORWARD.write_text(REMEMBERED.read_text())
        REMEMBERED.unlink()
    if RUN.exists():
        RUN.rmdir()


def resolvers() -> list[str]:
    """The host's name servers as a guest can reach them: no loopback stub, no IPv6."""
    for file in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        words = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
        usable = [server for server in servers if ":" not in server and not server.startswith("127.")]
        if usable:
            return usable
    raise Problem("the host's resolv.conf names no server that a guest could reach: give --dns ADDRESS")


@contextlib.contextmanager
def outsider(wanted: str | None) -> Iterator[str]:
    """A network namespace with an address outside every allowlist, routed to the machines; yields its name."""
    remove_dead_outsiders()
    link = f"fstr{os.getpid()}"
    namespace = f"fortress-outsider-{os.getpid()}"
    try:
        if not Path("/sys/class/net", BRIDGE).exists():
            raise Problem("no machine is up, so there is no network to be an outsider in: `localvm up NAME ...`")
        with locked(STATE):
            address = _free_outsider_address(wanted)
            run("ip", "netns", "add", namespace)
            run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            run("ip", "address", "add", f"{OUTSIDERS[1]}/32", "dev", link)
            run("ip", "link", "set", link, "up")
            run("ip", "route", "add", address, "dev", link)
        inside = ("ip", "-netns", namespace)
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "address", "add", f"{address}/32", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*inside, "route", "add", str(OUTSIDERS[1]), "dev", "eth0")
        run(*inside, "route", "add", "default", "via", str(OUTSIDERS[1]))
        yield namespace
    finally:
        _remove_outsider(os.getpid())


def _free_outsider_address(wanted: str | None) -> str:
    """The address asked for, else the first that no other outsider has."""
    taken = {route["dst"] for route in json.loads(run("ip", "-json", "-4", "route", "show", "root", str(OUTSIDERS)))}
    if wanted is None:
        return next(str(address) for address in list(OUTSIDERS.hosts())[6:] if str(address) not in taken)
    try:
        address = ipaddress.IPv4Address(wanted)
    except ValueError:
        raise Problem(f"{wanted!r} is no IPv4 address") from None
    if address not in OUTSIDERS or address in (OUTSIDERS[0], OUTSIDERS[1], OUTSIDERS[-1]):
        raise Problem(f"an outsider's address is one of {OUTSIDERS[2]} ... {OUTSIDERS[-2]}, not {address}")
    if wanted in taken:
        raise Problem(f"another outsider has {wanted}: leave out --address and a free one is taken")
    return wanted


def _remove_outsider(pid: int) -> None:
    """Remove the outsider that the process pid made, with all that runs in it."""
    namespace = f"fortress-outsider-{pid}"
    if Path("/run/netns", namespace).exists():
        for inhabitant in run("ip", "netns", "pids", namespace).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(inhabitant), signal.SIGKILL)
    succeeds("ip", "link", "delete", f"fstr{pid}")
    succeeds("ip", "netns", "delete", namespace)


def remove_dead_outsiders() -> None:
    """Remove what outsiders left whose maker was killed."""
    for namespace in Path("/run/netns").glob("fortress-outsider-*"):
        pid = int(namespace.name.rsplit("-", 1)[1])
        if not Path("/proc", str(pid)).exists():
            _remove_outsider(pid)
