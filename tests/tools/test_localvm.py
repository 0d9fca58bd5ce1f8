"""What tools/localvm decides before it touches the host. Booting real machines is the part of tests/localvm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.localvm import cli, common, image, machine, mirror, network
from tools.localvm.common import Problem

ARCHIVE, SECURITY = "http://mirror.test/debian/", "http://mirror.test/debian-security/"
Localvm = Callable[..., str]


@pytest.fixture
def localvm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Localvm:
    """Run the tool on a host that has all it needs and no machines; returns what it complains."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(cli, "missing_packages", lambda: [])
    for module in (common, cli, machine, network):
        monkeypatch.setattr(module, "STATE", tmp_path / "state", raising=False)
    key = tmp_path / "key.pub"
    key.write_text("ssh-ed25519 AAAA me\n")

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["localvm", *(word.replace("KEY", str(key)) for word in words)])
        assert cli.main() == 1
        return capsys.readouterr().err

    return run


def test_it_wants_root_and_says_what_to_type(localvm: Localvm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for command in (["list"], ["setup"], ["down", "fortress"]):
        assert f"sudo python3 localvm {' '.join(command)}" in localvm(*command)


def test_it_names_the_packages_the_host_lacks(localvm: Localvm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "missing_packages", lambda: ["mmdebstrap", "nftables"])
    assert "apt-get install mmdebstrap nftables" in localvm("list")


def test_a_package_is_missing_when_its_program_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "HOST_PACKAGES", {"coreutils": "ls", "nosuch": "no-such-program", "etc": "/etc/passwd"})
    assert common.missing_packages() == ["nosuch"]


@pytest.mark.parametrize("name", ["", "Fortress", "9lives", "a_b", "a.b", "a-", "../etc", "a" * 33, "a\n"])
def test_a_bad_name_is_refused(localvm: Localvm, name: str) -> None:
    assert "is no name for a machine" in localvm("up", name, "--address", "172.30.0.10", "--authorized-key", "KEY")


@pytest.mark.parametrize("address", ["172.30.0.0", "172.30.0.1", "172.30.0.255", "172.30.1.2", "10.0.0.1", "x", "::1"])
def test_a_bad_address_is_refused(localvm: Localvm, address: str) -> None:
    complaint = localvm("up", "a", "--address", address, "--authorized-key", "KEY")
    assert address in complaint
    assert "172.30.0.2 ... 172.30.0.254" in complaint


def test_an_unknown_release_is_refused_with_those_known(localvm: Localvm, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        localvm("build", "--release", "potato")
    said = capsys.readouterr().err
    assert "potato" in said
    assert "trixie" in said
    assert "bookworm" in said


def test_a_missing_or_private_or_foreign_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"ssh-keygen -t ed25519 -f \S+/key$"):
        machine.public_key(tmp_path / "key.pub")
    for text, complaint in (
        ("-----BEGIN OPENSSH " + "PRIVATE KEY-----", "private key: give its public half"),
        ("hello", "no SSH public key"),
    ):
        (tmp_path / "key").write_text(text)
        with pytest.raises(Problem, match=complaint):
            machine.public_key(tmp_path / "key")


def test_an_unknown_machine_is_named_among_those_there_are(localvm: Localvm) -> None:
    for command in ("start", "stop", "cut", "ssh"):
        assert "there is no machine a (there are: none)" in localvm(command, "a")


def test_down_does_not_guess(localvm: Localvm) -> None:
    assert "localvm down --all" in localvm("down")


def test_a_full_disk_is_told_before_the_work(tmp_path: Path) -> None:
    common.require_free_space(tmp_path, 0)
    with pytest.raises(Problem, match=rf"{tmp_path} has \d+ MB free and this needs \d+ MB.*localvm prune"):
        common.require_free_space(tmp_path, 2**40)


def route(destination: str, device: str) -> dict[str, str]:
    return {"dst": destination, "dev": device}


def test_a_subnet_in_use_is_found() -> None:
    quiet = [route("default", "eth0"), route("192.0.2.0/24", "eth0"), route("172.30.0.0/24", "fortress0")]
    assert network.overlapping(quiet) is None
    for destination in ("172.30.0.0/24", "172.30.0.0/16", "172.16.0.0/12", "172.30.0.77"):
        taken = route(destination, "docker0")
        assert network.overlapping([*quiet, taken]) == taken


def test_a_firewall_that_would_cut_the_machines_off_is_found() -> None:
    def chain(table: str, **more: str) -> dict[str, dict[str, str]]:
        return {"chain": {"family": "ip", "table": table, "name": "FORWARD", **more}}

    chains = [
        {"metainfo": {"version": "1"}},
        chain("plain"),
        chain("input", hook="input", policy="drop"),
        chain("open", hook="forward", policy="accept"),
        chain("filter", hook="forward", policy="drop"),
    ]
    assert network.firewalls({"nftables": chains}) == ["ip filter"]


def test_the_mirror_is_learnt_from_apt() -> None:
    listing = (
        f"Vendor|http://vendor.test/debian/|bookworm\nDebian|{ARCHIVE}|bookworm\nDebian|{SECURITY}|bookworm-security\n"
    )
    assert mirror.parse_targets(listing) == mirror.Mirrors(ARCHIVE, SECURITY)


def test_before_apt_get_update_an_archive_is_told_by_its_path() -> None:
    listing = f"|http://vendor.test/apt/|bookworm\n|{ARCHIVE}|bookworm\n|{SECURITY}|bookworm-security\n"
    assert mirror.parse_targets(listing) == mirror.Mirrors(ARCHIVE, SECURITY)


def test_archives_a_guest_cannot_use_are_passed_over() -> None:
    listing = "Debian|cdrom://disc/|trixie\nDebian|file:/srv/debian/|trixie\nDebian|http://mirror.test/debian-debug/|trixie-debug\n"
    assert mirror.parse_targets(listing) is None
    assert mirror.parse_targets(f"{listing}Debian|{ARCHIVE}|trixie-updates\n") == mirror.Mirrors(ARCHIVE, None)


def test_a_mirror_list_of_a_cloud_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "debian.list").write_text(f"# by cloud-init\n\n{ARCHIVE}\tpriority:1\n")
    for form in ("mirror+file:", "mirror+file://"):
        assert mirror.resolve_mirror_list(f"{form}{tmp_path}/debian.list/") == ARCHIVE
    assert mirror.resolve_mirror_list(ARCHIVE) == ARCHIVE


def test_the_guests_sources_are_of_its_release_and_signed() -> None:
    sources = mirror.Mirrors(ARCHIVE, SECURITY).sources("trixie")
    assert sources.count("Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg") == 2
    assert f"URIs: {ARCHIVE}\nSuites: trixie trixie-updates\n" in sources
    assert f"URIs: {SECURITY}\nSuites: trixie-security\n" in sources
    assert "security" not in mirror.Mirrors(ARCHIVE, None).sources("trixie")


def test_an_image_is_named_by_what_goes_into_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(image, "HOST_CERTIFICATES", tmp_path)
    mirrors = mirror.Mirrors(ARCHIVE, SECURITY)
    names = [
        image.name("trixie", mirrors),
        image.name("bookworm", mirrors),
        image.name("trixie", mirror.Mirrors("x", None)),
    ]
    (tmp_path / "company.crt").write_text("certificate")
    names.append(image.name("trixie", mirrors))
    monkeypatch.setattr(image, "PACKAGES", [*image.PACKAGES, "vim"])
    names.append(image.name("trixie", mirrors))
    assert len(set(names)) == 5
    assert image.name("trixie", mirrors) == names[-1]


def test_a_proxy_of_the_host_is_the_guests_too() -> None:
    files = machine.proxy_files({"HTTP_PROXY": "http://proxy.test:3128", "no_proxy": ".corp.test"})
    assert files["etc/apt/apt.conf.d/80proxy"] == 'Acquire::http::Proxy "http://proxy.test:3128";\n'
    assert "http_proxy=http://proxy.test:3128\n" in files["etc/environment"]
    assert "no_proxy=.corp.test,localhost,127.0.0.1,::1,172.30.0.0/24\n" in files["etc/environment"]


def test_a_proxy_on_the_hosts_loopback_is_not() -> None:
    assert machine.proxy_files({"http_proxy": "http://localhost:3128", "https_proxy": ""}) == {}
