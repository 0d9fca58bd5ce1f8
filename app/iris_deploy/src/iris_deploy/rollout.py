"""One deployment takes the place of another, an instance at a time."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from functools import partial

from iris_api.bundle.golden import is_golden

from . import Failure, commands
from .commands import CANDIDATE, unit_of
from .host import Host
from .store import Deployment
from .transaction import Deadline, Step, carry_out

# How far an answer may be off. Loose enough for any engine: the application itself judges more strictly when it starts.
TOLERANCE = 1e-4
# For an instance that is put back.
RESTORE_SECONDS = 90


def say(text: str) -> None:
    """Log the progress to standard output, which the journal keeps."""
    print(text, flush=True)


class Rollout:
    """Brings every instance of a host to one deployment, or puts back what each of them ran."""

    def __init__(self, host: Host, new: Deployment) -> None:
        self.host = host
        self.new = new
        self.numbers = range(1, host.settings.instances + 1)
        self.before = {number: host.store.of(number) for number in self.numbers}
        self.surplus = sorted(
            number for number in host.store.instances | host.systemd.enabled if number not in self.numbers
        )
        self._unit_before = host.systemd.unit

    @property
    def stale(self) -> list[int]:
        """Numbers of the instances that serve another deployment, or would start another one the next time."""
        return [
            number
            for number, has in self.before.items()
            if has != self.new or self.host.running(self.new, number) != self.new.id
        ]

    @property
    def disabled(self) -> list[int]:
        """Numbers of the instances that do not come up at boot."""
        return [number for number in self.numbers if number not in self.host.systemd.enabled]

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self.host.store.current != self.new
            or self.host.systemd.unit != self.new.unit
            or self.surplus
            or self.disabled
            or self.stale
        )

    def run(self) -> None:
        """Roll the deployment out; on an error put back what every instance ran before, and raise that error."""
        carry_out(self.steps(Deadline(self.host.machine, self.host.settings.timeout)), say)

    def steps(self, deadline: Deadline) -> list[Step]:
        """Return what is done in turn, each with what undoes it."""
        host, new, stale, disabled = self.host, self.new, self.stale, [unit_of(number) for number in self.disabled]
        switches = [
            Step(
                f"switch {unit_of(number)}",
                do=partial(self._switch, number, new, deadline, pause=number != stale[-1]),
                undo=partial(self._switch_back, number, pause=number != stale[0]),
            )
            for number in stale
        ]
        retirements = [
            Step(
                f"retire {unit_of(number)}",
                do=partial(self._retire, number),
                undo=partial(self._bring_back, number, host.store.of(number)),
            )
            for number in self.surplus
        ]
        run = host.systemd.run
        enabling = [
            Step(
                "enable the instances at boot",
                do=partial(run, commands.enable(*disabled)),
                undo=partial(run, commands.disable(*disabled)),
            )
        ]
        return [
            Step("store the deployment", partial(host.store.write, new)),
            *([Step("try a candidate", partial(self._try_candidate, deadline))] if host.store.current != new else []),
            Step("install the unit", partial(host.systemd.write_unit, new.unit), self._restore_unit),
            *switches,
            Step("check that every instance serves", self._check_all),
            *(enabling if disabled else []),
            *retirements,
        ]

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
            if status != 200 or not is_golden(sample, answer, classification=classification, tolerance=TOLERANCE):
                raise Failure(
                    f"golden sample {number}, {sample['input']}, must be answered {sample['prediction']!r}, "
                    f"but the answer was {status or 'none'}: {answer}"
                )

    def _switch(self, number: int, deployment: Deployment, deadline: Deadline, *, pause: bool) -> None:
        """Restart one instance with a deployment; wait until it serves, and the gateway has seen that."""
        host, unit, started = self.host, unit_of(number), time.time()
        served = host.systemd.state(unit)["ActiveState"] == "active"
        host.store.assign(number, deployment)
        try:
            host.systemd.restart(unit, deadline)
            self._wait_until_it_serves(deployment, deployment.address(number), unit, deadline)
            say(f"{unit}: serves {deployment} after {time.time() - started:.1f} s")
            # nginx skips a server that did not answer for fail_timeout: only then may the next one restart.
            end = host.machine.clock() + (host.settings.settle if pause and served else 0)
            while host.machine.clock() < end:
                self._check(number, deployment)
                deadline.wait(f"{unit} to settle")
        except Failure as failure:
            raise Failure(f"{failure}\n{host.systemd.evidence(unit, started)}") from None

    def _switch_back(self, number: int, *, pause: bool) -> None:
        """Restart an instance with what it ran before, by the unit it ran by."""
        self._restore_unit()
        if old := self.before[number]:
            self._switch(number, old, Deadline(self.host.machine, RESTORE_SECONDS), pause=pause)
            say(f"{unit_of(number)}: put back")
        else:
            self.host.systemd.run(commands.stop(unit_of(number)))
            self.host.store.assign(number, None)

    def _restore_unit(self) -> None:
        if self._unit_before:
            self.host.systemd.write_unit(self._unit_before)

    def _retire(self, number: int) -> None:
        """Stop an instance beyond those that the host is to have, for good, and forget what it ran."""
        self.host.systemd.run(commands.disable_now(unit_of(number)))
        self.host.store.assign(number, None)
        say(f"{unit_of(number)}: stopped, there are to be {len(self.numbers)}")

    def _bring_back(self, number: int, old: Deployment | None) -> None:
        if old:
            self.host.store.assign(number, old)
            self.host.systemd.run(commands.enable_now(unit_of(number)))

    def _check_all(self) -> None:
        for number in self.numbers:
            self._check(number, self.new)

    def _check(self, number: int, deployment: Deployment) -> None:
        status, body = self.host.machine.ask(commands.readiness(deployment.address(number)))
        if status != 200 or body.get("deployment") != deployment.id:
            raise Failure(
                f"{unit_of(number)} served, and then did not: /health/ready answered {status or 'nothing'}: {body}"
            )

    def _wait_until_it_serves(self, deployment: Deployment, address: str, unit: str, deadline: Deadline) -> None:
        while True:
            status, body = self.host.machine.ask(commands.readiness(address))
            if status == 200:
                if body.get("deployment") == deployment.id:
                    return
                raise Failure(f"{unit} answers as {body.get('deployment')} and not as {deployment.id}")
            if self.host.systemd.state(unit)["ActiveState"] != "active":
                raise Failure(f"{unit} ended after it had started; the last probe of /health/ready: {status}: {body}")
            deadline.wait(f"{unit} to answer; the last probe of /health/ready: {status or 'no answer'}: {body}")
