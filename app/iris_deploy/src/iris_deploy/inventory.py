"""What the inventory wants of a host, and what of that changed since it was applied last.

As `kubectl apply` does, three are compared: what was applied last, what is wanted now, and what runs. A converge acts
on the parts in which the first two differ. What somebody deployed or rolled back to by hand stays in all others.
"""

from __future__ import annotations

import json

from .addresses import settings
from .store import COMPLETE, Deployment, Store

RELEASE = "IRIS_API_RELEASE"


def merge(store: Store, wanted: Deployment) -> Deployment:
    """Return what runs, with the parts of it that the inventory changed since it was applied last."""
    applied, current = store.last_applied, store.current
    if not applied or not current:
        return wanted

    def part(name: str) -> str:
        changed = getattr(wanted, name) != getattr(applied, name)
        return str(getattr(wanted if changed else current, name))

    release = part("release")
    before, now, runs = (settings(each.environment) for each in (applied, wanted, current))
    known = _known(store, release) | {
        *(now if release == wanted.release else runs if release == current.release else ())
    }
    merged = {
        name: value
        for name in known & {*now, *runs}
        if (value := (now if now.get(name) != before.get(name) else runs).get(name)) is not None
    }
    if RELEASE in merged:
        merged[RELEASE] = release
    same = next((each.environment for each in (current, wanted) if settings(each.environment) == merged), None)
    environment = same or "".join(f"{name}={value}\n" for name, value in sorted(merged.items()))
    return Deployment(release, part("model"), environment, part("unit"))


def _known(store: Store, release: str) -> set[str]:
    """Return the variables that a release knows, where it says so: it does not start with one that it doesn't know."""
    try:
        about = json.loads((store.home / "releases" / release / COMPLETE).read_text())
        return {f"IRIS_API_{name.upper()}" for name in about["settings"]}
    except (OSError, ValueError, LookupError, TypeError):
        return set()
