"""Deployments and rollbacks as jobs of systemd: each ends in order, also where whoever asked for it is cut off."""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from . import Failure, Problem, commands, memory
from .commands import CANDIDATE
from .history import Event, now, what_differs
from .host import Host
from .inventory import merge
from .rollback import Part, find_target
from .rollout import Rollout
from .store import Deployment

Result = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Something to roll out: a deployment that is given, or one to be found in the history."""

    kind: Literal["deploy", "rollback", "contract"]
    who: str
    deployment: dict[str, str] | None = None
    converge: bool = False
    """Whether only that part of the deployment is meant that the inventory changed since it was applied last."""
    inventory: bool = False
    """Whether the deployment is what the inventory wants."""
    part: Part = "all"
    to: str = ""

    def target(self, host: Host) -> Deployment:
        """Return the deployment that is meant; raise Problem where it is not whole on the host."""
        if self.deployment:
            wanted = Deployment(**self.deployment)
            host.store.require(wanted)
            deployment = merge(host.store, wanted) if self.converge else wanted
        else:
            deployment = find_target(host.store, host.history, self.part, self.to)
        # Of parts that never ran together there may be no environment.
        host.store.require(deployment)
        return deployment


def submit(host: Host, job: Job) -> Result:
    """Run a job as a unit of systemd, wait for it, and return what came of it."""
    host.paths.run.mkdir(parents=True, exist_ok=True)
    file = host.paths.run / f"{uuid.uuid4().hex}.json"
    file.write_text(json.dumps(asdict(job)))
    unit = commands.JOBS.replace("*", file.stem)
    done = host.machine.run(commands.in_a_unit(unit, str(Path(sys.argv[0]).absolute()), "perform", str(file)))
    answer = file.with_suffix(".answer")
    try:
        result: Result = json.loads(answer.read_text())
    except OSError:
        return failed(f"It ended without an answer: {done.stderr.strip()}. See `journalctl --unit={unit}`.")
    answer.unlink()
    return result


def perform_file(host: Host, file: Path) -> None:
    """Carry out the job that was submitted as a file, and lay the answer beside it."""
    job = Job(**json.loads(file.read_text()))
    file.unlink()
    try:
        result = perform(host, job)
    except Problem as problem:
        result = failed(str(problem))
    print(result["message"], flush=True)
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(result))
    draft.rename(file.with_suffix(".answer"))


def perform(host: Host, job: Job) -> Result:
    """Carry out a job, under the lock; return what came of it."""
    with host.lock.acquired(f"A {job.kind} by {job.who}"):
        if job.kind == "contract":
            return _contract(host)
        new = job.target(host)
        rollout = Rollout(host, new)
        if not rollout.needed:
            applied(host, job)
            return {"changed": False, "message": f"{new} runs already."}
        warning = require_memory(host, new) if job.kind == "deploy" else ""
        if warning:
            print(warning, flush=True)
        result = _roll_out(host, job, rollout, warning)
        if not result.get("failed"):
            applied(host, job)
        return result


def _roll_out(host: Host, job: Job, rollout: Rollout, warning: str = "") -> Result:
    """Roll out, write down that it began and how it ended, and return that."""
    new, old = rollout.new, host.store.current
    started = host.machine.clock()
    host.history.append(Event.about("begun", job.who, new, old, why=job.kind))
    try:
        rollout.run()
    except Exception as error:
        seconds = round(host.machine.clock() - started, 1)
        reason, left = reason_of(error), "; ".join(_left(error))
        # Two parts that never ran together: each may go well with another one.
        pair = job.kind == "rollback" and job.part != "all"
        blamed = "" if new == old else new.id if pair else what_differs(new, old)
        why = reason.splitlines()[0]
        more: dict[str, str | float] = {"seconds": seconds, "blamed": blamed, "why": why, "left": left}
        host.history.append(Event.about("aborted", job.who, new, old, **more))
        before = f"The instances run what they ran before: {old}." if old else "There was nothing before it."
        mend = f"`sudo iris-deploy recover` brings back {old}" if old else "`make deploy` deploys anew"
        return failed(f"Aborted after {seconds} s: {reason}\n{_what_now(error, before, mend)}")
    seconds = round(host.machine.clock() - started, 1)
    # Whoever only brings back what is current blames nothing.
    back = job.kind == "rollback" and old is not None and old != new
    event, blamed = ("rolled back", what_differs(old, new)) if back and old else ("deployed", "")
    # The history first: where this is cut short between the two, the deployment is tried once more.
    host.history.append(Event.about(event, job.who, new, old, seconds=seconds, blamed=blamed))
    host.store.make_current(new)
    removed = host.store.prune(host.history.passed()[: host.settings.keep])
    if removed:
        print(f"removed: {', '.join(removed)}", flush=True)
    done = f"{event[0].upper()}{event[1:]} {new} in {seconds} s."
    return {"changed": True, "message": f"{done} {warning}".strip(), "warning": warning}


def recover(host: Host, who: str) -> Result:
    """Finish the deployment that a power cut, a reboot or a kill cut short; where that fails, go back.

    What an abort could not undo is gone back from too.
    """
    nothing: Result = {"changed": False, "message": "No deployment was cut short."}
    if not host.cut_short:
        return nothing
    with host.lock.acquired(f"A recovery by {who}"):
        if not (cut := host.cut_short):
            return nothing
        host.store.assign(CANDIDATE, None)
        # Of one that was killed; nobody needs to look at it any more.
        host.machine.run(commands.reset_failed(commands.JOBS))
        current, began = host.store.current, host.store.read(cut.deployment)
        runs = {host.store.of(number) for number in host.store.instances}
        finish = began if began in runs and cut.event != "aborted" else None
        result: Result = {
            "changed": True,
            "message": f"{cut.deployment} was cut short before any instance was touched.",
        }
        if cut.event == "begun" and not finish:
            host.history.append(replace(cut, event="aborted", who=who, time=now(), why="cut short"))
        if finish or runs != {current} or cut.left:
            kind: Literal["deploy", "rollback"] = "rollback" if "roll" in f"{cut.event} {cut.why}" else "deploy"
            for new in filter(None, (finish, current)):
                result = _roll_out(host, Job(kind, f"{who} for {cut.who}"), Rollout(host, new))
                print(result["message"], flush=True)
                if not result.get("failed"):
                    break
        return result


def applied(host: Host, job: Job) -> None:
    """Remember what the inventory wants as applied, where the job was that."""
    if job.inventory and job.deployment:
        host.store.apply(Deployment(**job.deployment))


def _contract(host: Host) -> Result:
    """Give up the addresses and the instances that gateways asked before."""
    current, ending = host.store.current, host.expanded
    if not current or not ending:
        return {"changed": False, "message": "The instances are where they are to be."}
    try:
        Rollout(host, current, contract=True).run()
    except Exception as error:
        before = f"The instances are where they were: {host.expanded}."
        what_now = _what_now(error, before, "`make converge` brings them where they are to be")
        return failed(f"Aborted: {reason_of(error)}\n{what_now}")
    return {"changed": True, "message": f"Ended: {ending}."}


def require_memory(host: Host, new: Deployment) -> str:
    """Raise Problem where there is not memory enough for a new deployment, before anything is touched.

    Return why that could not be judged, or nothing.
    """
    if not host.settings.check_memory or new == host.store.current:
        return ""
    try:
        need = memory.ask_need(host.machine, host.store, new)
    except memory.UnknownError as unknown:
        return f"Whether there is memory enough was not checked: {unknown}"
    memory.require(need, new, host.settings.instances, memory.Available.here(host.paths.proc))
    return ""


def reason_of(error: Exception) -> str:
    """Say what went wrong."""
    return str(error) if isinstance(error, Problem | Failure) else f"{type(error).__name__}: {error}"


def _left(error: Exception) -> list[str]:
    """Return what could not be undone after an error, as `transaction` notes it."""
    return getattr(error, "__notes__", [])


def _what_now(error: Exception, before: str, mend: str) -> str:
    """Say that all is as before, or what is not, and how that is mended."""
    if not (left := _left(error)):
        return before
    return f"COULD NOT BE UNDONE: {'; '.join(left)}.\n`sudo iris-deploy status --check` says what runs; {mend}."


def failed(message: str) -> Result:
    """Return the result of what failed."""
    return {"changed": False, "failed": True, "message": message}
