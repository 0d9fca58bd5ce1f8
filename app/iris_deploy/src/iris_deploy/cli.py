"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from . import Failure, Problem, jobs
from .commands import unit_of
from .host import Host
from .jobs import Job, Result
from .rollout import Rollout
from .store import Deployment

# In the table; the file has all of it.
WIDEST_REASON = 100


def deploy(host: Host, options: argparse.Namespace) -> Result:
    """Roll out what standard input describes."""
    job = Job("deploy", options.who, json.loads(sys.stdin.read()))
    # Check mode has not put the release there.
    new = Deployment(**job.deployment or {}) if options.dry_run else job.target(host)
    if not Rollout(host, new).needed:
        return {"changed": False, "message": f"{new} runs already."}
    if not options.again and (left := host.history.rolled_back_from(new)):
        return {
            "changed": False,
            "held": True,
            "message": f"{new} was not deployed: on {left.time} {left.who} rolled back from {left.blamed}. "
            "Name another model or application, or say that you mean it: `make deploy`.",
        }
    host.hold.require_none()
    if options.dry_run:
        if host.store.has(new):
            jobs.require_memory(host, new)
        return {"changed": True, "message": f"{new} would be deployed."}
    return jobs.submit(host, job)


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


def status(host: Host, _: argparse.Namespace) -> Result:
    """Show what each instance runs."""
    lines = [f"current: {host.store.current or 'nothing was deployed yet'}"]
    for number in range(1, host.settings.instances + 1):
        has = host.store.of(number)
        serves = host.running(has, number) if has else ""
        what = "serves" if has and serves == has.id else f"{_state(host, number)}, is to serve"
        lines.append(f"iris-api@{number}: {what} {has or 'nothing'}")
    if held := host.hold.owner:
        lines.append(f"held: {held.why}")
    if host.lock.owner:
        lines.append(host.lock.owner)
    return {"changed": False, "message": "\n".join(lines)}


def history(host: Host, options: argparse.Namespace) -> Result:
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
    # What `jobs.submit` has systemd run.
    subparsers.add_parser("perform").add_argument("file", type=Path)
    return parser


def main() -> int:
    """Run the command line."""
    options = parser().parse_args()
    if os.geteuid() != 0:
        print("iris-deploy: root is needed: sudo iris-deploy ...", file=sys.stderr)
        return 1
    try:
        host = Host()
        if options.command == "perform":
            jobs.perform_file(host, options.file)
            return 0
        result = options.function(host, options)
    except (Problem, Failure) as problem:
        result = jobs.failed(str(problem))
    print(json.dumps(result) if options.json else result["message"])
    return 1 if result.get("failed") else 0
