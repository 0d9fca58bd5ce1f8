"""What a deployment runs, asks and writes on a host: plain data, and nothing here does anything.

When it happens is said in `rollout`; that it happens, in `machine`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

CANDIDATE = "candidate"
# Whom the instances run as.
USER = "iris-api"
ASK_SECONDS = 60
JOBS = "iris-deploy-job-*.service"
RECOVERY = "iris-deploy-recover.service"


@dataclass(frozen=True)
class Paths:
    """Where things are on a host; another root is for tests."""

    root: Path = Path("/")

    @property
    def home(self) -> Path:
        """Releases, models, deployments and what happened to them."""
        return self.root / "opt/iris-api"

    @property
    def settings(self) -> Path:
        """What Ansible says of this host."""
        return self.root / "etc/iris-api/deploy.json"

    @property
    def wheels(self) -> Path:
        """Where Debian's venv has the wheel of pip."""
        return self.root / "usr/share/python-wheels"

    @property
    def run(self) -> Path:
        """What is gone after a reboot: the lock, and jobs with their answers."""
        return self.root / "run/iris-deploy"

    @property
    def unit(self) -> Path:
        """The unit of all instances."""
        return self.root / "etc/systemd/system/iris-api@.service"

    @property
    def host_unit(self) -> Path:
        """What the host adds to the unit of any deployment."""
        return self.root / "etc/systemd/system/iris-api@.service.d/host.conf"

    @property
    def wants(self) -> Path:
        """Where systemd has a link for each instance that comes up at boot."""
        return self.root / "etc/systemd/system/iris-api.target.wants"

    @property
    def candidate_unit(self) -> Path:
        """The unit of the candidate, until a reboot at the longest."""
        return self.root / "run/systemd/system" / unit_of(CANDIDATE)

    @property
    def candidate_environment(self) -> Path:
        """What the candidate is told beside its deployment's own settings."""
        return self.run / "candidate.env"

    @property
    def proc(self) -> Path:
        """What the kernel says of memory and processes."""
        return self.root / "proc"


@dataclass(frozen=True)
class Command:
    """A program and its arguments; no shell reads them."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    """All of its environment; None: that of this process."""
    user: str | None = None
    """None: who runs this process."""
    timeout: float | None = None
    """Seconds."""


@dataclass(frozen=True)
class Probe:
    """A request to an instance: GET, or POST where there is a body."""

    url: str
    body: object = None


def unit_of(instance: int | str) -> str:
    """Return the name of an instance's unit."""
    return f"iris-api@{instance}.service"


def systemctl(*arguments: str) -> Command:
    """Run systemctl."""
    return Command(("systemctl", *arguments))


def reload_units() -> Command:
    """Reload the unit files."""
    return systemctl("daemon-reload")


def show(unit: str) -> Command:
    """Print what the state of a unit is, a property a line."""
    return systemctl("show", "--property=ActiveState,SubState,InvocationID,StatusText", unit)


def outdated(*units: str) -> Command:
    """Print for each unit whether its files are others than systemd has read."""
    return systemctl("show", "--property=NeedDaemonReload", "--value", *units)


def restart(unit: str) -> Command:
    """Stop a unit, which finishes what it is answering, and start it; come back at once."""
    return systemctl("restart", "--no-block", unit)


def stop(unit: str) -> Command:
    """Stop a unit, and come back when it has stopped."""
    return systemctl("stop", unit)


def kill(unit: str) -> Command:
    """Kill a unit's processes: for the candidate alone, which has no clients."""
    return systemctl("kill", "--signal=KILL", unit)


def reset_failed(unit: str) -> Command:
    """Reset the failed state of a unit."""
    return systemctl("reset-failed", unit)


def enable(*units: str) -> Command:
    """Enable units, so that they come up at boot."""
    return systemctl("enable", *units)


def enable_now(unit: str) -> Command:
    """Start a unit, now and at boot."""
    return systemctl("enable", "--now", unit)


def disable(*units: str) -> Command:
    """Disable units, so that they do not come up at boot."""
    return systemctl("disable", *units)


def disable_now(unit: str) -> Command:
    """Stop a unit, for good."""
    return systemctl("disable", "--now", unit)


def status(unit: str) -> Command:
    """Print the status of a unit as an operator would read it."""
    return systemctl("status", "--no-pager", "--lines=0", unit)


def journal(unit: str, since: float) -> Command:
    """Print the last lines of a unit's journal; `since` is in seconds since 1970."""
    return Command(
        ("journalctl", f"--unit={unit}", f"--since=@{since:.0f}", "--lines=25", "--no-pager", "--output=cat")
    )


def in_a_unit(name: str, *argv: str) -> Command:
    """Run a program as a transient unit of systemd, which goes on where whoever asked for it is cut off."""
    return Command(
        (
            "systemd-run",
            "--quiet",
            "--collect",
            "--wait",
            f"--unit={name}",
            "--property=SyslogIdentifier=iris-deploy",
            # Whatever kills it, it is finished or reverted.
            f"--property=OnFailure={RECOVERY}",
            *argv,
        )
    )


def virtual_environment(folder: Path) -> Command:
    """Make a virtual environment without pip, whose installation is a fifth of the work that a release makes."""
    return Command(("python3", "-m", "venv", "--without-pip", str(folder / "venv")))


def pip_install(folder: Path, pip: Path, requirements: Path) -> Command:
    """Install locked wheels of a release or of a model, each by its hash, from its folder alone; `pip` is pip's wheel.

    What is there already is installed once more. Nothing is compiled: see `byte_compile`.
    """
    return Command(
        (
            str(folder / "venv" / "bin" / "python3"),
            str(pip / "pip"),
            "install",
            "--no-index",
            "--no-deps",
            "--require-hashes",
            "--force-reinstall",
            "--no-compile",
            f"--find-links={folder / 'wheels'}",
            f"--requirement={requirements}",
            "--disable-pip-version-check",
            "--quiet",
        )
    )


def byte_compile(draft: Path, folder: Path) -> Command:
    """Compile what an environment has and has not compiled, to be imported from the folder that its draft becomes.

    pip would compile the tests of all packages, too: half of all.
    """
    python, names = str(draft / "venv" / "bin" / "python3"), ("-s", str(draft), "-p", str(folder))
    return Command((python, "-m", "compileall", "-qq", "-x", "/tests?/", *names, str(draft / "venv" / "lib")))


def sync(path: Path) -> Command:
    """Write to the disk what is to be there after a power cut."""
    return Command(("sync", "--file-system", str(path)))


def what_it_takes(release: Path, environment: Mapping[str, str]) -> Command:
    """Print, as a line of JSON, by which engine an instance of a release would serve, and the memory that takes.

    It reads the model's manifest, which comes from anywhere: not as root, and with no environment but its own.
    """
    return Command((str(release / "bin" / "iris-api"), "--need"), environment, USER, ASK_SECONDS)


def readiness(address: str) -> Probe:
    """Request the readiness of an instance, which names the deployment that it serves."""
    return Probe(f"http://{address}/health/ready")


def prediction(address: str, row: object) -> Probe:
    """Request a prediction."""
    return Probe(f"http://{address}/predict", row)


def host_unit(home: Path, clients: Iterable[str]) -> str:
    """Return what the host adds to the unit of any deployment: where an instance listens, and whom it talks with."""
    lines = [
        "# iris-deploy: what is the host's. It is read after the unit, of whichever release that is.",
        "[Service]",
        f"EnvironmentFile=-{home}/listeners/%i.env",
        "IPAddressAllow=",
        "IPAddressAllow=localhost",
        *(f"IPAddressAllow={client}" for client in clients),
    ]
    return "\n".join([*lines, ""])


def candidate_unit(unit: str, environment: Path) -> str:
    """Return the unit of the candidate: that of the deployment, in the same sandbox, but tried only once."""
    return f"{unit.replace('%i', CANDIDATE)}\n[Service]\nRestart=no\nEnvironmentFile={environment}\n"


def candidate_environment(port: int) -> str:
    """Return the environment of the candidate beside its deployment's settings: a port of loopback without traffic."""
    return f"IRIS_API_INSTANCE=1\nIRIS_API_BASE_PORT={port}\nIRIS_API_BIND_ADDRESS=127.0.0.1\n"
