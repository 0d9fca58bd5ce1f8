"""The command line."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from . import Failure, Problem, memory
from .history import Event, History, now, what_differs
from .rollout import Rollout, address_of, unit_of
from .store import HOME, Deployment, Store
from .target import Part, find_target
from .units import running, state

SETTINGS = Path("/etc/iris-api/deploy.json")
RUN = Path("/run/iris-deploy")
LOCK = RUN / "lock"
# In the table; the file has all of it.
WIDEST_REASON = 100


@dataclass(frozen=True)
class Settings:
    """What Ansible says of this host."""

    instances: int
    keep: int
    """How many deployments that went through stay on the disk."""
    timeout: float
    """Seconds that a deployment may take."""
    settle: float
    """Seconds between two instances."""
    check_memory: bool
    """Whether a deployment that needs more memory than there is is refused."""


@dataclass(frozen=True)
class Request:
    """Something to roll out: a deployment that is given, or one to be found in the history."""

    kind: Literal["deploy", "rollback"]
    who: str
    deployment: dict[str, str] | None = None
    part: Part = "all"
    to: str = ""


class Host:
    """This host: its settings, its deployments, and who may change them now."""

    def __init__(self) -> None:
        """Read the settings."""
        try:
            self.settings = Settings(**json.loads(SETTINGS.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise Problem(f"{SETTINGS} can't be read ({error}): run the playbook site.yml for this host.") from None
        self.store = Store()
        self.history = History(HOME)
        self.hold_file = HOME / "hold.json"

    def rollout(self, deployment: Deployment) -> Rollout:
        """Return what brings a deployment to the instances of this host."""
        values = self.settings
        return Rollout(
            self.store,
            deployment,
            values.instances,
            timeout=values.timeout,
            settle=values.settle,
            say=lambda text: print(text, flush=True),
        )

    def wanted(self, request: Request) -> Deployment:
        """Return the deployment that a request means."""
        if request.deployment:
            deployment = Deployment(**request.deployment)
            self.store.require(deployment)
            return deployment
        return find_target(self.store, self.history, request.part, request.to)

    def require_memory(self, new: Deployment) -> str:
        """Refuse a new deployment for which there is not memory enough, before anything is touched.

        Return why that could not be judged, or nothing.
        """
        if not self.settings.check_memory or new == self.store.current:
            return ""
        try:
            need = memory.ask_need(self.store, new)
        except memory.UnknownError as unknown:
            return f"Whether there is memory enough was not checked: {unknown}"
        memory.require(need, new, self.settings.instances, memory.Available.here())
        return ""

    def require_no_hold(self) -> None:
        """Refuse where somebody keeps deployments off."""
        if self.hold_file.exists():
            hold = json.loads(self.hold_file.read_text())
            raise Problem(
                f"Deployments are held since {hold['time']} by {hold['who']}: {hold['why']}. "
                "`make unlock` (here: `iris-deploy unlock`) lifts that."
            )

    @contextlib.contextmanager
    def locked(self, request: Request) -> Iterator[None]:
        """Keep others off while this one works; wait for another for as long as it may take."""
        RUN.mkdir(exist_ok=True)
        with LOCK.open("a+") as lock:
            end = time.monotonic() + 2 * self.settings.timeout
            while True:
                self.require_no_hold()
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise Problem(
                            f"{LOCK.read_text().strip()} and does not end: `systemctl list-units 'iris-deploy*'`."
                        ) from None
                time.sleep(0.2)
            lock.truncate(0)
            lock.write(f"A {request.kind} by {request.who} runs since {now()}\n")
            lock.flush()
            try:
                yield
            finally:
                lock.truncate(0)


def perform(host: Host, request: Request) -> dict[str, Any]:
    """Carry a request out, under the lock; return what came of it."""
    with host.locked(request):
        new, old = host.wanted(request), host.store.current
        rollout = host.rollout(new)
        if not rollout.needed:
            return {"changed": False, "message": f"{new} runs already."}
        warning = host.require_memory(new) if request.kind == "deploy" else ""
        if warning:
            print(warning, flush=True)
        started = time.monotonic()
        host.history.append(Event.about("begun", request.who, new, old, why=request.kind))
        try:
            rollout.run()
        except Exception as error:
            seconds = round(time.monotonic() - started, 1)
            blamed = what_differs(new, old) if new != old else ""
            reason = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
            host.history.append(
                Event.about(
                    "aborted", request.who, new, old, seconds=seconds, blamed=blamed, why=reason.splitlines()[0]
                )
            )
            what_now = f"The instances run what they ran before: {old}." if old else "There was nothing before it."
            return {"changed": False, "failed": True, "message": f"Aborted after {seconds} s: {reason}\n{what_now}"}
        seconds = round(time.monotonic() - started, 1)
        event, blamed = (
            ("rolled back", what_differs(old, new)) if request.kind == "rollback" and old else ("deployed", "")
        )
        host.history.append(Event.about(event, request.who, new, old, seconds=seconds, blamed=blamed))
        host.store.make_current(new)
        removed = host.store.prune(host.history.passed()[: host.settings.keep])
        if removed:
            print(f"removed: {', '.join(removed)}", flush=True)
        done = f"{event[0].upper()}{event[1:]} {new} in {seconds} s."
        return {"changed": True, "message": f"{done} {warning}".strip(), "warning": warning}


def submit(host: Host, request: Request) -> dict[str, Any]:
    """Let systemd carry a request out: it ends in order also where whoever asked for it is cut off."""
    RUN.mkdir(exist_ok=True)
    ticket = RUN / f"{uuid.uuid4().hex}.json"
    ticket.write_text(json.dumps(asdict(request)))
    unit = f"iris-deploy-{ticket.stem}"
    command = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--wait",
        f"--unit={unit}",
        "--property=SyslogIdentifier=iris-deploy",
    ]
    done = subprocess.run([*command, sys.argv[0], "perform", str(ticket)], capture_output=True, text=True, check=False)
    answer = ticket.with_suffix(".answer")
    try:
        result: dict[str, Any] = json.loads(answer.read_text())
    except OSError:
        return {
            "changed": False,
            "failed": True,
            "message": f"It ended without an answer: {done.stderr.strip()}. See `journalctl --unit={unit}`.",
        }
    answer.unlink()
    return result


def answer_ticket(host: Host, ticket: Path) -> None:
    """Carry out what a ticket asks for and lay the answer beside it."""
    request = Request(**json.loads(ticket.read_text()))
    ticket.unlink()
    try:
        result = perform(host, request)
    except Problem as problem:
        result = {"changed": False, "failed": True, "message": str(problem)}
    print(result["message"], flush=True)
    draft = ticket.with_suffix(".draft")
    draft.write_text(json.dumps(result))
    draft.rename(ticket.with_suffix(".answer"))


def deploy(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    """Roll out what standard input describes."""
    request = Request("deploy", options.who, json.loads(sys.stdin.read()))
    # Check mode has not put the release there.
    new = Deployment(**request.deployment or {}) if options.dry_run else host.wanted(request)
    if not host.rollout(new).needed:
        return {"changed": False, "message": f"{new} runs already."}
    marks = host.history.marks()
    left = next((marks[part] for part in sorted(new.parts & marks.keys()) if marks[part].event == "rolled back"), None)
    if left and not options.again:
        return {
            "changed": False,
            "held": True,
            "message": f"{new} was not deployed: on {left.time} {left.who} rolled back from {left.blamed}. "
            "Name another model or application, or say that you mean it: `make deploy`.",
        }
    host.require_no_hold()
    if options.dry_run:
        if host.store.has(new):
            host.require_memory(new)
        return {"changed": True, "message": f"{new} would be deployed."}
    return submit(host, request)


def rollback(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    """Roll back to what went through before, or to what is named."""
    host.require_no_hold()
    request = Request("rollback", options.who, part=options.part, to=options.to)
    new = host.wanted(request)
    return {"changed": True, "message": f"{new} would be rolled back to."} if options.dry_run else submit(host, request)


def hold(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    """Keep deployments off until `unlock`."""
    host.require_no_hold()
    event = Event("held", options.who, now(), why=options.why)
    host.hold_file.write_text(json.dumps(asdict(event)))
    host.history.append(event)
    return {"changed": True, "message": "No deployment and no rollback starts until `make unlock`."}


def unlock(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    """Let deployments happen again."""
    if not host.hold_file.exists():
        running_one = LOCK.read_text().strip() if LOCK.exists() else ""
        more = f" {running_one}: it ends by itself." if running_one else ""
        return {"changed": False, "message": f"Nobody holds deployments off.{more}"}
    host.hold_file.unlink()
    host.history.append(Event("unlocked", options.who))
    return {"changed": True, "message": "Deployments may happen again."}


def status(host: Host, _: argparse.Namespace) -> dict[str, Any]:
    """Say what each instance runs."""
    lines = [f"current: {host.store.current or 'nothing was deployed yet'}"]
    for number in range(1, host.settings.instances + 1):
        has = host.store.of(number)
        serves = running(address_of(has, number)) if has else ""
        what = "serves" if has and serves == has.id else f"{state(unit_of(number))['ActiveState']}, is to serve"
        lines.append(f"iris-api@{number}: {what} {has or 'nothing'}")
    if host.hold_file.exists():
        lines.append(f"held: {json.loads(host.hold_file.read_text())['why']}")
    if LOCK.exists() and (who := LOCK.read_text().strip()):
        lines.append(who)
    return {"changed": False, "message": "\n".join(lines)}


def history(host: Host, options: argparse.Namespace) -> dict[str, Any]:
    """Show what happened here."""
    events = host.history.read()
    ended = {id(event) for event in events if event.event != "begun"}
    rows = [("TIME", "EVENT", "MODEL", "RELEASE", "DEPLOYMENT", "SECONDS", "WHO", "WHY")]
    for event, following in zip(events, [*events[1:], None], strict=True):
        if event.event == "begun" and following and following.deployment == event.deployment and id(following) in ended:
            continue
        what = "begun, no end" if event.event == "begun" else event.event
        seconds = f"{event.seconds:.1f}" if event.seconds else ""
        why = event.why if len(event.why) <= WIDEST_REASON else f"{event.why[:WIDEST_REASON]}..."
        rows.append((event.time, what, event.model, event.release, event.deployment, seconds, event.who, why))
    rows[1:] = rows[1:][-options.lines :]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return {"changed": False, "message": "\n".join(lines)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iris-deploy", description="Deployments of the Iris API on this host.")
    parser.add_argument("--json", action="store_true", help="answer by one line of JSON")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    me = f"{os.environ.get('SUDO_USER') or os.environ.get('USER') or 'root'}@{os.uname().nodename}"

    def command(function: Any, name: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=function.__doc__.splitlines()[0])
        added.set_defaults(function=function)
        return added

    for name, function in (("deploy", deploy), ("rollback", rollback), ("hold", hold), ("unlock", unlock)):
        added = command(function, name)
        added.add_argument("--who", default=me, help="who is written down; default: %(default)s")
        if name in ("deploy", "rollback"):
            added.add_argument("--dry-run", action="store_true", help="only say what would happen")
        if name == "deploy":
            added.add_argument("--again", action="store_true", help="also what was rolled back from")
        if name == "rollback":
            added.add_argument(
                "--part", choices=["all", "app", "model"], default="all", help="what is rolled back; default: all"
            )
            added.add_argument(
                "--to", default="", help="a deployment, release or model of the history; default: the one before"
            )
        if name == "hold":
            added.add_argument("why", help="shown to whoever wants to deploy")
    command(status, "status")
    command(history, "history").add_argument(
        "--lines", type=int, default=30, help="how many events; default: %(default)s"
    )
    commands.add_parser("perform").add_argument("ticket", type=Path)
    return parser


def main() -> int:
    """Do as the command line says."""
    options = _parser().parse_args()
    if os.geteuid() != 0:
        print("iris-deploy: root is needed: sudo iris-deploy ...", file=sys.stderr)
        return 1
    try:
        host = Host()
        if options.command == "perform":
            answer_ticket(host, options.ticket)
            return 0
        result = options.function(host, options)
    except (Problem, Failure) as problem:
        result = {"changed": False, "failed": True, "message": str(problem)}
    print(json.dumps(result) if options.json else result["message"])
    return 1 if result.get("failed") else 0
