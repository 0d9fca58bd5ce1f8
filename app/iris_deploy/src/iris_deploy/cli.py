"""The command line."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import Failure, Problem, archive, artifacts, jobs
from .commands import unit_of
from .history import PASSED
from .host import Host
from .inventory import merge
from .jobs import Job, Result
from .rollout import Rollout
from .store import Deployment

# In the table; the file has all of it.
WIDEST_REASON = 100


def deploy(host: Host, options: argparse.Namespace) -> Result:
    """Roll out what standard input describes; with --converge only what the inventory changed of it."""
    inventory = options.inventory or options.converge
    try:
        wanted = Deployment(**json.loads(sys.stdin.read()))
    except (ValueError, TypeError) as error:
        raise Problem(f"Standard input describes no deployment ({error}). Deploy from the control node.") from None
    job = Job("deploy", options.who, asdict(wanted), options.converge, inventory)
    # Check mode has not put the release there.
    if not options.dry_run:
        host.store.require(wanted)
    new, current, held = merge(host.store, wanted) if job.converge else wanted, host.store.current, ""
    if not options.dry_run:
        host.store.require(new)
    left = None if options.again else host.history.rolled_back_from(new)
    if left and current and current != new:
        held = (
            f"{new} was not deployed: on {left.time} {left.who} rolled back from {left.blamed}. "
            "Name another model or application, or say that you mean it: `make deploy`."
        )
        # What runs is repaired all the same.
        job, new = Job("deploy", options.who, asdict(current)), current
    result = _deploy(host, job, new, dry_run=options.dry_run)
    if held and not result.get("failed"):
        result |= {"held": True, "message": held}
    notes = {"expanded": host.expanded, "differs": _difference(host, wanted) if options.converge else ""}
    return result | {name: note for name, note in notes.items() if note}


def _deploy(host: Host, job: Job, new: Deployment, *, dry_run: bool) -> Result:
    if not Rollout(host, new).needed:
        if not dry_run:
            jobs.applied(host, job)
        return {"changed": False, "message": f"{new} runs already."}
    host.hold.require_none()
    if dry_run:
        if host.store.has(new):
            jobs.require_memory(host, new)
        return {"changed": True, "message": f"{new} would be deployed."}
    return jobs.submit(host, job)


def _difference(host: Host, wanted: Deployment) -> str:
    """Say in what the host differs from the inventory, and since when; nothing where it does not."""
    current = host.store.current
    if not current or current == wanted:
        return ""
    passed = (event for event in reversed(host.history.read()) if event.event in PASSED)
    last = next((event for event in passed if event.deployment == current.id), None)
    since = (
        f", which {last.who} {'deployed' if last.event == 'deployed' else 'rolled back to'} on {last.time}"
        if last
        else ""
    )
    names = [
        what
        for what, one, other in (
            ("model", current.model, wanted.model),
            ("application", current.release, wanted.release),
            ("settings", (current.environment, current.unit), (wanted.environment, wanted.unit)),
        )
        if one != other
    ]
    return (
        f"Host and inventory differ in {' and '.join(names)}: the inventory says {wanted}, but this host runs "
        f"{current}{since}. It stays until the inventory changes in that; `make deploy` brings what the inventory says."
    )


def present(host: Host, options: argparse.Namespace) -> Result:
    """Check which of a release, a model and its environment are on this host, whole."""
    given: tuple[tuple[artifacts.Kind, str], ...] = (
        ("releases", options.release),
        ("models", options.model),
        ("environments", options.environment),
    )
    wrong = {kind: why for kind, name in given if name and (why := artifacts.damaged(host, kind, name))}
    return {"changed": False, "missing": list(wrong), "message": "; ".join(wrong.values()) or "All are here."}


def install(host: Host, options: argparse.Namespace) -> Result:
    """Make a release, a model or an environment of an archive, unless it is there."""
    made = artifacts.install(host, options.kind, options.name, options.archive)
    return {"changed": made, "message": f"{options.name} {'was made' if made else 'is there already'}."}


def backup(host: Host, options: argparse.Namespace) -> Result:
    """Write what is deployed, and the history, as an archive."""
    if options.dry_run:
        return {"changed": True, "bytes": archive.size(host), "message": "It would be written."}
    kept = archive.write(host, options.archive)
    return {"changed": True, "message": f"{options.archive} has {kept['deployments']} deployments."} | kept


def restore(host: Host, options: argparse.Namespace) -> Result:
    """Put what such an archive has on a host on which nothing was deployed yet."""
    made = archive.restore(host, options.archive)
    return {"changed": made, "message": f"{host.store.current} {'was put here' if made else 'is here already'}."}


def contract(host: Host, options: argparse.Namespace) -> Result:
    """Listen no more where gateways asked before, and stop instances beyond the number."""
    if not host.expanded:
        return {"changed": False, "message": "The instances are where they are to be."}
    host.hold.require_none()
    if options.dry_run:
        return {"changed": True, "message": f"Would end: {host.expanded}."}
    return jobs.submit(host, Job("contract", options.who))


def rollback(host: Host, options: argparse.Namespace) -> Result:
    """Roll back to what went through before, or to what is named."""
    host.hold.require_none()
    job = Job("rollback", options.who, part=options.part, to=options.to)
    new = job.target(host)
    if options.dry_run:
        return {"changed": True, "message": f"{new} would be rolled back to."}
    return jobs.submit(host, job)


def hold(host: Host, options: argparse.Namespace) -> Result:
    """Lock deployments and rollbacks until `unlock`."""
    host.hold.acquire(options.who, options.why)
    return {"changed": True, "message": "No deployment and no rollback starts until `make unlock`."}


def unlock(host: Host, options: argparse.Namespace) -> Result:
    """Unlock deployments and rollbacks."""
    if host.hold.release(options.who):
        return {"changed": True, "message": "Deployments may happen again."}
    more = f" {host.lock.owner}: it ends by itself." if host.lock.owner else ""
    return {"changed": False, "message": f"Nobody holds deployments off.{more}"}


def status(host: Host, options: argparse.Namespace) -> Result:
    """Show what each instance runs; with --check fail unless that is the deployment that succeeded last, everywhere."""
    lines = [f"current: {host.store.current or 'nothing was deployed yet'}"]
    if (applied := host.store.last_applied) and applied != host.store.current:
        lines.append(f"inventory: {applied}")
    for number in sorted({*range(1, host.settings.instances + 1), *host.store.instances}):
        has = host.store.of(number)
        serves = host.serving(number)
        what = "serves" if has and serves == has.id else f"{_state(host, number)}, is to serve"
        lines.append(f"iris-api@{number}: {what} {has or 'nothing'}")
    if kept := host.expanded:
        lines.append(f"until the gateways know: {kept}. `make converge` tells them.")
    if held := host.hold.owner:
        lines.append(f"held: {held.why}")
    if host.lock.owner:
        lines.append(host.lock.owner)
    wrong = host.mixed if options.check else []
    if options.check and (current := host.store.current):
        names: tuple[tuple[artifacts.Kind, str], ...] = (
            ("releases", current.release),
            ("models", current.model),
            ("environments", host.store.environment_of(current)),
        )
        damages = (artifacts.damaged(host, kind, name) for kind, name in names if name)
        wrong += [f"{why}: `make converge`." for why in damages if why]
    if wrong:
        remedy = "`iris-deploy recover` finishes or reverts what was cut short, `make deploy` starts what is dead."
        return jobs.failed("\n".join([*lines, *wrong, remedy]))
    return {"changed": False, "message": "\n".join(lines)}


def recover(host: Host, options: argparse.Namespace) -> Result:
    """Finish a deployment that was cut short, or revert it; at boot a unit does."""
    return jobs.recover(host, options.who)


def history(host: Host, options: argparse.Namespace) -> Result:
    """Show what happened here."""
    events = host.history.read()
    ended = {id(event) for event in events if event.event != "begun"}
    rows = [("TIME", "EVENT", "MODEL", "RELEASE", "DEPLOYMENT", "SECONDS", "WHO", "WHY")]
    for event, following in itertools.zip_longest(events, events[1:]):
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


def _state(host: Host, number: int) -> str:
    return host.systemd.state(unit_of(number))["ActiveState"]


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(prog="iris-deploy", description="Deployments of the Iris API on this host.")
    parser.add_argument("--json", action="store_true", help="answer by one line of JSON")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    me = f"{os.environ.get('SUDO_USER') or os.environ.get('USER') or 'root'}@{os.uname().nodename}"

    def command(function: Any, name: str) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=function.__doc__.splitlines()[0])
        added.set_defaults(function=function)
        return added

    for function in (deploy, rollback, contract, recover, hold, unlock):
        name = function.__name__
        added = command(function, name)
        added.add_argument("--who", default=me, help="who is written down; default: %(default)s")
        if name in ("deploy", "rollback", "contract"):
            added.add_argument("--dry-run", action="store_true", help="only say what would happen")
        if name == "deploy":
            added.add_argument("--again", action="store_true", help="also what was rolled back from")
            added.add_argument("--inventory", action="store_true", help="it is what the inventory says: remember that")
            added.add_argument(
                "--converge", action="store_true", help="only what the inventory changed since this was run last"
            )
        if name == "rollback":
            added.add_argument(
                "--part", choices=["all", "app", "model"], default="all", help="what is rolled back; default: all"
            )
            added.add_argument(
                "--to", default="", help="a deployment, release or model of the history; default: the one before"
            )
        if name == "hold":
            added.add_argument("why", help="shown to whoever wants to deploy")
    command(status, "status").add_argument("--check", action="store_true", help="fail where instances differ")
    command(history, "history").add_argument(
        "--lines", type=int, default=30, help="how many events; default: %(default)s"
    )
    added = command(present, "present")
    added.add_argument("--release", required=True)
    added.add_argument("--model", required=True)
    added.add_argument("--environment", default="", help="where the model needs one beside the release")
    added = command(install, "install")
    added.add_argument("kind", choices=["releases", "models", "environments"])
    added.add_argument("name")
    added.add_argument("archive", type=Path, help="it is removed afterwards")
    added = command(backup, "backup")
    added.add_argument("--dry-run", action="store_true", help="only say how large it would be at most")
    added.add_argument("archive", type=Path)
    command(restore, "restore").add_argument("archive", type=Path)
    # What `jobs.submit` has systemd run.
    subparsers.add_parser("perform").add_argument("file", type=Path)
    return parser


def main() -> int:
    """Run the command line."""
    options = parser().parse_args()
    if os.geteuid() != 0:
        print("iris-deploy: root is needed: sudo iris-deploy ...", file=sys.stderr)
        return 1
    # Whatever the login's is: the instances' own user must read what is made here.
    os.umask(0o022)
    try:
        host = Host()
        if options.command == "perform":
            jobs.perform_file(host, options.file)
            return 0
        result = options.function(host, options)
    except Exception as error:
        # Whoever asked reads one answer, whatever broke. Of what nobody thought of the place is needed too.
        if not isinstance(error, Problem | Failure | OSError):
            traceback.print_exc()
        result = jobs.failed(jobs.reason_of(error))
    print(json.dumps(result) if options.json else result["message"])
    return 1 if result.get("failed") else 0
