"""Where a rollback goes."""

from __future__ import annotations

from typing import Literal

from . import Problem
from .history import Event, History
from .store import Deployment, Store

Part = Literal["all", "app", "model"]


def find_target(store: Store, history: History, part: Part, to: str) -> Deployment:
    """Return the deployment to go back to: the one named, or else the latest good one before what runs now."""
    current = store.current
    if not current:
        raise Problem("Nothing was deployed to this host yet, so there is nothing to roll back.")
    marks = history.marks()
    good = [found for identity in history.passed() if (found := store.read(identity))]
    if not to:
        if any(has and has != current for has in map(store.of, store.instances)):
            # A deployment was cut short: back means what went through last.
            return current
        for other in (_with(current, each, part, good) for each in good):
            if _part(other, part) != _part(current, part) and not other.parts & marks.keys():
                return other
        raise Problem(
            "There is no earlier good one on this host. `make history` (here: `iris-deploy history`) shows what was."
        )
    named = {
        _part(each, part): each
        for each in good
        if any(name.startswith(to) for name in (each.id, each.release, each.model))
    }
    if not named:
        bad = next((event for name, event in marks.items() if name.startswith(to)), None)
        reason = f" It {_what_became_of(bad)}." if bad else ""
        known = ", ".join(sorted({_part(each, part) for each in good}))
        raise Problem(f"{to} is nothing that went through on this host and is still here.{reason} There are: {known}.")
    if len(named) > 1:
        raise Problem(f"{to} means more than one: {', '.join(sorted(named))}. Give more of the name.")
    target = _with(current, next(iter(named.values())), part, good)
    if bad := next((marks[name] for name in sorted(target.parts & marks.keys())), None):
        raise Problem(f"{to} {_what_became_of(bad)}. Roll back to another, or `make deploy` it anew.")
    return target


def _what_became_of(event: Event) -> str:
    what = "was rolled back from" if event.event == "rolled back" else f"was {event.event}"
    return f"{what} on {event.time}" + (f": {event.why}" if event.why else "")


def _with(current: Deployment, other: Deployment, part: Part, good: list[Deployment]) -> Deployment:
    """Return what runs now, with this part of the other.

    An application gets the bundle of the current model that it served: one that was packed since may have a format that
    it can't read.
    """
    match part:
        case "model":
            return Deployment(current.release, other.model, current.environment, current.unit)
        case "app":
            served = (each.model for each in good if each.app == other.app and _same_model(each.model, current.model))
            return Deployment(other.release, next(served, current.model), other.environment, other.unit)
        case _:
            return other


def _same_model(one: str, other: str) -> bool:
    """Return whether two bundles are of one model by name and version, which stand before the digest."""
    return one == other or ("-" in one and one.rpartition("-")[0] == other.rpartition("-")[0])


def _part(deployment: Deployment, part: Part) -> str:
    return {"model": deployment.model, "app": deployment.app, "all": deployment.id}[part]
