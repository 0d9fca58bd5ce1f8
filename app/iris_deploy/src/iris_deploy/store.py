"""What lies on the disk: deployments, and which instance runs which."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iris_api.bundle.environments import environment_id, needs_environment

from . import Failure, Problem, commands, files
from .addresses import NOWHERE, Listeners, settings
from .machine import Machine

ENVIRONMENT = "iris-api.env"
UNIT = "iris-api@.service"
COMPLETE = ".complete"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
# Somebody may just have put a release there and be about to deploy it.
FRESH_SECONDS = 3600


def python() -> str:
    """Return which Python releases are made for here, as in `3.13`."""
    return ".".join(platform.python_version_tuple()[:2])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Deployment:
    """An application and a model; its id follows from all that it consists of."""

    release: str
    """Name of a folder in releases/."""
    model: str
    """Name of a folder in models/."""
    environment: str
    """The settings of its instances, as systemd reads them: a variable a line."""
    unit: str
    """Text of iris-api@.service."""

    def __post_init__(self) -> None:
        """Raise Problem where a name is no folder's: it becomes part of paths that root reads and writes.

        Raise TypeError where a part is no text, as JSON from elsewhere may have it.
        """
        for part, text in vars(self).items():
            if not isinstance(text, str):
                raise TypeError(f"{part} is {text!r:.100}")
        for part, name in (("release", self.release), ("model", self.model)):
            if not NAME.fullmatch(name):
                raise Problem(f"The {part} {name!r:.100} is no name of a folder here. Deploy it from the control node.")

    @property
    def app(self) -> str:
        """Id of the application: its release and how it is run. It rolls back apart from the model."""
        return f"{self.release}+{_digest(self.environment, self.unit)[:4]}"

    @property
    def id(self) -> str:
        """Id of the whole."""
        return _digest(self.app, self.environment, self.unit, self.model)

    @property
    def parts(self) -> set[str]:
        """All ids by which it, or a part of it, can be blamed."""
        return {self.id, self.app, self.model}

    def __str__(self) -> str:
        """For messages."""
        return f"{self.model} by {self.release} ({self.id})"


class Store:
    """The folder on the host that holds it all."""

    def __init__(self, home: Path, machine: Machine) -> None:
        self.home = home
        self._machine = machine
        self._manifests: dict[str, dict[str, Any]] = {}

    def path(self, deployment: Deployment) -> Path:
        """Where a deployment lies."""
        return self.home / "deployments" / deployment.id

    def require(self, deployment: Deployment) -> None:
        """Raise Problem where the release, the model or the environment of a deployment is not here, whole."""
        self._require("releases", deployment.release)
        self._require("models", deployment.model)
        if environment := self.environment_of(deployment):
            self._require(
                "environments", environment, f" {deployment.model} needs it to be served by {deployment.release}."
            )

    def _require(self, kind: str, name: str, why: str = "") -> None:
        if not (self.home / kind / name / COMPLETE).exists():
            raise Problem(
                f"{self.home / kind / name} is not on this host, or not whole.{why} Deploy it from the control node."
            )

    def environment_of(self, deployment: Deployment) -> str:
        """Return the name of a folder in environments/, or nothing where the release has all that the model needs.

        It follows from release, model and engine, so that each pair of them finds its own.
        """
        manifest = self._manifest(deployment.model)
        engine = settings(deployment.environment).get("IRIS_API_ENGINE", "auto")
        if not manifest.get("environment"):
            return ""
        try:
            locked = (self.home / "releases" / deployment.release / "requirements.txt").read_text()
        except OSError:
            locked = ""
        found = re.search(r"^onnxruntime==(\S+)", locked, re.MULTILINE)
        try:
            if not needs_environment(manifest, engine, found[1] if found else None):
                return ""
            return environment_id(deployment.release, manifest, python())
        except (LookupError, TypeError):
            raise Problem(
                f"{deployment.model} has no environment for Python {python()}, which this host has. Pack it again."
            ) from None

    def _manifest(self, model: str) -> dict[str, Any]:
        """Return the manifest of a model, which never changes; nothing where it can't be read."""
        if model not in self._manifests:
            try:
                self._manifests[model] = dict(json.loads((self.home / "models" / model / "manifest.json").read_text()))
            except (OSError, ValueError, TypeError):
                return {}
        return self._manifests[model]

    def has(self, deployment: Deployment) -> bool:
        """Whether the release and the model of a deployment are here, whole."""
        try:
            self.require(deployment)
        except Problem:
            return False
        return True

    def write(self, deployment: Deployment) -> None:
        """Put a deployment on the disk: all of it, or nothing."""
        path = self.path(deployment)
        if not path.exists():
            draft = path.with_name(f".{path.name}.new")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            environment = self.environment_of(deployment)
            app = f"environments/{environment}" if environment else f"releases/{deployment.release}"
            (draft / "app").symlink_to(f"../../{app}")
            (draft / "model").symlink_to(f"../../models/{deployment.model}")
            (draft / ENVIRONMENT).write_text(
                f"{deployment.environment.rstrip()}\nIRIS_API_DEPLOYMENT={deployment.id}\n"
            )
            (draft / UNIT).write_text(deployment.unit)
            (draft / "deployment.json").write_text(json.dumps(asdict(deployment), indent=2) + "\n")
            draft.rename(path)
        # A power cut must not leave a link to what was never written.
        done = self._machine.run(commands.sync(path))
        if done.returncode != 0:
            raise Failure(f"{path} could not be written to the disk: {done.stderr.strip()}")

    def read(self, identity: str) -> Deployment | None:
        """Return a deployment; None where it, its release or its model is gone."""
        try:
            found = Deployment(**json.loads((self.home / "deployments" / identity / "deployment.json").read_text()))
            self.require(found)
        except (OSError, ValueError, TypeError, Problem):
            return None
        return found

    def all(self) -> list[Deployment]:
        """Return every deployment that could run."""
        found = (self.read(path.name) for path in sorted((self.home / "deployments").glob("[!.]*")))
        return [deployment for deployment in found if deployment]

    @property
    def current(self) -> Deployment | None:
        """The deployment that went through last."""
        return self._linked(self.home / "current")

    @property
    def last_applied(self) -> Deployment | None:
        """What the inventory wanted when it was applied last; None where that was never, or by an earlier release."""
        try:
            return Deployment(**json.loads((self.home / "last-applied.json").read_text()))
        except (OSError, ValueError, TypeError, Problem):
            return None

    def apply(self, wanted: Deployment) -> None:
        """Remember what the inventory wants as applied."""
        if self.last_applied != wanted:
            files.write(self.home / "last-applied.json", json.dumps(asdict(wanted), indent=2) + "\n")

    @property
    def instances(self) -> set[int]:
        """Those that run something, or will when they start."""
        return {int(link.name) for link in (self.home / "instances").glob("[0-9]*") if link.is_symlink()}

    def of(self, instance: int) -> Deployment | None:
        """Return what an instance runs, or will when it starts."""
        return self._linked(self.home / "instances" / str(instance))

    def _linked(self, link: Path) -> Deployment | None:
        try:
            return self.read(os.readlink(link).rsplit("/", 1)[-1])
        except OSError:
            return None

    def make_current(self, deployment: Deployment) -> None:
        """Remember a deployment as the one that went through last."""
        self._link(self.home / "current", f"deployments/{deployment.id}")

    def assign(self, instance: int | str, deployment: Deployment | None) -> None:
        """Set the deployment that an instance runs from its next start on; None for none."""
        link = self.home / "instances" / str(instance)
        if deployment:
            self._link(link, f"../deployments/{deployment.id}")
        else:
            link.unlink(missing_ok=True)

    def listeners(self, instance: int) -> Listeners:
        """Return where an instance listens, or will when it starts."""
        path = self._listeners(instance)
        if path.exists():
            return Listeners.read(instance, path.read_text())
        deployment = self.of(instance)
        return Listeners.read(instance, deployment.environment) if deployment else NOWHERE

    def listen(self, instance: int, listeners: Listeners) -> None:
        """Let an instance listen there when it starts the next time; nowhere: forget it."""
        path = self._listeners(instance)
        if listeners.addresses:
            path.parent.mkdir(exist_ok=True)
            files.write(path, listeners.environment(instance))
        else:
            path.unlink(missing_ok=True)

    def _listeners(self, instance: int) -> Path:
        return self.home / "listeners" / f"{instance}.env"

    def _link(self, link: Path, target: str) -> None:
        link.parent.mkdir(exist_ok=True)
        draft = link.with_name(f".{link.name}.new")
        draft.unlink(missing_ok=True)
        draft.symlink_to(target)
        draft.replace(link)

    def prune(self, keep: Iterable[str]) -> list[str]:
        """Remove deployments that are neither to be kept nor run, then what no deployment uses; return what went."""
        links = [self.home / "current", *(self.home / "instances").glob("[!.]*")]
        kept = {*keep, *(os.readlink(link).rsplit("/", 1)[-1] for link in links if link.is_symlink())}
        gone = [path for path in (self.home / "deployments").iterdir() if path.name not in kept]
        for path in gone:
            files.remove(path)
        left = [deployment for identity in kept if (deployment := self.read(identity))]
        # The next converge would only bring it again.
        left += [applied] if (applied := self.last_applied) else []
        used = {
            "releases": {each.release for each in left},
            "models": {each.model for each in left},
            "environments": {self.environment_of(each) for each in left if self.has(each)},
        }
        for kind, names in used.items():
            for path in list((self.home / kind).glob("*")):
                old = files.is_left(path) or time.time() - path.stat().st_ctime > FRESH_SECONDS
                if path.name not in names and old:
                    files.remove(path)
                    gone.append(path)
        return sorted(f"{path.parent.name}/{path.name}" for path in gone if not files.is_left(path))
