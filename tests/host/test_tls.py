"""TLS as testssl.sh grades it, on the gateway itself: Debian 12's version knows no grades."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://gateway"]

GRADED = "-p -s -f -S -h -H -I -T --robot -R -C -O -Z -D -A -4 -J"
"""What a grade is made of: protocols, suites, forward secrecy, certificate, headers, and the attacks it knows."""


@pytest.fixture
def testssl(host: Host) -> Iterator[str]:
    """Unpack testssl.sh without installing it; return the beginning of its command."""
    offered = host.run("apt-cache show --no-all-versions testssl.sh").stdout
    version = re.search(r"^Version: (\d+)\.(\d+)", offered, re.MULTILINE)
    if not version or (int(version[1]), int(version[2])) < (3, 2):
        pytest.skip("the host's Debian has no testssl.sh that grades (3.2)")
    folder = host.check_output("mktemp -d")
    unpack = (
        "apt-get -qq -o APT::Sandbox::User=root download testssl.sh bsdextrautils && "
        "for package in *.deb; do dpkg-deb -x $package . || exit; done"
    )
    host.run_expect([0], f"cd {folder} && {unpack}")
    # It insists on a program that looks up names, and is given the address.
    host.run_expect([0], f"ln -s /bin/true {folder}/usr/bin/dig")
    authority = Path(os.environ["FORTRESS_CA"]).read_text()
    host.run_expect([0], f"printf %s {shlex.quote(authority)} > {folder}/ca.crt")
    yield (
        f"cd {folder} && env PATH=$PATH:{folder}/usr/bin TESTSSL_INSTALL_DIR={folder}/etc/testssl testssl "
        f"--warnings batch --color 0 --nodns none --openssl /usr/bin/openssl --add-ca {folder}/ca.crt --ip 127.0.0.1"
    )
    host.run(f"rm -r {folder}")


def test_testssl_grades_it_a_plus(host: Host, testssl: str) -> None:
    said = host.run(f"{testssl} {GRADED} https://{os.environ['FORTRESS_DOMAIN']}/").stdout
    [grade] = re.findall(r"^ *Overall Grade +(\S+)", said, re.MULTILINE) or [said]
    assert grade == "A+", said
