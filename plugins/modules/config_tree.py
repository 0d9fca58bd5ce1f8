#!/usr/bin/python
"""Put a tree of configuration files into place: all of it, validated first, or none of it."""

from __future__ import annotations

import contextlib
import fnmatch
import grp
import os
import pwd
import shlex
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: config_tree
short_description: Put a tree of configuration files into place in one step
description:
  - Renders the templates/ folder of the role it runs in and copies its files/ folder; a file's place below the folder is its path on the host.
    A template may include what several roles share, from the folder templates/ beside that of the roles.
  - The whole tree is staged and validated before a single file changes; when a command of O(validate) fails, nothing has changed.
  - Each file is replaced atomically, in the order of the paths. When one can't be (a full disk), all of them get back the content, mode and
    owner they had, and what was removed comes back. Folders that were made stay.
  - When a systemd unit changed, systemd re-reads its units.
  - It removes nothing but what O(absent) names. A file that a role no longer writes, or writes under another name, stays on the hosts that
    have it, and a daemon that reads by pattern (conf.d/*.conf) goes on reading it. Whoever renames or drops a template names its old path in
    O(absent), for as long as hosts of that release may be around.
  - On a host whose state before the first change was recorded (host_record), the original of each file that is replaced for the first time is
    kept in C(/var/lib/fortress/before), and so are the names of files and folders that are new. M(host_removal) takes it all back.
  - A run may be cut after the files are written and before a handler has applied them. With O(unapplied) the host remembers that, and
    the next run reports these files as changed, until a handler says by O(applied) that they are in use.
  - Where M(host_survey) has seen at the beginning of the run that every file is as it should be, that what O(in_use) asks succeeds, and that no
    record names one, the host is not asked again.
options:
  path:
    description: Only these sub-trees or files, relative to the role's folders. All of them, unless O(contents) is given.
    type: raw
  exclude:
    description: Leave these out; shell patterns, relative paths.
    type: raw
  contents:
    description: Files to write instead of the role's folders, absolute path to text. For what a variable holds, a secret say.
    type: dict
  files:
    description: Set by the action plugin from the options above, the rendered files.
    type: list
    elements: dict
  owner:
    description: Owner of the files.
    type: str
    default: root
  group:
    description: Group of the files.
    type: str
    default: root
  mode:
    description: Mode of the files, octal. Directories that must be made get 0755.
    type: str
    default: "0644"
  attributes:
    description:
      - Exceptions by absolute path or shell pattern. Keys are C(owner), C(group), C(mode) and C(secret), no other.
      - Where several patterns match a path, each adds to those before it. C(secret) keeps the text out of C(--diff); the task needs C(no_log) too.
    type: dict
  absent:
    description: Files to remove in the same step, after the others are written.
    type: list
    elements: str
  validate:
    description: Command or commands that check the staged tree; C({staged}) stands for its root. They run only when something changes.
    type: raw
  unapplied:
    description:
      - Name of a record on the host, in C(/var/lib/fortress/unapplied) or by its absolute path, of the files that were written and are not in use yet. It is there
        before the first file changes. The handlers that are notified must end with one that has O(applied).
    type: str
  in_use:
    description:
      - Command by absolute path of a file, which fails where the host does not run with that file, because somebody unloaded it by hand. The
        file is then reported as changed.
    type: dict
  applied:
    description: Instead of all other options. Records to remove, because the service runs with what was written.
    type: raw
author: Fortress
"""

EXAMPLES = r"""
- name: Configure Prometheus
  config_tree:
    validate: promtool check config {staged}/etc/prometheus/prometheus.yml
    absent: [/etc/prometheus/rules/a-name-of-release-1.yml]
    unapplied: prometheus
  notify:
    - Reload Prometheus
    - Record that Prometheus runs its configuration

# The last handler.
- name: Record that Prometheus runs its configuration
  config_tree:
    applied: prometheus

- name: Write a secret
  config_tree:
    contents:
      /etc/demo/token: "{{ demo_token }}\n"
    attributes:
      /etc/demo/token: {group: demo, mode: "0640", secret: true}
  no_log: true
"""

RETURN = r"""
changed_paths:
  description: The files that were (or, in check mode, would be) written or removed, and those that an earlier run wrote and did not apply.
  type: list
  returned: always
"""

UNIT_DIRECTORY = "/etc/systemd/system/"
UNAPPLIED = "/var/lib/fortress/unapplied"
BEFORE = "/var/lib/fortress/before"
ATTRIBUTES = {"owner", "group", "mode", "secret"}


def main() -> None:
    """Read the arguments, compare, validate, activate."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0644"},
            "attributes": {"type": "dict", "default": {}},
            "absent": {"type": "list", "elements": "str", "default": []},
            "validate": {"type": "raw", "default": []},
            "unapplied": {"type": "str"},
            "in_use": {"type": "dict", "default": {}},
            "applied": {"type": "list", "elements": "str"},
        },
        supports_check_mode=True,
    )
    # Folders get the mode they are made with, whatever the login of this host takes away: a daemon must read them.
    os.umask(0o022)
    if module.params["applied"] is not None:
        if not module.check_mode:
            for name in module.params["applied"]:
                Record(name).write([])
        module.exit_json(changed=False, changed_paths=[])
    record = Record(module.params["unapplied"]) if module.params["unapplied"] else None
    wanted = [File(module, entry["path"], entry["content"]) for entry in module.params["files"]]
    stale = [path for path in module.params["absent"] if os.path.lexists(path)]
    try:
        changed = [file for file in wanted if file.differs()]
        diff = [file.diff() for file in changed]
    except OSError as error:
        # A folder stands where a file should, or a file where a folder should.
        module.fail_json(msg=f"config_tree: {error}. Nothing was changed.")
    changed_paths = [file.path for file in changed] + stale
    diff += [{"before_header": path, "after_header": "(removed)"} for path in stale]
    known = {file.path for file in wanted} | set(module.params["absent"])
    waiting = [path for path in (record.read() if record else []) if path in known and path not in changed_paths]
    waiting += [path for path in not_in_use(module) if path not in {*waiting, *changed_paths}]
    diff += [{"prepared": f"{path}: written by an earlier run, not in use\n"} for path in waiting]
    changed_paths += waiting

    if changed_paths:
        validate(module, wanted)
    if changed_paths and not module.check_mode:
        before = record.read() if record else []
        if record:
            record.write(sorted({*before, *changed_paths}))
        try:
            activate(module, changed, stale)
        except SystemExit:
            if record:
                record.write(before)
            raise
        if any(path.startswith(UNIT_DIRECTORY) for path in changed_paths):
            module.run_command(["systemctl", "daemon-reload"], check_rc=True)
    module.exit_json(changed=bool(changed_paths), changed_paths=changed_paths, diff=diff)


def not_in_use(module: AnsibleModule) -> list[str]:
    """Return the files that the host does not run with, by the commands of `in_use`."""
    commands: dict[str, str] = module.params["in_use"]
    return [path for path, command in commands.items() if not _succeeds(module, command)]


def _succeeds(module: AnsibleModule, command: str) -> bool:
    program, *_ = shlex.split(command)
    return shutil.which(program) is not None and module.run_command(command)[0] == 0


class Record:
    """What was written and is not in use yet: a path a line, no file where there is none."""

    def __init__(self, name: str) -> None:
        self.path = os.path.join(UNAPPLIED, name)

    def read(self) -> list[str]:
        """Return the paths."""
        try:
            with open(self.path, encoding="utf-8") as stream:
                return stream.read().splitlines()
        except FileNotFoundError:
            return []

    def write(self, paths: list[str]) -> None:
        """Have the record hold these paths, also after a power cut."""
        if not paths:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            return
        os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
        draft = f"{self.path}.new"
        with open(draft, "w", encoding="utf-8") as stream:
            stream.writelines(f"{path}\n" for path in paths)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, self.path)


class Originals:
    """What was there before the first change, for host_removal: a list of what was written, and what that replaced.

    `written` has a path a line, of a folder with a / at its end; files/ has the originals by their paths. Where no record of the host
    was begun (host_record), nothing is kept: what is there may already be ours.
    """

    def __init__(self, root: str = "") -> None:
        self.root = root
        self.folder = root + BEFORE
        self.list = os.path.join(self.folder, "written")
        self.begun = os.path.exists(os.path.join(self.folder, "host.json"))

    def keep(self, paths: list[str]) -> None:
        """Keep what stands at these paths, unless that was done before. Comes before the first of them is written."""
        if not self.begun:
            return
        known = self.known()
        new: list[str] = []
        for path in paths:
            if path in known:
                continue
            if os.path.lexists(self.root + path):
                kept = f"{self.folder}/files{path}"
                os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)
                _copy(self.root + path, kept)
                # The list says that it is there: it must be, also after a power cut.
                if not os.path.islink(kept):
                    with open(kept, "rb") as stream:
                        os.fsync(stream.fileno())
            new += [folder for folder in self.missing_folders(path) if folder not in {*known, *new}] + [path]
        if new:
            with open(self.list, "a", encoding="utf-8") as stream:
                stream.writelines(f"{path}\n" for path in new)
                stream.flush()
                os.fsync(stream.fileno())

    def known(self) -> set[str]:
        """Return the files and folders that were written before."""
        try:
            with open(self.list, encoding="utf-8") as stream:
                return set(stream.read().splitlines())
        except FileNotFoundError:
            return set()

    def missing_folders(self, path: str) -> list[str]:
        """Return the folders that must be made for a file, the outermost first, each with a / at its end."""
        folders = []
        folder = os.path.dirname(path)
        while not os.path.exists(self.root + folder):
            folders.append(f"{folder}/")
            folder = os.path.dirname(folder)
        return folders[::-1]


class File:
    """One file as it should be: the task's defaults, then whatever `attributes` say of its path."""

    def __init__(self, module: AnsibleModule, path: str, content: str) -> None:
        if not os.path.isabs(path):
            module.fail_json(msg=f"config_tree: {path!r} is not an absolute path.")
        wanted: dict[str, Any] = {key: module.params[key] for key in ("owner", "group", "mode")}
        for pattern, exception in module.params["attributes"].items():
            if unknown := set(exception) - ATTRIBUTES:
                module.fail_json(
                    msg=(
                        f"config_tree: `attributes` of {pattern} names {', '.join(sorted(unknown))}; "
                        f"known are {', '.join(sorted(ATTRIBUTES))}."
                    )
                )
            if fnmatch.fnmatch(path, pattern):
                wanted.update(exception)
        self.path = path
        self.content = content.encode("utf-8")
        self.secret = bool(wanted.get("secret", False))
        self.mode = int(str(wanted["mode"]), 8)
        self.uid = _id(module, pwd.getpwnam, wanted["owner"], path)
        self.gid = _id(module, grp.getgrnam, wanted["group"], path)

    def current(self) -> bytes | None:
        """Return what is there now, None where nothing is."""
        try:
            with open(self.path, "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def differs(self) -> bool:
        """Return whether content, mode or ownership is not as it should be."""
        if os.path.islink(self.path) or self.current() != self.content:
            return True
        status = os.stat(self.path)
        return (status.st_mode & 0o7777, status.st_uid, status.st_gid) != (self.mode, self.uid, self.gid)

    def diff(self) -> dict[str, str]:
        """Return before and after, as Ansible's --diff shows them."""
        before, after = self.current() or b"", self.content
        if self.secret:
            before, after = b"(secret)\n" if before else b"", b"(secret, changed)\n"
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": before.decode("utf-8", "replace"),
            "after": after.decode("utf-8", "replace"),
        }

    def write(self, path: str) -> None:
        """Write this file at `path`, with its mode and owner from the first byte on."""
        directory = os.path.dirname(path)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(path)}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                os.fchown(stream.fileno(), self.uid, self.gid)
                os.fchmod(stream.fileno(), self.mode)
                stream.write(self.content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def validate(module: AnsibleModule, files: list[File]) -> None:
    """Stage every file of the call below a private directory and run the commands on it."""
    commands = module.params["validate"]
    commands = [commands] if isinstance(commands, str) else commands
    if module.check_mode:
        # On a fresh host the program that would judge the files is not there yet.
        commands = [command for command in commands if shutil.which(shlex.split(command)[0])]
    if not commands:
        return
    staged = tempfile.mkdtemp(prefix="config_tree.")
    try:
        for file in files:
            file.write(staged + file.path)
        for command in commands:
            code, out, err = module.run_command(command.replace("{staged}", staged))
            if code != 0:
                module.fail_json(
                    msg=(
                        f"The new configuration is not valid, so nothing was changed. `{command}` answered ({code}): "
                        + (err + out).replace(staged, "").strip()
                    )
                )
    finally:
        shutil.rmtree(staged)


def activate(module: AnsibleModule, files: list[File], stale: list[str]) -> None:
    """Replace the files one by one; on an error put back what was replaced."""
    backup = tempfile.mkdtemp(prefix="config_tree.")
    done: list[str] = []
    try:
        Originals().keep([file.path for file in files])
        for path in [file.path for file in files] + stale:
            if os.path.lexists(path):
                os.makedirs(backup + os.path.dirname(path), exist_ok=True)
                _copy(path, backup + path)
        for file in files:
            done.append(file.path)
            file.write(file.path)
        for path in stale:
            done.append(path)
            os.unlink(path)
    except OSError as error:
        for path in done:
            if os.path.lexists(backup + path):
                _copy(backup + path, path)
            elif os.path.lexists(path):
                os.unlink(path)
        module.fail_json(msg=f"config_tree: {error}. The previous files were put back.")
    finally:
        shutil.rmtree(backup)


def _copy(source: str, target: str) -> None:
    """Copy with mode, times and owner, a link as a link, replacing the target in one step."""
    temporary = target + ".config_tree"
    shutil.copy2(source, temporary, follow_symlinks=False)
    status = os.lstat(source)
    os.chown(temporary, status.st_uid, status.st_gid, follow_symlinks=False)
    os.replace(temporary, target)


def _id(module: AnsibleModule, lookup: Any, name: str, path: str) -> int:
    try:
        return int(lookup(name)[2])
    except KeyError:
        if module.check_mode:
            return -1  # made by a package that check mode did not install
        module.fail_json(msg=f"config_tree: {path} should belong to {name!r}, which does not exist on this host.")
        raise


if __name__ == "__main__":
    main()
