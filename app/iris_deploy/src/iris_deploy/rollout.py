"""One deployment takes the place of another, and one set of addresses that of another, an instance at a time."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from iris_api.bundle.golden import is_golden

from . import Failure, commands
from .addresses import NOWHERE, Listeners
from .commands import CANDIDATE, unit_of
from .host import Host
from .machine import named
from .store import Deployment
from .transaction import POLL_SECONDS, Deadline, Step, carry_out

# How far an answer may be off. Loose enough for any engine: the application itself judges more strictly when it starts.
TOLERANCE = 1e-4
# For an instance that is put back.
RESTORE_SECONDS = 90


def say(text: str) -> None:
    """Log the progress to standard output, which the journal keeps."""
    print(text, flush=True)


@dataclass(frozen=True)
class Place:
    """What an instance runs, and where it listens."""

    deployment: Deployment | None
    listeners: Listeners = NOWHERE


class Rollout:
    """Brings every instance of a host to one deployment, or puts back what each of them ran.

    Instances come to listen where Ansible wants them, but go on to where they are, and those beyond the number go on
    too: the gateways may not know yet. With `contract` they do, and what is not wanted is given up.
    """

    def __init__(self, host: Host, new: Deployment, *, contract: bool = False) -> None:
        self.host = host
        self.new = new
        self.numbers = range(1, host.settings.instances + 1)
        everyone = sorted({*self.numbers, *host.store.instances, *host.systemd.enabled})
        self.before = {number: Place(host.store.of(number), host.store.listeners(number)) for number in everyone}
        self.after = self._contracted() if contract else self._expanded()
        self._host_unit = commands.host_unit(host.store.home, self._clients(contract=contract))
        self._contract = contract
        self._units_before = host.systemd.unit, host.systemd.host_unit
        self._enabled_before = host.systemd.enabled
        self._switched: dict[int, float] = {}
        """Instances that were switched, and when that began, in seconds since 1970."""
        # Who knows what was restarted just before.
        self._restarted()

    def _clients(self, *, contract: bool) -> list[str]:
        """Return whom the instances talk with: until the gateways know also with whom they did.

        What is asked at an address of its own host is asked from there.
        """
        places = [*self.after.values(), *(() if contract else self.before.values())]
        own = sorted({address.host for place in places for address in place.listeners.addresses if address.is_own})
        return list(
            dict.fromkeys([*self.host.settings.clients, *own, *(() if contract else self.host.systemd.clients)])
        )

    def _contracted(self) -> dict[int, Place]:
        """Return what is to become of each instance; of those beyond the number nothing."""
        listeners = {number: Listeners((self.host.wanted(number),)) for number in self.numbers}
        return {
            number: Place(self.new, listeners[number]) if number in listeners else Place(None) for number in self.before
        }

    def _expanded(self) -> dict[int, Place]:
        """Return the same until the gateways know; one that is to stop, and does not serve, is left alone."""
        expanded = {}
        for number, place in self.before.items():
            if number in self.numbers:
                expanded[number] = Listeners(place.listeners.expanded(self.host.wanted(number)))
            elif self.host.serving(number):
                expanded[number] = Listeners(place.listeners.addresses)
        return {number: Place(self.new, self._shared(number, expanded)) for number in expanded}

    def _shared(self, number: int, everyone: Mapping[int, Listeners]) -> Listeners:
        """Return listeners that are shared where they change, or where another instance is to listen too."""
        mine = everyone[number]
        clash = any(mine.clash(other) for each, other in everyone.items() if each != number)
        return Listeners(mine.addresses, shared=clash or len(mine.addresses) > 1)

    @property
    def stale(self) -> list[int]:
        """Numbers of the instances that run something else or listen elsewhere, or would after their next start."""
        return [number for number, place in self.after.items() if not self._is_at(number, place)]

    def _is_at(self, number: int, place: Place) -> bool:
        if self.before[number] != place:
            return False
        if place.deployment:
            return self.host.serving(number) == place.deployment.id
        return number not in self._enabled_before

    @property
    def disabled(self) -> list[int]:
        """Numbers of the instances that do not come up at boot."""
        return [number for number in self.numbers if number not in self.host.systemd.enabled]

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self.host.store.current != self.new
            or (self.host.systemd.unit, self.host.systemd.host_unit) != (self.new.unit, self._host_unit)
            or self.host.systemd.outdated(self.before)
            or self.disabled
            or self.stale
        )

    def run(self) -> None:
        """Roll the deployment out; on an error put back what every instance ran before, and raise that error."""
        carry_out(self.steps(Deadline(self.host.machine, self.host.settings.timeout)), say)

    def steps(self, deadline: Deadline) -> Iterator[Step]:
        """Yield what is done in turn, each with what undoes it."""
        host, new, run = self.host, self.new, self.host.systemd.run
        yield Step("store the deployment", partial(host.store.write, new))
        if host.store.current != new:
            yield Step("try a candidate", partial(self._try_candidate, deadline))
        install = Step("install the unit", self._install_unit, self._restore_unit)
        if not self._contract:
            yield install
        yield from self._switches(deadline)
        if self._contract:
            # Nobody asks any more by an address that is given up.
            yield install
        yield Step("check that every instance serves", self._check_all)
        if disabled := [unit_of(number) for number in self.disabled]:
            enable, disable = commands.enable(*disabled), commands.disable(*disabled)
            yield Step("enable the instances at boot", partial(run, enable), partial(run, disable))

    def _switches(self, deadline: Deadline) -> Iterator[Step]:
        """Yield the switch of each stale instance: those first that do not serve, whose restart costs nobody anything.

        So the last one that serves is touched last, and no one that serves before the gateway asks the others again.
        """
        left = self.stale
        while left:
            free = [number for number in left if not self._waits(number, left)] or left
            number = next((each for each in free if not self.host.serving(each)), free[0])
            left.remove(number)
            if self.host.serving(number):
                yield Step("let the gateway ask the others again", partial(self._settle, deadline))
            yield Step(
                f"switch {unit_of(number)}",
                do=partial(self._switch, number, self.after[number], deadline),
                undo=partial(self._switch_back, number),
            )

    def _waits(self, number: int, left: list[int]) -> bool:
        """Return whether an instance is to listen where one does that is to be switched too, and does not share yet."""
        mine = self.after[number].listeners
        others = (self.before[other].listeners for other in left if other != number)
        return any(mine.clash(other) and not (mine.shared and other.shared) for other in others)

    def _try_candidate(self, deadline: Deadline) -> None:
        """Start the new deployment in its sandbox, without traffic, and check its answers to the golden samples."""
        say(f"candidate: trying {self.new}")
        host, unit, started = self.host, unit_of(CANDIDATE), time.time()
        paths, run = host.paths, host.systemd.run
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        host.store.assign(CANDIDATE, self.new)
        try:
            for path, text in (
                (paths.candidate_environment, commands.candidate_environment(port)),
                (paths.candidate_unit, commands.candidate_unit(self.new.unit, paths.candidate_environment)),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            run(commands.reload_units())
            host.systemd.restart(unit, deadline)
            address = f"127.0.0.1:{port}"
            self._wait_until_it_serves(self.new, address, unit, deadline)
            self._answer_golden_samples(address)
        except Failure as failure:
            raise Failure(f"{failure}\n{host.systemd.evidence(unit, started)}") from None
        finally:
            for end in (commands.kill(unit), commands.stop(unit), commands.reset_failed(unit)):
                with contextlib.suppress(Failure):
                    run(end)
            paths.candidate_unit.unlink(missing_ok=True)
            paths.candidate_environment.unlink(missing_ok=True)
            host.store.assign(CANDIDATE, None)
            run(commands.reload_units())

    def _answer_golden_samples(self, address: str) -> None:
        manifest = json.loads((self.host.store.path(self.new) / "model" / "manifest.json").read_text())
        classification = manifest["task"] == "classification"
        for number, sample in enumerate(manifest["golden_samples"], 1):
            status, answer = self.host.machine.ask(commands.prediction(address, sample["input"]))
            is_answer = status == 200 and isinstance(answer, dict)
            if not is_answer or not is_golden(sample, answer, classification=classification, tolerance=TOLERANCE):
                raise Failure(
                    f"golden sample {number}, {sample['input']}, must be answered {sample['prediction']!r}, "
                    f"but the answer was {status or 'none'}: {answer}"
                )

    def _settle(self, deadline: Deadline) -> None:
        """Wait until the gateway asks again what was restarted; what was switched must serve all the while."""
        while self.host.machine.clock() < self._settled_at:
            for number, since in self._switched.items():
                try:
                    self._check(number)
                except Failure as failure:
                    raise Failure(f"{failure}\n{self.host.systemd.evidence(unit_of(number), since)}") from None
            deadline.wait("the instances to settle")

    def _restarted(self) -> None:
        # nginx skips a server that did not answer for fail_timeout: only then may one that serves be restarted.
        self._settled_at = self.host.machine.clock() + self.host.settings.settle

    def _switch(self, number: int, place: Place, deadline: Deadline) -> None:
        """Restart one instance in its place and wait until it serves, or stop it for good."""
        host, unit, started = self.host, unit_of(number), time.time()
        if not place.deployment:
            host.systemd.run(commands.disable_now(unit))
            host.store.assign(number, None)
            host.store.listen(number, NOWHERE)
            say(f"{unit}: stopped, there are to be {len(self.numbers)}")
        else:
            host.store.listen(number, place.listeners)
            host.store.assign(number, place.deployment)
            try:
                host.systemd.restart(unit, deadline)
                for address in place.listeners.addresses:
                    self._wait_until_it_serves(place.deployment, str(address), unit, deadline)
            except Failure as failure:
                raise Failure(f"{failure}\n{host.systemd.evidence(unit, started)}") from None
            self._switched[number] = started
            say(f"{unit}: serves {place.deployment} at {place.listeners} after {time.time() - started:.1f} s")
        self._restarted()

    def _switch_back(self, number: int) -> None:
        """Restart an instance with what it ran before, by the unit it ran by, where it listened."""
        self._restore_unit()
        run, before = self.host.systemd.run, self.before[number]
        if self.host.serving(number):
            while self.host.machine.clock() < self._settled_at:
                self.host.machine.sleep(POLL_SECONDS)
        if before.deployment:
            self._switch(number, before, Deadline(self.host.machine, RESTORE_SECONDS))
            if number in self._enabled_before - self.host.systemd.enabled:
                run(commands.enable(unit_of(number)))
            say(f"{unit_of(number)}: put back")
        else:
            run(commands.stop(unit_of(number)))
            self.host.store.assign(number, None)
            self.host.store.listen(number, NOWHERE)

    def _install_unit(self) -> None:
        """Write the unit of the deployment, and reload it and what Ansible adds to it."""
        self.host.systemd.write_units(self.new.unit, self._host_unit)
        if self.host.systemd.outdated(self.before):
            self.host.systemd.run(commands.reload_units())

    def _restore_unit(self) -> None:
        unit, host_unit = self._units_before
        if unit:
            self.host.systemd.write_units(unit, host_unit)

    def _check_all(self) -> None:
        for number, place in self.after.items():
            if place.deployment:
                self._check(number)

    def _check(self, number: int) -> None:
        for address in self.after[number].listeners.addresses:
            status, body = self.host.machine.ask(commands.readiness(str(address)))
            if status != 200 or named(body) != self.new.id:
                raise Failure(
                    f"{unit_of(number)} served, and then did not: {address}/health/ready answered "
                    f"{status or 'nothing'}: {body}"
                )

    def _wait_until_it_serves(self, deployment: Deployment, address: str, unit: str, deadline: Deadline) -> None:
        while True:
            status, body = self.host.machine.ask(commands.readiness(address))
            if status == 200:
                if named(body) == deployment.id:
                    return
                raise Failure(f"{unit} answers as {named(body) or body} and not as {deployment.id}")
            if self.host.systemd.state(unit)["ActiveState"] != "active":
                raise Failure(f"{unit} ended after it had started; the last probe of /health/ready: {status}: {body}")
            deadline.wait(f"{unit} to answer; the last probe of /health/ready: {status or 'no answer'}: {body}")
