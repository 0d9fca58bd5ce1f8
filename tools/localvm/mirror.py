"""Where the guest's packages come from: the host's own apt configuration says so, or the caller."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .common import Problem, run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Mirrors:
    """The Debian archive and its security archive; the latter may be missing on a host that uses none."""

    main: str
    security: str | None

    def sources(self, release: str) -> str:
        """The guest's debian.sources."""
        stanzas = [(self.main, f"{release} {release}-updates")]
        if self.security:
            stanzas.append((self.security, f"{release}-security"))
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n"
            for uri, suites in stanzas
        )


def parse_targets(listing: str) -> Mirrors | None:
    """Find the Debian mirrors in lines `ORIGIN|URI|RELEASE` of `apt-get indextargets`.

    The origin is known once `apt-get update` has run. Before that, an archive is told by its path: other vendors
    use Debian's release names too.
    """
    found: dict[str, str] = {}
    for line in listing.splitlines():
        origin, uri, release = line.split("|")
        directory = uri.rstrip("/").rsplit("/", 1)[-1]
        if origin != "Debian" and (origin or directory not in {"debian", "debian-security"}):
            continue
        if not uri.startswith(("http:", "https:", "mirror+file:")):
            continue
        if release.endswith("-security"):
            found.setdefault("security", uri)
        elif "-" not in release or release.endswith("-updates"):
            found.setdefault("main", uri)
    return Mirrors(found["main"], found.get("security")) if "main" in found else None


def resolve_mirror_list(uri: str) -> str:
    """Debian's cloud images name their mirror in a file (`mirror+file:/etc/apt/mirrors/debian.list`)."""
    match = re.match(r"mirror\+file:(?://)?(/.+)", uri)
    if not match:
        return uri
    listing = Path(match[1].rstrip("/"))
    for line in listing.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            return line.split()[0]
    raise Problem(f"apt's mirror list {listing} is empty: give --mirror URL")


def find(main: str | None, security: str | None) -> Mirrors:
    """The mirrors given by option, else those of the host's apt."""
    if main:
        return Mirrors(main, security)
    listing = run("apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)|$(RELEASE)", "Created-By: Packages")
    known = parse_targets(listing)
    if known is None:
        raise Problem(
            "the host's apt configuration names no Debian mirror: run `apt-get update`, "
            "or give --mirror URL and --security-mirror URL"
        )
    security = security or known.security
    return Mirrors(resolve_mirror_list(known.main), security and resolve_mirror_list(security))
