"""One deployment takes the place of another, an instance at a time."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import time
from collections.abc import Callable
from pathlib import Path

from . import Failure
from .store import Deployment, Store
from .units import Deadline, ask, evidence, restart, running, state, systemctl

TEMPLATE_UNIT = Path("/etc/systemd/system/iris-api@.service")
CANDIDATE = "candidate"
CANDIDATE_UNIT = Path(f"/run/systemd/system/iris-api@{CANDIDATE}.service")
CANDIDATE_ENVIRONMENT = Path("/run/iris-deploy/candidate.env")
# Loose enough for any engine: what computed it and how exactly is judged by the application itself when it starts.
TOLERANCE = 1e-4
# For an instance that is put back.
RESTORE_SECONDS = 90


def unit_of(instance: int | str) -> str:
    """Return the name of an instance's unit."""
    return f"iris-api@{instance}.service"


def address_of(deployment: Deployment, instance: int) -> str:
    """Return where an instance of a deployment listens."""
    host = deployment.setting("IRIS_API_BIND_ADDRESS", "127.0.0.1")
    port = int(deployment.setting("IRIS_API_BASE_PORT", "8001")) + instance - 1
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Rollout:
    """Brings every instance of a host to one deployment, or puts back what each of them ran."""

    def __init__(
        self,
        store: Store,
        new: Deployment,
        instances: int,
        *,
        timeout: float,
        settle: float,
        say: Callable[[str], None],
    ) -> None:
        """Take what is to run, on how many instances, and how long all of it, and a pause, may last, in seconds."""
        self.store = store
        self.new = new
        self.before = {number: store.of(number) for number in range(1, instances + 1)}
        self.settle = settle
        self.say = say
        self._timeout = timeout
        self._touched: list[int] = []

    @property
    def stale(self) -> list[int]:
        """The instances that do not serve what they should, or would start something else the next time."""
        return [
            number
            for number, has in self.before.items()
            if has != self.new or running(address_of(self.new, number)) != self.new.id
        ]

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return _text(TEMPLATE_UNIT) != self.new.unit or bool(self.stale)

    def run(self) -> None:
        """Do it. Whatever goes wrong, everything then runs, or waits to run, what it did before."""
        deadline = Deadline(self._timeout)
        unit_before = _text(TEMPLATE_UNIT)
        self.store.write(self.new)
        try:
            if self.store.current != self.new:
                self._try_candidate(deadline)
            self._write_unit(self.new.unit)
            stale = self.stale
            for number in stale:
                self._touched.append(number)
                self._switch(number, self.new, deadline, pause=number != stale[-1])
            for number in self.before:
                self._must_serve(number, self.new)
        except Exception:
            self._put_back(unit_before)
            raise
        self.store.forget_beyond(len(self.before))

    def _try_candidate(self, deadline: Deadline) -> None:
        """Let the new deployment answer its golden samples in the sandbox it will run in, away from all traffic."""
        self.say(f"candidate: trying {self.new}")
        started = time.time()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        CANDIDATE_ENVIRONMENT.parent.mkdir(exist_ok=True)
        CANDIDATE_ENVIRONMENT.write_text(
            f"IRIS_API_INSTANCE=1\nIRIS_API_BASE_PORT={port}\nIRIS_API_BIND_ADDRESS=127.0.0.1\n"
        )
        own = f"\n[Service]\nRestart=no\nEnvironmentFile={CANDIDATE_ENVIRONMENT}\n"
        self.store.assign(CANDIDATE, self.new)
        try:
            CANDIDATE_UNIT.parent.mkdir(parents=True, exist_ok=True)
            CANDIDATE_UNIT.write_text(self.new.unit.replace("%i", CANDIDATE) + own)
            systemctl("daemon-reload")
            restart(unit_of(CANDIDATE), deadline)
            address = f"127.0.0.1:{port}"
            self._wait_until_it_serves(address, unit_of(CANDIDATE), deadline)
            self._answer_golden_samples(address)
        except Failure as failure:
            raise Failure(f"{failure}\n{evidence(unit_of(CANDIDATE), started)}") from None
        finally:
            with contextlib.suppress(Failure):
                systemctl("kill", "--signal=KILL", unit_of(CANDIDATE))
            with contextlib.suppress(Failure):
                systemctl("stop", unit_of(CANDIDATE))
            with contextlib.suppress(Failure):
                systemctl("reset-failed", unit_of(CANDIDATE))
            CANDIDATE_UNIT.unlink(missing_ok=True)
            CANDIDATE_ENVIRONMENT.unlink(missing_ok=True)
            self.store.assign(CANDIDATE, None)
            systemctl("daemon-reload")

    def _answer_golden_samples(self, address: str) -> None:
        manifest = json.loads((self.store.path(self.new) / "model" / "manifest.json").read_text())
        for number, sample in enumerate(manifest["golden_samples"], 1):
            status, answer = ask(f"http://{address}/predict", sample["input"])
            if status != 200 or not _agrees(answer, sample):
                raise Failure(
                    f"golden sample {number}, {sample['input']}, must be answered {sample['prediction']!r}, "
                    f"but the answer was {status or 'none'}: {answer}"
                )

    def _switch(self, number: int, deployment: Deployment, deadline: Deadline, *, pause: bool) -> None:
        """Let one instance run a deployment; wait until it serves, and the gateway has seen that."""
        unit, started = unit_of(number), time.time()
        served = state(unit)["ActiveState"] == "active"
        self.store.assign(number, deployment)
        try:
            restart(unit, deadline)
            self._wait_until_it_serves(address_of(deployment, number), unit, deadline, deployment)
            self.say(f"{unit}: serves {deployment} after {time.time() - started:.1f} s")
            # The gateway leaves alone for a while who did not answer; the next must not go before this one is back.
            end = time.monotonic() + (self.settle if pause and served else 0)
            while time.monotonic() < end:
                self._must_serve(number, deployment)
                deadline.wait(f"{unit} to settle")
        except Failure as failure:
            raise Failure(f"{failure}\n{evidence(unit, started)}") from None

    def _must_serve(self, number: int, deployment: Deployment) -> None:
        status, body = ask(f"http://{address_of(deployment, number)}/health/ready")
        if status != 200 or body.get("deployment") != deployment.id:
            raise Failure(
                f"{unit_of(number)} served, and then did not: /health/ready answered {status or 'nothing'}: {body}"
            )

    def _wait_until_it_serves(
        self, address: str, unit: str, deadline: Deadline, deployment: Deployment | None = None
    ) -> None:
        wanted = deployment or self.new
        while True:
            status, body = ask(f"http://{address}/health/ready")
            if status == 200:
                if body.get("deployment") == wanted.id:
                    return
                raise Failure(f"{unit} answers as {body.get('deployment')} and not as {wanted.id}")
            if state(unit)["ActiveState"] != "active":
                raise Failure(f"{unit} ended after it had started; the last probe of /health/ready: {status}: {body}")
            deadline.wait(f"{unit} to answer; the last probe of /health/ready: {status or 'no answer'}: {body}")

    def _write_unit(self, text: str) -> None:
        if _text(TEMPLATE_UNIT) != text:
            draft = TEMPLATE_UNIT.with_name(f".{TEMPLATE_UNIT.name}.new")
            draft.write_text(text)
            draft.chmod(0o644)
            draft.replace(TEMPLATE_UNIT)
            systemctl("daemon-reload")

    def _put_back(self, unit_before: str) -> None:
        """Let what was touched run what it ran; one that fails here must not keep the next from coming back."""
        if unit_before:
            self._write_unit(unit_before)
        for number in reversed(self._touched):
            old = self.before[number]
            try:
                if old:
                    self._switch(number, old, Deadline(RESTORE_SECONDS), pause=number != self._touched[0])
                    self.say(f"{unit_of(number)}: put back")
                else:
                    systemctl("stop", unit_of(number))
                    self.store.assign(number, None)
            except (Failure, OSError) as failure:
                self.say(f"{unit_of(number)}: COULD NOT BE PUT BACK: {failure}")


def _agrees(answer: dict[str, object], sample: dict[str, object]) -> bool:
    def near(found: object, expected: object) -> bool:
        if isinstance(found, float) and isinstance(expected, int | float):
            return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return found == expected

    found, expected = answer.get("prediction_proba") or [], sample.get("probabilities") or []
    assert isinstance(found, list) and isinstance(expected, list)
    together = [(answer.get("prediction"), sample["prediction"]), *zip(found, expected, strict=False)]
    return len(found) == len(expected) and all(near(*pair) for pair in together)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
