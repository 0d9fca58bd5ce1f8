"""The guest's read-only image: built once by mmdebstrap, cached by everything that goes into it."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from pathlib import Path

from .common import CACHE, Problem, last_lines, locked, remove_tree, require_free_space
from .mirror import Mirrors

RELEASES = {"trixie": "13", "bookworm": "12"}
PACKAGES = [
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    # Of Debian's standard installation: each lookup of a user or group by a service asks systemd too.
    "libnss-systemd",
    "libpam-systemd",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
]
CUSTOMIZE = Path(__file__).with_name("customize.sh")
HOST_CERTIFICATES = Path("/usr/local/share/ca-certificates")
NEEDS_MB = 1000


def certificates() -> list[Path]:
    """The authorities the host trusts beyond Debian's: without them no guest gets through a company's proxy."""
    return sorted(HOST_CERTIFICATES.rglob("*.crt"))


def name(release: str, mirrors: Mirrors) -> str:
    """The image's name; another recipe, mirror or certificate makes it another image."""
    digest = hashlib.sha256()
    for part in (release, *PACKAGES, mirrors.sources(release)):
        digest.update(part.encode() + b"\0")
    for file in (CUSTOMIZE, *certificates()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return f"{release}-{digest.hexdigest()[:12]}"


def path(image: str) -> Path:
    """Where an image of that name lies, or would."""
    return CACHE / image


def ensure(release: str, mirrors: Mirrors) -> str:
    """Build the image unless it is cached; return its name."""
    image = name(release, mirrors)
    if path(image).is_dir():
        return image
    with locked(CACHE):
        for leftover in CACHE.glob(".build-*"):
            remove_tree(leftover)
        if not path(image).is_dir():
            number = RELEASES[release]
            print(f"building the Debian {number} image (half a minute, some 100 MB to download) ...", flush=True)
            _build(release, mirrors, path(image))
    return image


def _build(release: str, mirrors: Mirrors, target: Path) -> None:
    """Build under a name nobody takes for a finished image, then rename."""
    require_free_space(CACHE, NEEDS_MB)
    scratch = CACHE / f".build-{target.name}"
    sources, tree = scratch / "debian.sources", scratch / "tree"
    scratch.mkdir()
    try:
        sources.write_text(mirrors.sources(release))
        log = CACHE / "build.log"
        with log.open("w") as output:
            command = _command(release, sources, tree)
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
        if done.returncode != 0:
            raise Problem(f"building the image failed; the end of {log}:\n{last_lines(log)}")
        tree.rename(target)
    finally:
        remove_tree(scratch)


def _command(release: str, sources: Path, tree: Path) -> list[str]:
    """Mmdebstrap in namespaces of its own: killed, it leaves neither a process nor a mount on the host."""
    hooks = [f"--customize-hook={CUSTOMIZE}"]
    if files := certificates():
        hooks = [
            f'--customize-hook=mkdir -p "$1{HOST_CERTIFICATES}"',
            f"--customize-hook=copy-in {shlex.join(map(str, files))} {HOST_CERTIFICATES}",
            *hooks,
        ]
    return [
        *("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", f"--include={','.join(PACKAGES)}"),
        *(*hooks, release, str(tree), str(sources)),
    ]


def prune(used: set[str]) -> list[str]:
    """Delete the cached images that no machine uses; return their names."""
    with locked(CACHE):
        unused = sorted(entry.name for entry in CACHE.iterdir() if entry.is_dir() and entry.name not in used)
        for image in unused:
            remove_tree(path(image))
    return [image for image in unused if not image.startswith(".")]
