"""Ports, addresses and numbers of instances change in three steps, and no gateway is ever without an answer."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from typing import Any

import pytest
from iris_deploy.addresses import NOWHERE, Address, Listeners
from iris_deploy.commands import Command
from iris_deploy.store import Deployment

from .conftest import Site

LOOPBACK = "127.0.0.1"


class Gateway:
    """Knows some addresses; at each command it is counted how many of them answer."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.knows: set[Address] = set()
        self.least = 1000
        run = site.machine.run

        def watched(command: Command) -> Any:
            done = run(command)
            if command.argv[0] == "systemctl" and command.argv[1] in ("restart", "disable", "stop", "daemon-reload"):
                self.look()
            return done

        site.machine.run = watched  # type: ignore[method-assign]

    def look(self, *, restarting: bool = True) -> int:
        """Count the addresses that it takes for good: those of what was started just before it leaves alone."""
        machine, settle = self.site.machine, self.site.host.settings.settle
        away = {
            f"iris-api@{each}.service" for each, when in machine.starts if restarting and machine.time - when < settle
        }
        held = {
            address
            for name, unit in self.site.machine.units.items()
            if unit.active == "active" and name not in away
            for address in unit.listeners.addresses
        }
        # From an address of the host itself, which is a client as any other.
        allowed = {LOOPBACK, "0.0.0.0", "::", *self.site.host.systemd.clients}
        answering = sum(known.host in allowed and any(has.covers(known) for has in held) for known in self.knows)
        self.least = min(self.least, answering)
        return answering

    def told(self) -> None:
        """Let it know what Ansible says."""
        settings = self.site.host.settings
        self.knows = {self.site.host.wanted(number) for number in range(1, settings.instances + 1)}


def listening(site: Site) -> dict[int, Listeners]:
    """Return where each instance that lives has listened since it started."""
    units = site.machine.units.items()
    return {int(name[9:-8]): unit.listeners for name, unit in units if name[9].isdigit() and unit.active == "active"}


def settled(site: Site) -> None:
    """Assert that each instance listens where it is wanted, alone, and that there are no others."""
    host = site.host
    wanted = {number: Listeners((host.wanted(number),)) for number in range(1, host.settings.instances + 1)}
    assert listening(site) == {number: host.store.listeners(number) for number in wanted} == wanted
    assert host.systemd.enabled == host.store.instances == set(wanted)
    assert not host.expanded


ONE_HOST = (3, 8001, LOOPBACK)
CHANGES = [
    (ONE_HOST, (3, 9001, LOOPBACK)),
    (ONE_HOST, (3, 8002, LOOPBACK)),
    (ONE_HOST, (3, 7999, LOOPBACK)),
    (ONE_HOST, (3, 8001, "192.0.2.7")),
    ((3, 8001, "192.0.2.7"), ONE_HOST),
    ((2, 8001, "192.0.2.7"), (3, 8002, "192.0.2.9")),
    (ONE_HOST, (3, 8001, "0.0.0.0")),
    (ONE_HOST, (5, 8001, LOOPBACK)),
    (ONE_HOST, (2, 8001, LOOPBACK)),
    (ONE_HOST, (2, 8003, LOOPBACK)),
    (ONE_HOST, (4, 7999, "192.0.2.7")),
    ((2, 8001, LOOPBACK), (2, 8002, LOOPBACK)),
    ((2, 8002, LOOPBACK), (2, 8001, LOOPBACK)),
    ((2, 8001, "0.0.0.0"), (3, 8002, LOOPBACK)),
    ((2, 8002, LOOPBACK), (3, 8001, "::")),
]


@pytest.mark.parametrize(("old", "new"), CHANGES, ids=str)
def test_expand_switch_contract(site: Site, old: tuple[int, int, str], new: tuple[int, int, str]) -> None:

    def settings(instances: int, port: int, address: str) -> None:
        clients = [address] if address.startswith("192") else []
        site.settings(instances=instances, base_port=port, bind_address=address, clients=clients)

    settings(*old)
    same = site.deployed()
    settled(site)
    gateway = Gateway(site)
    gateway.told()
    site.machine.time += 10
    settings(*new)

    expanded = "expanded" in site.deploy(same)
    assert gateway.least >= old[0] - 1
    # What it does not know yet answers, and what it knows still does.
    assert gateway.look(restarting=False) == old[0]
    gateway.told()
    assert gateway.look(restarting=False) == new[0]
    gateway.least = 1000

    # Asked again, it waits for the gateways.
    again = site.deploy(same)
    assert (again["changed"], "expanded" in again) == (False, expanded)
    assert site.call("contract", "--who", "ana@laptop")["changed"] is expanded
    assert gateway.least >= new[0] - 1
    settled(site)
    assert not site.call("contract")["changed"]
    assert site.deploy(same) == {"changed": False, "message": f"{same} runs already."}


def test_the_way_is_cut_at_any_point_and_gone_on_by_the_next(site: Site) -> None:
    """All ports move by one; whatever ends the run, the next one arrives."""
    same = site.deployed()
    gateway = Gateway(site)
    gateway.told()
    site.settings(base_port=8002)
    for number, step in itertools.product((3, 2, 1), ("deploy", "contract")):
        words = ("--no-block", f"iris-api@{number}.service")

        def cut() -> None:
            raise SystemExit

        site.machine.when = {words: cut}
        try:
            site.deploy(same) if step == "deploy" else site.call("contract")
        except SystemExit:
            pass
        else:
            # Switched already.
            assert step == "contract" or number != 3
    site.machine.when.clear()
    site.deploy(same)
    gateway.told()
    site.call("contract")
    settled(site)


def test_a_rollback_takes_no_port_back(site: Site) -> None:
    site.deployed()
    site.deployed(model="m2")
    site.settings(base_port=9001, instances=2)
    site.deploy(site.deployment(model="m2"))
    site.call("contract")
    settled(site)
    assert site.call("rollback")["changed"]
    settled(site)
    assert site.host.store.current == site.deployment(model="m1")


def test_a_rollback_on_the_way_leaves_the_gateway_both(site: Site) -> None:
    site.deployed()
    site.deployed(model="m2")
    gateway = Gateway(site)
    gateway.told()
    site.settings(base_port=9001)
    site.deploy(site.deployment(model="m2"))
    assert site.call("rollback")["changed"]
    assert gateway.look(restarting=False) == 3
    gateway.told()
    assert gateway.look(restarting=False) == 3


def test_a_deployment_on_the_way_reaches_those_that_are_to_stop(site: Site) -> None:
    """The gateway still asks them."""
    site.deployed()
    site.settings(instances=1)
    new = site.deployed(model="m2")
    assert site.serving == dict.fromkeys((1, 2, 3), ("active", new.id))
    assert "iris-api@3 at 127.0.0.1:8003, which is to stop" in site.call("status")["message"]
    site.call("contract")
    settled(site)


def test_one_that_is_to_stop_and_is_dead_is_left_alone(site: Site) -> None:
    site.deployed()
    site.settings(instances=2)
    site.machine.units["iris-api@3.service"].active = "failed"
    site.deployed(model="m2")
    assert site.serving[3][0] == "failed"


def test_a_deployment_of_release_1_0_0_listened_where_it_said_itself(site: Site) -> None:
    first = site.deployment("r-1.0.0")
    first = Deployment(first.release, first.model, "IRIS_API_BASE_PORT=9001\nIRIS_API_BIND_ADDRESS=::1\n", first.unit)
    store = site.host.store
    store.write(first)
    store.assign(2, first)
    assert store.listeners(2) == Listeners((Address("::1", 9002),))
    assert store.read(first.id) == first
    # It goes on to run where the host says, and so does a rollback to it.
    site.settings(base_port=7001)
    assert site.deploy(first)["changed"]
    site.call("contract")
    settled(site)


def test_where_a_port_is_taken_all_is_as_it_was(site: Site) -> None:
    same = site.deployed()
    site.settings(base_port=9001)
    site.machine.units["somebody.service"] = other = type(site.machine.units["iris-api@1.service"])()
    other.active, other.listeners = "active", Listeners((Address(LOOPBACK, 9002),))
    assert "Address already in use" in site.deploy(same)["message"]
    del site.machine.units["somebody.service"]
    assert listening(site) == {number: Listeners((Address(LOOPBACK, 8000 + number),)) for number in (1, 2, 3)}
    assert site.host.store.listeners(2) == Listeners((Address(LOOPBACK, 8002),))


def test_what_can_not_be_contracted_is_as_it_was(site: Site) -> None:
    same = site.deployed()
    site.settings(instances=1)
    systemctl = site.machine.systemctl

    def fails(*arguments: str) -> object:
        if arguments == ("disable", "--now", "iris-api@3.service"):
            return site.machine.done(code=1)
        return systemctl(*arguments)

    site.machine.systemctl = fails  # type: ignore[method-assign, assignment]
    site.deploy(same)
    result = site.call("contract")
    assert "systemctl disable --now iris-api@3.service" in result["message"]
    assert site.serving == dict.fromkeys((1, 2, 3), ("active", same.id))
    assert site.host.systemd.enabled == {1, 2, 3}


def test_what_a_contract_could_not_undo_is_said_and_the_next_converge_mends_it(site: Site) -> None:
    same = site.deployed()
    site.settings(instances=1)
    site.deploy(same)
    systemctl = site.machine.systemctl

    def fails(*arguments: str) -> object:
        if arguments[-1] == "iris-api@3.service" and arguments[0] in ("disable", "restart"):
            return site.machine.done(code=1)
        return systemctl(*arguments)

    site.machine.systemctl = fails  # type: ignore[method-assign, assignment]
    said = site.call("contract")["message"].splitlines()
    assert said[-2].startswith("COULD NOT BE UNDONE: switch iris-api@3.service: systemctl restart --no-block")
    assert said[-1].endswith("; `make converge` brings them where they are to be.")
    site.machine.systemctl = systemctl  # type: ignore[method-assign]
    site.deploy(same, "--converge")
    assert site.call("contract")["changed"]
    settled(site)


def test_clients_are_added_at_once_and_dropped_when_the_gateways_know(site: Site) -> None:
    """And nothing is restarted: systemd applies them to what runs."""
    site.settings(clients=["192.0.2.7", "192.0.2.0/28"])
    same = site.deployed()
    site.settings(clients=["192.0.2.8", "192.0.2.0/28"])
    assert "the clients 192.0.2.7" in site.deploy(same)["expanded"]
    assert site.host.systemd.clients == ["192.0.2.8", "192.0.2.0/28", "192.0.2.7"]
    # Nor does a rollback take them back.
    site.deployed(model="m2")
    site.call("rollback")
    assert site.call("contract")["changed"]
    assert site.host.systemd.clients == ["192.0.2.8", "192.0.2.0/28"]
    assert site.started == ["candidate", "1", "2", "3"]
    settled(site)


def test_a_host_asks_its_instances_at_its_own_address_whoever_else_may(site: Site) -> None:
    site.settings(bind_address="192.0.2.7")
    same = site.deployed()
    assert site.host.systemd.clients == ["192.0.2.7"]
    settled(site)
    site.settings()
    assert "the clients 192.0.2.7" in site.deploy(same)["expanded"]
    assert site.host.systemd.clients == ["192.0.2.7"]
    site.call("contract")
    assert site.host.systemd.clients == []
    settled(site)


def test_the_clients_of_the_unit_of_release_1_0_0_go_on_until_the_gateways_know(site: Site) -> None:
    first = site.deployed(IPAddressAllow="192.0.2.7 192.0.2.8")
    site.paths.host_unit.unlink()
    site.settings(clients=["192.0.2.8"])
    site.deploy(first)
    assert site.host.systemd.clients == ["192.0.2.8", "192.0.2.7"]
    site.call("contract")
    assert site.host.systemd.clients == ["192.0.2.8"]


def test_where_a_deployment_fails_clients_are_as_they_were(site: Site) -> None:
    site.deployed()
    before = site.host.systemd.host_unit
    site.settings(clients=["192.0.2.8"])
    assert site.deploy(site.deployment("r-second"))["failed"]
    assert site.host.systemd.host_unit == before
    site.paths.host_unit.unlink()
    assert site.deploy(site.deployment("r-second"))["failed"]
    assert not site.paths.host_unit.exists()


def test_what_the_host_adds_to_a_unit(site: Site) -> None:
    site.settings(clients=["192.0.2.7", "192.0.2.8"])
    site.deployed()
    assert site.paths.host_unit.read_text().splitlines()[1:] == [
        "[Service]",
        f"EnvironmentFile=-{site.paths.home}/listeners/%i.env",
        # Not whom the unit of an earlier deployment names.
        "IPAddressAllow=",
        "IPAddressAllow=localhost",
        "IPAddressAllow=192.0.2.7",
        "IPAddressAllow=192.0.2.8",
    ]


def test_what_somebody_added_to_the_unit_is_read_and_nothing_is_restarted(site: Site) -> None:
    """Of a run that was cut before systemd read it, too."""
    same = site.deployed()
    site.machine.outdated = True
    assert site.deploy(same)["changed"]
    assert (site.machine.outdated, site.started) == (False, [])


def test_settings_of_another_release_are_read(site: Site) -> None:
    site.settings(colour="green")
    assert site.host.settings.base_port == 8001
    known = asdict(site.host.settings)
    del known["base_port"], known["bind_address"], known["clients"]
    site.paths.settings.write_text(json.dumps(known))
    assert site.host.wanted(2) == Address(LOOPBACK, 8002)


def test_addresses() -> None:
    wild, six, one = Address("0.0.0.0", 1), Address("::", 1), Address(LOOPBACK, 1)
    assert wild.covers(one) and six.covers(wild) and not one.covers(wild)
    assert not wild.covers(Address("::1", 1)) and not six.covers(Address("::1", 2))
    for address in (wild, six, Address("::1", 8001)):
        assert Address.parse(str(address)) == address
    for listeners in (Listeners((one,)), Listeners((six,), shared=True), Listeners((six, Address(LOOPBACK, 9)), True)):
        assert Listeners.read(1, listeners.environment(1)) == listeners
    assert Listeners((Address("::1", 8002),)).environment(2) == (
        "# iris-deploy: where this instance listens.\nIRIS_API_BASE_PORT=8001\nIRIS_API_BIND_ADDRESS=::1\n"
    )
    both = Listeners((Address(LOOPBACK, 9002), Address(LOOPBACK, 8002)), shared=True).environment(2).splitlines()
    assert both[-1] == 'GUNICORN_CMD_ARGS="--reuse-port --bind=127.0.0.1:9002 --bind=127.0.0.1:8002"'
    assert Listeners.read(2, "# IRIS_API_BASE_PORT=1\n") == Listeners((Address(LOOPBACK, 8002),))
    assert [Address(host, 1).is_own for host in ("192.0.2.7", "2001:db8::1", "::1", "0.0.0.0", "localhost")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert not NOWHERE.clash(Listeners((one,)))
