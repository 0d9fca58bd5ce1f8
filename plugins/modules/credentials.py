#!/usr/bin/python
"""Create, rotate and retire the credentials of a site: every state of a password, and every step from one to the next.

The steps are taken on the control node, by plugins/action/credentials.py: Ansible Vault is not known anywhere else.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import hashlib
import json
import os
import re
import secrets
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

DOCUMENTATION = r"""
module: credentials
short_description: Create, rotate and retire the credentials of a site
description:
  - Runs on the control node and works on the secrets folder of an inventory, the only place where passwords are made.
  - Each file is written atomically with mode 0600, so that a run that was cut short is finished by the next one. One run at a time.
  - No password is among the arguments or the results. In check mode nothing is written, and the results are what they would be.
  - Files that Ansible Vault has encrypted are read as if they were not. Where htpasswd_salt is encrypted, every step leaves all secrets of
    the folder encrypted.
  - The first step gives the folder the random id of a site, in site.json; each step that changes a credential appends to its history.
options:
  folder:
    description: The secrets folder of the inventory.
    type: path
    required: true
  step:
    description:
      - V(create) makes what is missing - the password of each user, the salt of the password file, Grafana's administrator and secret key.
      - V(rotate) makes a new password for each user and keeps the old one as the previous one, without an expiry.
      - V(set_expiry) gives the previous passwords of V(rotate) their expiry; the new ones are on every gateway by then.
      - V(retire) ends previous passwords before their expiry.
      - V(expire) removes previous passwords whose expiry has passed.
    type: str
    choices: [create, rotate, set_expiry, retire, expire]
    required: true
  users:
    description: Who may call the API.
    type: list
    elements: str
    required: true
  user:
    description: V(rotate) and V(retire) concern this user alone; empty means all.
    type: str
    default: ""
  given:
    description: Users whose password stands in fortress_passwords.
    type: list
    elements: str
    default: []
  given_previous:
    description: Users whose previous password stands in fortress_previous_passwords.
    type: list
    elements: str
    default: []
  given_grafana:
    description: Whether fortress_grafana_password gives the password of Grafana's administrator.
    type: bool
    default: false
  days:
    description: How long a previous password works after V(set_expiry).
    type: int
    default: 7
  replace:
    description: V(create) makes anew also what the site had and what is missing now, and sets itself apart from other copies of the folder.
    type: bool
    default: false
author: Fortress
"""

EXAMPLES = r"""
- name: Create the credentials that are missing
  credentials:
    folder: "{{ fortress_secrets_dir }}"
    step: create
    users: "{{ fortress_users }}"
  delegate_to: localhost
  become: false
  run_once: true
"""

RETURN = r"""
changed_paths:
  description: The files that were (or, in check mode, would be) written or removed, relative to the folder.
  type: list
  returned: always
notes:
  description: One sentence for each user whose previous password works, or whose password was left as it is.
  type: list
  returned: always
"""

LENGTH = 32
"""Characters of 62 in each credential: 190 random bits."""
ALPHABET = string.ascii_letters + string.digits
TIME = "%Y-%m-%dT%H:%M:%SZ"
"""How an expiry is written: such texts sort as the times they stand for."""
VAULT_HEADER = "$ANSIBLE_VAULT;"
"""How a file begins that Ansible Vault has encrypted."""

# The names of the files in the secrets folder.
HTPASSWD_SALT = "htpasswd_salt"
GRAFANA_PASSWORD = "grafana/admin"
GRAFANA_SECRET_KEY = "grafana/secret_key"
CA_CERTIFICATE = "pki/ca.crt"
SITE = "site.json"
# What is nobody's but the site's, and so is encrypted where Ansible Vault is used.
SECRET = ("users/*", "previous_passwords/*", "grafana/*", HTPASSWD_SALT, "pki/ca.key", "pki/hosts/*.key")


class State(enum.Enum):
    """Where the password of a user stands; `rotate` and `set_expiry` go through these in this order."""

    ABSENT = "no password was created"
    CURRENT = "one password works"
    SAVED = "the current password was saved as the previous one, and no new one was created yet"
    ROTATING = (
        "there is a new password, which may not be on every gateway yet: the previous one works without an expiry"
    )
    OVERLAPPING = "the new password and, until its expiry, the previous one work"
    EXPIRED = "the expiry of the previous password has passed"


class CredentialError(Exception):
    """What can't be done, and what to do about it; never with a password in it."""


@dataclass(frozen=True)
class Previous:
    """The previous password of a user. Without `until` its rotation has not reached the end."""

    password: str
    until: str | None = None

    def state(self, current: str | None, now: str) -> State:
        """Return the state of a user who has this previous password."""
        if self.until is None:
            return State.SAVED if self.password == current else State.ROTATING
        return State.OVERLAPPING if self.until > now else State.EXPIRED

    def works(self, now: str) -> bool:
        """Return whether the gateways still accept it."""
        return self.until is None or self.until > now

    def text(self) -> str:
        """Return the text of its file."""
        return json.dumps({"password": self.password} | ({} if self.until is None else {"until": self.until}))


class Vault(Protocol):
    """What Ansible Vault does with the password that this run was given; both raise `CredentialError` without it."""

    def encrypt(self, text: str) -> str:
        """Return a text as a file holds it that Vault has encrypted."""

    def decrypt(self, text: str) -> str:
        """Return what such a text was made of."""


class Store:
    """The files of a secrets folder.

    Attributes:
        folder: Where they are.
        dry_run: Keep what is written or removed in memory alone.
        vault: Reads and writes files that are encrypted.
        changed: The names of the files that were written or removed, in order.
    """

    def __init__(self, folder: Path, dry_run: bool = False, vault: Vault | None = None) -> None:
        self.folder = folder
        self.dry_run = dry_run
        self.vault = vault
        self.changed: list[str] = []
        self._pending: dict[str, str | None] = {}

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, accessible to its owner alone, and keep other runs of this module waiting."""
        self._make(self.folder)
        if not self.folder.is_dir():
            yield
            return
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def read(self, name: str) -> str | None:
        """Return the text of a file without blanks at its end, or None where there is none or nothing in it."""
        if name in self._pending:
            return self._pending[name]
        text = self._raw(name)
        return (self._decrypted(name, text) if text.startswith(VAULT_HEADER) else text).rstrip() or None

    def has(self, name: str) -> bool:
        """Return whether there is a file with something in it, encrypted or not."""
        if name in self._pending:
            return self._pending[name] is not None
        return bool(self._raw(name).rstrip())

    @property
    def encrypts(self) -> bool:
        """Whether all secrets of the folder are to be encrypted: whoever wants that encrypts the salt, which is never renewed."""
        return self._raw(HTPASSWD_SALT).startswith(VAULT_HEADER)

    def encrypt(self) -> None:
        """Encrypt the secrets that are not, where the folder's are to be."""
        if not self.encrypts:
            return
        for path in sorted(path for pattern in SECRET for path in self.folder.glob(pattern)):
            name = path.relative_to(self.folder).as_posix()
            text = self._raw(name)
            if path.is_file() and not path.name.startswith(".") and not text.startswith(VAULT_HEADER):
                self.write(name, text)

    def write(self, name: str, text: str) -> None:
        """Replace a file in one step, durably: after a power cut there is the old text or the new one."""
        self.changed.append(name)
        if self.dry_run:
            self._pending[name] = text.rstrip()
            return
        if self.encrypts and any(Path(name).match(pattern) for pattern in SECRET):
            text = self._encrypted(text)
        path = self.folder / name
        self._make(path.parent)
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync(path.parent)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there, durably."""
        path = self.folder / name
        if not path.exists():
            return
        self.changed.append(name)
        if self.dry_run:
            self._pending[name] = None
            return
        path.unlink()
        _sync(path.parent)

    def _raw(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _decrypted(self, name: str, text: str) -> str:
        if self.vault is None:
            raise CredentialError(f"{self.folder / name} is encrypted.")
        try:
            return self.vault.decrypt(text)
        except CredentialError as error:
            raise CredentialError(f"{self.folder / name} is encrypted by Ansible Vault: {error}") from None

    def _encrypted(self, text: str) -> str:
        if self.vault is None:
            raise CredentialError(f"The secrets in {self.folder} are encrypted.")
        return self.vault.encrypt(text)

    def _make(self, folder: Path) -> None:
        if folder.is_dir() and (folder != self.folder or folder.stat().st_mode & 0o777 == 0o700):
            return
        self.changed += [] if folder != self.folder else ["."]
        if not self.dry_run:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)


@dataclass
class Site:
    """Which site a secrets folder is of, and what has happened to its credentials: the file site.json, which holds no secret.

    Attributes:
        id: Random, the same in every copy of the folder; empty where no step was taken yet.
        changes: A mark for each step that changed a credential, in order. The mark is random, so that two copies of the folder that
            were changed apart differ although both have as many.
        has: The names of the files that the site has.
        ca: The sha256 of the CA's certificate, which is public.
    """

    id: str = ""
    changes: list[dict[str, str]] = field(default_factory=list)
    has: list[str] = field(default_factory=list)
    ca: str = ""

    @property
    def marks(self) -> list[str]:
        """The marks alone."""
        return [change["mark"] for change in self.changes]

    def record(self) -> dict[str, Any]:
        """Return what a host is to remember: whose credentials it has, and as of which change."""
        return {"id": self.id, "generation": len(self.changes), "change": self.marks[-1] if self.changes else ""}

    def text(self) -> str:
        """Return the text of its file."""
        return json.dumps(vars(self), indent=2) + "\n"

    @classmethod
    def read(cls, store: Store) -> Site:
        """Read it from a folder.

        Raises:
            CredentialError: The file is not what a step writes.
        """
        text = store.read(SITE)
        if text is None:
            return cls()
        try:
            site = cls(**json.loads(text))
            assert site.id and all(isinstance(mark, str) for mark in site.marks)
        except (ValueError, KeyError, TypeError, AssertionError):
            raise CredentialError(
                f"{store.folder / SITE} is not what a step of the credentials writes, so nobody knows of which site these secrets are. "
                "Bring it back from a backup or another copy of the folder."
            ) from None
        return site


class Credentials:
    """The credentials of a site, read from and written to a store.

    Attributes:
        store: The secrets folder.
        users: Who may call the API.
        given: Of them, those whose password the inventory gives.
        given_previous: Of them, those whose previous password the inventory gives.
        now: The time, written as `TIME` says.
    """

    def __init__(
        self,
        store: Store,
        users: list[str],
        given: list[str] | None = None,
        given_previous: list[str] | None = None,
        now: str = "",
    ) -> None:
        self.store = store
        self.users = users
        self.given = given or []
        self.given_previous = given_previous or []
        self.now = now or time.strftime(TIME, time.gmtime())
        self._changing = False
        for user in users:
            # Each becomes the name of a file.
            if not re.fullmatch(r"[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*", user):
                raise CredentialError(
                    f"fortress_users has {user!r}; a name has letters, digits and . _ @ + - and does not begin with a dot."
                )

    def password(self, user: str) -> str | None:
        """Return the password that was created for a user."""
        return self.store.read(f"users/{user}")

    def previous(self, user: str) -> Previous | None:
        """Return what a rotation kept of a user's old password, whether or not it still works."""
        name = f"previous_passwords/{user}"
        text = self.store.read(name)
        if text is None:
            return None
        try:
            kept = json.loads(text)
            return Previous(str(kept["password"]), kept.get("until"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CredentialError(
                f"{self.store.folder / name} is not what a rotation writes, so nobody knows until when the previous password of {user} "
                "works. Bring the file back from a backup, or remove it, which ends that password with the next `make converge`."
            ) from None

    def state(self, user: str) -> State:
        """Return where a user's password stands."""
        previous, current = self.previous(user), self.password(user)
        if previous is not None:
            return previous.state(current, self.now)
        return State.ABSENT if current is None else State.CURRENT

    def needed(self, given_grafana: bool = False) -> list[str]:
        """Return the names of the files that `create` makes where they are missing."""
        names = [f"users/{user}" for user in self.users if user not in self.given]
        return names + [HTPASSWD_SALT, GRAFANA_SECRET_KEY] + ([] if given_grafana else [GRAFANA_PASSWORD])

    def lost(self, needed: list[str]) -> list[str]:
        """Return those of the files that the site had and that are missing now."""
        return [name for name in needed if name in Site.read(self.store).has and not self.store.has(name)]

    def create(self, given_grafana: bool = False, replace: bool = False) -> list[str]:
        """Create what is missing. What is there stays as it is.

        Raises:
            CredentialError: Without `replace`, a file is missing that the site had.
        """
        needed = self.needed(given_grafana)
        if (lost := self.lost(needed)) and not replace:
            raise CredentialError(f"Missing in {self.store.folder}, though this site had it: {', '.join(lost)}.")
        missing = [name for name in needed if not self.store.has(name)]
        site, ca = Site.read(self.store), self.store.read(CA_CERTIFICATE) or ""
        fingerprint = hashlib.sha256(ca.encode()).hexdigest() if ca else ""
        has = [name for name in [*needed, CA_CERTIFICATE] if name in missing or self.store.has(name)]
        if missing or replace or fingerprint != site.ca or not set(has) <= set(site.has):
            self._change("created", has=sorted({*site.has, *has}), ca=fingerprint)
        for name in missing:
            self._generate(name)
        return []

    def rotate(self, only: str = "") -> list[str]:
        """Create new passwords and keep the old ones, which work without an expiry until `set_expiry`."""
        chosen = [only] if only else [user for user in self.users if user not in self.given]
        self._assert_known(chosen)
        if not chosen or only in self.given:
            raise CredentialError(
                f"The password of {only or ', '.join(self.users)} stands in fortress_passwords, so only you can replace it. Put the new one "
                "there and the old one into fortress_previous_passwords, and run `make converge`: both work. Take the old one out again when "
                "the clients have changed over."
            )
        if missing := [user for user in chosen if self.password(user) is None]:
            raise CredentialError(
                f"No password was made yet for {', '.join(missing)} in {self.store.folder}/users. Run `make converge` first."
            )
        notes = [
            f"{user}: it stands in fortress_passwords, so only you can replace it."
            for user in self.users
            if user in self.given and not only
        ]
        for user in chosen:
            notes += self._rotate_one(user)
        return notes

    def _rotate_one(self, user: str) -> list[str]:
        state = self.state(user)
        if user in self.given_previous:
            return [
                f"{user}: its previous password stands in fortress_previous_passwords; take it out there, then it can be replaced again."
            ]
        if state is State.OVERLAPPING:
            return [
                f"{user}: its previous one still works; `make retire-credentials` ends that, then it can be replaced again."
            ]
        if state in (State.CURRENT, State.EXPIRED, State.SAVED):
            self._change("rotated")
        if state in (State.CURRENT, State.EXPIRED):
            # First, so that the old password is nowhere lost if the next line is never reached.
            self._keep(user, Previous(str(self.password(user))))
            state = State.SAVED
        if state is State.SAVED:
            self._generate(f"users/{user}")
        return []

    def set_expiry(self, days: int) -> list[str]:
        """Set the expiry of the previous passwords whose new ones are on every gateway, so many days from now."""
        until = time.strftime(TIME, time.gmtime(time.time() + days * 86400))
        for user in self.users:
            previous = self.previous(user)
            if previous is not None and self.state(user) is State.ROTATING:
                self._keep(user, Previous(previous.password, until))
        return []

    def retire(self, only: str = "") -> list[str]:
        """Remove previous passwords now."""
        chosen = [only] if only else [user for user in self.users if self.previous(user) is not None]
        self._assert_known(chosen)
        if unfinished := [user for user in chosen if self.state(user) in (State.SAVED, State.ROTATING)]:
            raise CredentialError(
                f"The rotation of {', '.join(unfinished)} has not reached its end, so the new password may not be on every gateway yet. Run "
                "`make rotate-credentials` first."
            )
        if only in self.given_previous:
            raise CredentialError(
                f"fortress_previous_passwords gives the previous password of {only}, so only you can take it away: remove it there and run "
                "`make converge`."
            )
        for user in chosen:
            if self.previous(user) is not None:
                self._change("retired")
            self.store.remove(f"previous_passwords/{user}")
        return []

    def expire(self) -> list[str]:
        """Remove previous passwords that have expired; say which ones still work, and until when."""
        notes = []
        for user in self.users:
            previous = self.previous(user)
            if previous is not None and not previous.works(self.now):
                self.store.remove(f"previous_passwords/{user}")
                previous = None
            if user in self.given_previous:
                notes.append(
                    f"The previous password of {user} works until it is taken out of fortress_previous_passwords."
                )
            elif previous is not None and previous.until is None:
                notes.append(
                    f"The previous password of {user} works on: its rotation has not reached the end, `make rotate-credentials` goes on with it."
                )
            elif previous is not None:
                notes.append(
                    f"The previous password of {user} works until {previous.until}, or until `make retire-credentials`."
                )
        return notes

    def _change(self, what: str, **more: Any) -> None:
        # Before the change itself: a host that remembers too much only makes other copies of the folder be brought up to date.
        if self._changing:
            return
        self._changing = True
        site = Site.read(self.store)
        site.id = site.id or random_credential()
        site.changes.append({"mark": random_credential()[:16], "time": self.now, "what": what})
        self.store.write(SITE, Site(**(vars(site) | more)).text())

    def _assert_known(self, chosen: list[str]) -> None:
        if unknown := [user for user in chosen if user not in self.users]:
            raise CredentialError(
                f"There is no user {', '.join(unknown)} in fortress_users, which has {', '.join(self.users)}."
            )

    def _generate(self, name: str) -> None:
        self.store.write(name, random_credential() + "\n")

    def _keep(self, user: str, previous: Previous) -> None:
        self.store.write(f"previous_passwords/{user}", previous.text())


def random_credential() -> str:
    """Return a new password, salt or key."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
