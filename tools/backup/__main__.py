"""Write the backup of a site, or unpack one: what `make backup` and `make restore` do on the control node.

    python -m tools.backup write --inventory inventory/prod ... < what the hosts said
    python -m tools.backup unpack FILE

The hosts' part is in playbooks/backup.yml and playbooks/restore.yml.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.remote import Hosts

from . import archive, site
from .archive import BackupError, File, Source, describe

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / "build" / "restore"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    added = commands.add_parser("space", help="check that there is space for the parts of the hosts")
    added.set_defaults(run=space)
    added.add_argument("--to", type=Path, required=True)
    added.add_argument("--bytes", type=int, required=True)
    added = commands.add_parser("write", help="write a backup; standard input is what each host said, as JSON")
    added.set_defaults(run=write)
    for name in ("inventory", "secrets", "staging", "to"):
        added.add_argument(f"--{name}", type=Path, required=True)
    added.add_argument("--bundle", type=Path, action="append", default=[], help="a bundle that the inventory names")
    added.add_argument("--recipients", type=Path, help="a file of recipients of age, for whom it is encrypted")
    added = commands.add_parser("unpack", help="unpack a backup, and bring inventory and secrets back; prints the name")
    added.set_defaults(run=unpack)
    added.add_argument("file", type=Path)
    added.add_argument("--inventory", help="the name that the inventory gets; default: as it was")
    added.add_argument("--use", default="", help="which inventory, where both have one: here or backup")
    added.add_argument("--key", type=Path, help="a file of identities of age")
    options = parser.parse_args(arguments)
    before = os.umask(0o077)
    try:
        options.run(options)
    except BackupError as error:
        print(f"backup: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"backup: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    finally:
        os.umask(before)
    return 0


def space(options: argparse.Namespace) -> None:
    """Check that the parts of the hosts have space, and the archive of them beside it."""
    archive.require_space(options.to, 2 * options.bytes, "The backup, with the parts it is made of,")


def write(options: argparse.Namespace) -> None:
    """Write the archive, and print where it is and what is in it."""
    said: dict[str, Any] = json.load(sys.stdin)
    hosts: dict[str, Any] = said["hosts"]
    this_site, sources = site.collect(options.inventory, options.secrets, options.bundle)
    for name, kept in hosts.items():
        sources |= host_files(name, kept, options.staging / name)
    now = time.gmtime()
    manifest = {
        "id": secrets.token_hex(8),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
        "site": this_site,
        "inventory": options.inventory.resolve().name,
        "project": project(),
        "hosts": hosts,
        "missing": said.get("missing", []),
        "outside": outside(said.get("named", {}), [options.inventory, options.secrets]),
    }
    archive.require_space(options.to, sum(file.bytes for file in sources), "The backup")
    suffix = ".tar.gz.age" if options.recipients else ".tar.gz"
    path = options.to / f"fortress-{manifest['inventory']}-{time.strftime('%Y%m%dT%H%M%SZ', now)}{suffix}"
    archive.write(path, manifest, sources, options.recipients)
    print("\n".join(summary(path, manifest, encrypted=bool(options.recipients))))


def outside(named: Mapping[str, str], folders: Sequence[Path]) -> dict[str, str]:
    """Return those of the files that variables name which lie in none of these folders."""
    inside = [folder.resolve() for folder in folders]
    return {
        path: variable
        for path, variable in named.items()
        if not any(Path(path).expanduser().resolve().is_relative_to(folder) for folder in inside)
    }


def host_files(name: str, kept: Mapping[str, Any], folder: Path) -> dict[File, Source]:
    """Return the parts of a host as they were fetched.

    Raises:
        BackupError: One is not as the host wrote it.
    """
    found: dict[File, Source] = {}
    for part in kept["parts"].values():
        path = folder / part["file"]
        file = describe(f"hosts/{name}/{part['file']}", path)
        if file.sha256 != part["sha256"]:
            raise BackupError(f"{path} is not what {name} wrote; does another backup run? Run the same again.")
        found[file] = path
    return found


def project() -> dict[str, Any]:
    """Return which revision of the project this is, and whether files of it were changed since."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    return {"revision": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "--untracked-files=no"))}


def summary(path: Path, manifest: Mapping[str, Any], *, encrypted: bool) -> list[str]:
    """Return what people should know of a backup, a line each."""
    lines = [f"{path} ({path.stat().st_size / 1e6:.1f} MB)"]
    for name, kept in manifest["hosts"].items():
        parts = [f"{part} {about['bytes'] / 1e6:.1f} MB" for part, about in kept["parts"].items()]
        lines.append(f"{name}: {', '.join(parts) or 'nothing but what a converge makes'}")
        if deployed := kept.get("deployments"):
            lines.append(
                f"{name}: {deployed['current']} in force, {deployed['deployments']} deployments to roll back to"
            )
        lines += [f"{name}: {note}" for note in kept["notes"]]
    lines += [f"NOT IN IT: {name}, which could not be reached" for name in manifest["missing"]]
    lines += [f"NOT IN IT: {file}, which {name} names: keep it too" for file, name in manifest["outside"].items()]
    if not manifest["project"]["revision"]:
        lines.append("This is no git checkout: note which version of the project it is of.")
    elif manifest["project"]["changed"]:
        lines.append("Files of this checkout were changed and not committed: they are not in it.")
    lines.append(
        "It is encrypted: without a key of its recipients nobody reads it, you neither."
        if encrypted
        else "IT HOLDS PASSWORDS AND PRIVATE KEYS, and is not encrypted: keep it as you keep the secrets folder."
    )
    return lines


def unpack(options: argparse.Namespace) -> None:
    """Unpack and check a backup, bring inventory and secrets back, and print the name of the inventory."""
    options.file = options.file.expanduser()
    draft = UNPACKED / f".{os.getpid()}.new"
    try:
        manifest = archive.read(options.file, draft, options.key)
        name = options.inventory or manifest["inventory"]
        if Path(name).name != name or name.startswith("."):
            raise BackupError(f"{name!r} is no name of an inventory: INVENTORY=prod, say.")
        inventory = ROOT / "inventory" / name
        source = inventory if options.use == "here" else draft / "inventory"

        def say(text: str) -> None:
            print(text, file=sys.stderr)

        def path(variable: str, default: Path) -> Path:
            found = Path(Hosts(str(source)).variable(variable) or default)
            return inventory / found.relative_to(source) if found.is_relative_to(source) else found

        site.Return(
            draft,
            {file["path"]: file["mode"] for file in manifest["files"]},
            inventory,
            path("fortress_secrets_dir", inventory / "secrets"),
            path("iris_api_models_dir", ROOT / "models"),
        ).bring_back(options.use, say)
        for part in site.PARTS:
            archive.remove(draft / part)
        archive.remove(UNPACKED / name)
        draft.rename(UNPACKED / name)
    finally:
        archive.remove(draft)
    say(f"The backup is of {manifest['created']}.")
    made_by, here = manifest["project"]["revision"], project()["revision"]
    if made_by and made_by != here:
        say(f"It was made by revision {made_by}, and this is {here or 'no checkout'}; `git checkout` brings that one.")
    print(name)


if __name__ == "__main__":
    sys.exit(main())
