"""A host in a folder: its files are real; systemd, the instances and the clock are played, and fail as a test says."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from iris_deploy import cli, jobs
from iris_deploy.addresses import NOWHERE, Address, Listeners
from iris_deploy.commands import Command, Paths, Probe
from iris_deploy.host import Host
from iris_deploy.machine import Machine
from iris_deploy.store import Deployment
from iris_deploy.systemd import Systemd

SAMPLES = [
    {"input": {"x": 1.0}, "prediction": 0, "probabilities": [0.9, 0.1]},
    {"input": {"x": 2.0}, "prediction": 1, "probabilities": [0.2, 0.8]},
]


def unit_text(**settings: str) -> str:
    """Return an instance's unit, with settings that tell it from another."""
    more = "".join(f"{name}={value}\n" for name, value in settings.items())
    return f"[Service]\nEnvironmentFile=/opt/iris-api/instances/%i/iris-api.env\n{more}"


@dataclass
class Unit:
    """What systemd knows of a unit."""

    active: str = "inactive"
    sub: str = "dead"
    invocation: int = 0
    status: str = ""
    deployment: str = ""
    """What its link led to when it started."""
    text: str = ""
    """The unit that it was started by."""
    died_at: float = float("inf")
    listeners: Listeners = NOWHERE
    """Where it listened when it started."""


class Played(Machine):
    """Systemd, the instances, the clock. A deployment fails as a word in the name of its release or model says."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.units: dict[str, Unit] = {}
        self.commands: list[Command] = []
        self.time = 1000.0
        self.starts: list[tuple[str, float]] = []
        """Which instance was started when."""
        self.takes: dict[str, float] | None = None
        """Megabytes that an instance takes by each engine, as the application says; None: it can't tell."""
        self.pip_fails = False
        self.outdated = False
        """Whether systemd has not read what lies on the disk."""
        self.when: dict[tuple[str, ...], Callable[[], object]] = {}
        """Something to happen where a command with these last words is run."""

    # What a Machine does.

    def run(self, command: Command) -> CompletedProcess[str]:
        self.commands.append(command)
        for words, happens in list(self.when.items()):
            if command.argv[-len(words) :] == words:
                happens()
        match command.argv:
            case ("systemctl", *arguments):
                return self.systemctl(*arguments)
            case ("journalctl", unit, *_):
                return self.done(f"the journal of {unit}")
            case ("systemd-run", *_, _, "perform", file):
                jobs.perform_file(Host(self, self.paths), Path(file))
                return self.done()
            case ("python3", "-m", "venv", "--without-pip", folder):
                (Path(folder) / "bin").mkdir(parents=True)
                (Path(folder) / "lib" / "python3.13" / "site-packages").mkdir(parents=True)
                (Path(folder) / "bin" / "python3").symlink_to("/usr/bin/python3")
                (Path(folder) / "pyvenv.cfg").write_text(f"command = python3 -m venv {folder}\n")
                return self.done()
            case (python, pip, "install", *options):
                assert Path(pip) == self.paths.wheels / "pip-25.1.whl" / "pip"
                if self.pip_fails:
                    return self.done(code=1)
                self.pip(Path(python).parents[1], Path(options[-3].removeprefix("--requirement=")))
                return self.done()
            case (_, "-m", "compileall", *_, folder):
                assert Path(folder).is_dir()
                return self.done(code=1)
            case ("sync", "--file-system", path):
                assert Path(path).is_dir()
                return self.done()
            case (_, "--need"):
                if self.takes is None:
                    raise FileNotFoundError("no such application")
                engine = min(self.takes, key=lambda name: self.takes[name] if self.takes else 0)
                return self.done(json.dumps({"engine": engine, "by_engine": self.takes}))
        raise AssertionError(f"nobody runs that: {command.argv}")

    def ask(self, probe: Probe) -> tuple[int, Any]:
        address, _, path = probe.url.removeprefix("http://").partition("/")
        asked = Address.parse(address)
        if asked.is_own and asked.host not in Systemd(self, self.paths).clients:
            return 0, "timed out"
        there = [unit for unit in self.units.values() if asked in unit.listeners.addresses]
        # Where several share an address, those that live have it.
        unit = next((unit for unit in there if unit.active == "active"), there[0] if there else Unit())
        if unit.active == "active" and self.time >= unit.died_at:
            unit.active, unit.sub = "activating", "auto-restart"
        if unit.active != "active":
            return 0, "connection refused"
        if not unit.deployment:
            return 404, "somebody else's"
        found = self.stored(unit.deployment)
        behaviour = f"{found.release} {found.model}"
        if "hangs" in behaviour:
            return 0, "timed out"
        if "breaks" in behaviour:
            return 500, "Internal Server Error"
        if path == "health/ready":
            assert probe.body is None
            if "lists" in behaviour:
                return 200, []
            if "another" in behaviour:
                return 200, {"deployment": "another"}
            return 200, {"deployment": unit.deployment}
        assert path == "predict"
        if "enumerates" in behaviour:
            return 200, []
        if "refuses" in behaviour:
            return 503, "overloaded"
        manifest = json.loads((self.paths.home / "models" / found.model / "manifest.json").read_text())
        sample = next(each for each in manifest["golden_samples"] if each["input"] == probe.body)
        answer = {"prediction": sample["prediction"], "prediction_proba": sample["probabilities"]}
        if "rounds" in behaviour:
            answer["prediction"] += 1e-9
        return 200, answer | ({"prediction": 7} if "wrong" in behaviour else {})

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    # How.

    def pip(self, environment: Path, requirements: Path) -> None:
        """Install what a file names, and of a release its program."""
        (packages,) = environment.glob("lib/*/site-packages")
        if (environment.parent / "environment.json").exists():
            # What the release has must not be seen by pip, which would take it for what it is to replace.
            assert not list(packages.iterdir())
            (packages / "more.py").touch()
            return
        for line in requirements.read_text().splitlines() if requirements.exists() else []:
            (packages / f"{line.partition('==')[0]}.py").write_text(line)
        program = environment / "bin" / "iris-api"
        program.write_text(f"#!{program.with_name('python3')}\n")
        program.chmod(0o700)

    def done(self, output: str = "", code: int = 0) -> CompletedProcess[str]:
        return CompletedProcess([], code, output, "" if code == 0 else "as the test wants it")

    def told(self, instance: str, deployment: Deployment) -> Listeners:
        """Return where an instance is told to listen."""
        own = self.paths.home / "listeners" / f"{instance}.env"
        if instance == "candidate":
            told, instance = self.paths.candidate_environment.read_text(), "1"
        else:
            told = own.read_text() if own.exists() else deployment.environment
        return Listeners.read(int(instance), told)

    def stored(self, identity: str) -> Deployment:
        return Deployment(**json.loads((self.paths.home / "deployments" / identity / "deployment.json").read_text()))

    def systemctl(self, *arguments: str) -> CompletedProcess[str]:
        match arguments:
            case ("daemon-reload",):
                self.outdated = False
            case ("reset-failed", _) | ("kill", "--signal=KILL", _):
                pass
            case ("show", "--property=ActiveState,SubState,InvocationID,StatusText", name):
                unit = self.units.setdefault(name, Unit())
                return self.done(
                    f"ActiveState={unit.active}\nSubState={unit.sub}\nInvocationID={unit.invocation}\n"
                    f"StatusText={unit.status}\n"
                )
            case ("show", "--property=NeedDaemonReload", "--value", *names):
                return self.done("\n".join("yes" if self.outdated else "no" for _ in names))
            case ("status", "--no-pager", "--lines=0", name):
                return self.done(f"the status of {name}", 3)
            case ("restart", "--no-block", name):
                self.start(name)
            case ("stop", name):
                self.units[name] = Unit()
            case ("enable", "--now", name):
                self.enable(name)
                self.start(name)
            case ("enable", *names):
                for name in names:
                    self.enable(name)
            case ("disable", "--now", name):
                self.link(name).unlink(missing_ok=True)
                self.units[name] = Unit()
            case ("disable", *names):
                for name in names:
                    self.link(name).unlink()
            case _:
                raise AssertionError(f"systemctl has no {arguments}")
        return self.done()

    def enable(self, name: str) -> None:
        self.link(name).unlink(missing_ok=True)
        self.link(name).symlink_to(self.paths.unit)

    def link(self, name: str) -> Path:
        self.paths.wants.mkdir(parents=True, exist_ok=True)
        return self.paths.wants / name

    def start(self, name: str) -> None:
        instance = name.removeprefix("iris-api@").removesuffix(".service")
        self.starts.append((instance, self.time))
        deployment = self.stored((self.paths.home / "instances" / instance).readlink().name)
        text = (self.paths.candidate_unit if instance == "candidate" else self.paths.unit).read_text()
        behaviour = f"{deployment.release} {deployment.model}"
        before = self.units.pop(name, Unit())
        unit = Unit("active", "running", before.invocation + 1, "", deployment.id, text)
        unit.listeners = self.told(instance, deployment)
        others = (other.listeners for other in self.units.values() if other.active == "active")
        if any(unit.listeners.clash(other) and not (unit.listeners.shared and other.shared) for other in others):
            unit.active, unit.sub, unit.status = "activating", "auto-restart", "Address already in use"
        nth = {"2": "second", "3": "third"}.get(instance, "dead")
        if "dead" in behaviour or nth in behaviour:
            unit.active, unit.sub, unit.status = "activating", "auto-restart", "Model refused"
        if "dies" in behaviour:
            unit.died_at = self.time + 1
        self.units[name] = unit


class Site:
    """A host of the group api, and what happens to it."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.machine = Played(self.paths)
        self.paths.unit.parent.mkdir(parents=True)
        self.paths.home.mkdir(parents=True)
        self.paths.proc.mkdir()
        (self.paths.wheels / "pip-25.1.whl").mkdir(parents=True)
        self.memory(total=8000, free=4000)
        self.settings()

    @property
    def host(self) -> Host:
        """The host as a process finds it that has just started."""
        return Host(self.machine, self.paths)

    def settings(self, **changes: object) -> None:
        """Write what Ansible says of the host."""
        values = {"instances": 3, "keep": 5, "timeout": 60, "settle": 2, "check_memory": True} | changes
        self.paths.settings.parent.mkdir(parents=True, exist_ok=True)
        self.paths.settings.write_text(json.dumps(values))

    def memory(self, total: int, free: int) -> None:
        """Give the host so many megabytes, and so many of them free."""
        lines = f"MemTotal: {total * 10**6 // 1024} kB\nMemAvailable: {free * 10**6 // 1024} kB\n"
        (self.paths.proc / "meminfo").write_text(lines)

    def deployment(self, release: str = "r1", model: str = "m1", **settings: str) -> Deployment:
        """Put a release and a classifier on the host, as Ansible does; return the deployment of both."""
        for kind, name in (("releases", release), ("models", model)):
            (self.paths.home / kind / name).mkdir(parents=True, exist_ok=True)
            (self.paths.home / kind / name / ".complete").touch()
        self.manifest(model, "classification", SAMPLES)
        return Deployment(release, model, "IRIS_API_LOG_LEVEL=info\n", unit_text(**settings))

    def manifest(self, model: str, task: str, samples: list[dict[str, Any]]) -> None:
        """Let a model that is on the host promise other answers."""
        manifest = {"task": task, "golden_samples": samples}
        (self.paths.home / "models" / model / "manifest.json").write_text(json.dumps(manifest))

    def call(self, *arguments: str, deployment: Deployment | None = None) -> dict[str, Any]:
        """Do as a command line says, with a deployment as its input."""
        options: argparse.Namespace = cli.parser().parse_args([*arguments])
        stdin, sys.stdin = sys.stdin, io.StringIO(json.dumps(asdict(deployment)) if deployment else "")
        try:
            result: dict[str, Any] = options.function(self.host, options)
        finally:
            sys.stdin = stdin
        return result

    def deploy(self, deployment: Deployment, *arguments: str) -> dict[str, Any]:
        """Deploy as Ansible does."""
        return self.call("deploy", "--who", "ana@laptop", *arguments, deployment=deployment)

    def deployed(self, release: str = "r1", model: str = "m1", **settings: str) -> Deployment:
        """Deploy what must go through, and forget how."""
        new = self.deployment(release, model, **settings)
        assert self.deploy(new, "--again")["changed"]
        self.machine.starts.clear()
        self.machine.commands.clear()
        return new

    @property
    def started(self) -> list[str]:
        """The instances that were started, in turn; the candidate too."""
        return [instance for instance, _ in self.machine.starts]

    @property
    def serving(self) -> dict[int, tuple[str, str]]:
        """What each instance is and which deployment it was started with."""
        units = self.machine.units.items()
        return {int(name[9:-8]): (unit.active, unit.deployment) for name, unit in sorted(units) if name[9].isdigit()}

    def events(self) -> list[Mapping[str, Any]]:
        """Return the history."""
        return [asdict(event) for event in self.host.history.read()]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
