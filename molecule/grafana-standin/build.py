"""Build the stand-in package and a signed APT repository that holds it. Runs on the host, as root."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

PACKAGES = Path("dists/stable/main/binary-all/Packages")


def main() -> None:
    """Lay the repository below the directory that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path, help="tree of the package")
    parser.add_argument("repository", type=Path, help="directory to make")
    arguments = parser.parse_args()
    # A half-made repository must not look like a finished one.
    unfinished = arguments.repository.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / PACKAGES.parent).mkdir(parents=True)
    build(arguments.package, unfinished / "grafana.deb")
    index(unfinished)
    sign(unfinished)
    unfinished.rename(arguments.repository)


def build(package: Path, target: Path) -> None:
    """Make the .deb."""
    for program in ("DEBIAN/postinst", "usr/share/grafana/bin/grafana"):
        os.chmod(package / program, 0o755)
    run("dpkg-deb", "--build", "--root-owner-group", str(package), str(target))


def index(repository: Path) -> None:
    """Write the two files apt reads: what packages there are, and the checksum of that list."""
    deb = repository / "grafana.deb"
    fields = {"Filename": deb.name, "Size": str(deb.stat().st_size), "SHA256": sha256(deb)}
    control = run("dpkg-deb", "--field", str(deb)).rstrip("\n")
    stanza = "\n".join([control, *(f"{name}: {value}" for name, value in fields.items())]) + "\n"
    packages = repository / PACKAGES
    packages.write_text(stanza, encoding="utf-8")
    release = repository / "dists/stable/Release"
    listed = packages.relative_to(release.parent)
    release.write_text(
        "Origin: Stand-in for Grafana\nSuite: stable\nCodename: stable\n"
        "Architectures: all amd64 arm64\nComponents: main\n"
        f"Date: {datetime.now(UTC):%a, %d %b %Y %H:%M:%S UTC}\n"
        f"SHA256:\n {sha256(packages)} {packages.stat().st_size} {listed}\n",
        encoding="utf-8",
    )


def sign(repository: Path) -> None:
    """Sign with a key made for this once; what is left of it is the public half, the way vendors publish theirs."""
    home = repository / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    unprotected = ["--pinentry-mode", "loopback", "--passphrase", ""]
    run(*gpg, *unprotected, "--quick-generate-key", "Stand-in for Grafana", "rsa3072", "sign", "never")
    release = repository / "dists/stable/Release"
    run(*gpg, "--clearsign", "--output", str(release.with_name("InRelease")), str(release))
    run(*gpg, "--armor", "--output", str(repository / "gpg-full.key"), "--export")
    run("gpgconf", "--homedir", str(home), "--kill", "all")
    # The agent takes its sockets away by itself, perhaps while this does.
    shutil.rmtree(home, onerror=_unless_gone)


def _unless_gone(_function: object, _path: str, problem: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(problem[1], FileNotFoundError):
        raise problem[1]


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*command: str) -> str:
    """Run a command, or stop with what it said."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
