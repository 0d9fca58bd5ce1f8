"""The certificate: made, kept, renewed, or refused, by runs of the role against this machine in a throw-away folder."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from tests import ROOT
from tests.controller import ansible

NAME = "iris.fortress.test"
NOW = datetime.datetime.now(datetime.UTC)

Issue = Callable[..., subprocess.CompletedProcess[str]]


def run_role(folder: Path, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the role with a folder's secrets/, and with its host/ in place of the host."""
    settings = {
        "ansible_python_interpreter": sys.executable,
        "pki_secrets_dir": str(folder / "secrets"),
        "_pki_packages": [],
        "pki_metrics_file": str(folder / "host" / "certificate.prom"),
        "_pki_certificate_target": str(folder / "host" / "fullchain.pem"),
        "_pki_key_target": str(folder / "host" / "privkey.pem"),
    }
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": ["pki"]}
    (folder / "play.yml").write_text(json.dumps([play]))
    arguments = ("-i", "localhost,", "play.yml", "--extra-vars", json.dumps(settings | variables), *options)
    return ansible("ansible-playbook", *arguments, cwd=folder)


@pytest.fixture
def issue(tmp_path: Path) -> Issue:
    """Run the role in the test's own folder, on a fresh control node and a fresh host."""
    return partial(run_role, tmp_path)


@pytest.fixture(scope="module")
def after_a_first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the role has run once; not to be changed."""
    folder = tmp_path_factory.mktemp("issued")
    assert changed(run_role(folder)) > 0
    return folder


@pytest.fixture
def reissue(after_a_first_run: Path, tmp_path: Path) -> Issue:
    """Run the role once more, where it has run with its defaults before."""
    shutil.copytree(after_a_first_run, tmp_path, dirs_exist_ok=True)
    return partial(run_role, tmp_path)


def changed(done: subprocess.CompletedProcess[str]) -> int:
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.findall(r"changed=(\d+)", done.stdout)[0])


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    return " ".join((done.stdout + done.stderr).split())


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


class Given:
    """A certificate as a user might bring it: key, chain, file names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.issuer_key = ec.generate_private_key(ec.SECP256R1())

    def certificate(self, subject: str, issuer: str, *names: str, days: int = 90) -> bytes:
        own = self.issuer_key if subject == issuer else self.key
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(own.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(days=100))
            .not_valid_after(NOW + datetime.timedelta(days=days))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names or (NAME,)]), critical=False
            )
        )
        return builder.sign(self.issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def files(self, *chain: bytes, key: ec.EllipticCurvePrivateKey | None = None) -> dict[str, str]:
        pem = (key or self.key).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.count += 1
        certificate_file, key_file = self.folder / f"given{self.count}.crt", self.folder / f"given{self.count}.key"
        certificate_file.write_bytes(b"".join(chain))
        key_file.write_bytes(pem)
        return {"pki_certificate_file": str(certificate_file), "pki_private_key_file": str(key_file)}


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


def test_a_browser_would_take_the_certificate_and_a_second_run_keeps_it(issue: Issue, tmp_path: Path) -> None:
    assert changed(issue(pki_ip_addresses=["172.30.0.10", "2001:db8::7"])) > 0
    leaf, authority = load(tmp_path / "host" / "fullchain.pem"), load(tmp_path / "secrets" / "ca.crt")
    verifier = PolicyBuilder().store(Store([authority])).build_server_verifier(x509.DNSName(NAME))
    assert verifier.verify(leaf, [])[-1] == authority
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["172.30.0.10", "2001:db8::7"]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= datetime.timedelta(days=366)
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)

    assert changed(issue(pki_ip_addresses=["172.30.0.10", "2001:db8::7"])) == 0
    assert changed(issue("--check", pki_ip_addresses=["172.30.0.10", "2001:db8::7"])) == 0


def test_keys_are_readable_by_their_owner_alone(after_a_first_run: Path) -> None:
    keys = [*(after_a_first_run / "secrets").rglob("*.key"), after_a_first_run / "host" / "privkey.pem"]
    assert len(keys) == 3
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert (after_a_first_run / "secrets").stat().st_mode & 0o777 == 0o700


def test_check_mode_on_a_fresh_control_node_says_what_it_would_do_and_does_nothing(
    issue: Issue, tmp_path: Path
) -> None:
    done = issue("--check")
    assert changed(done) == 1
    assert f"Would issue a certificate for DNS:{NAME}" in " ".join(done.stdout.split())
    assert not (tmp_path / "secrets").exists()
    assert not (tmp_path / "host").exists()


def test_a_new_name_or_a_near_end_renews_the_certificate_and_keeps_the_ca(issue: Issue, tmp_path: Path) -> None:
    issue(pki_validity_days=40)
    authority, first = load(tmp_path / "secrets" / "ca.crt"), load(tmp_path / "host" / "fullchain.pem")
    assert changed(issue(pki_validity_days=40)) == 0, "40 days are left, a third of them is enough"
    assert changed(issue(pki_renew_before_days=30)) == 0

    assert changed(issue(pki_renew_before_days=41)) > 0
    renewed = load(tmp_path / "host" / "fullchain.pem")
    assert renewed.not_valid_after_utc > first.not_valid_after_utc + datetime.timedelta(days=300)

    assert changed(issue(pki_dns_names=[NAME, "also.fortress.test"])) > 0
    names = load(tmp_path / "host" / "fullchain.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [NAME, "also.fortress.test"]
    assert load(tmp_path / "secrets" / "ca.crt") == authority


def test_one_that_was_issued_for_longer_is_replaced(reissue: Issue, tmp_path: Path) -> None:
    """Up to release 1.0.0 it was valid for 397 days; Mozilla's guideline asks for 366 at most."""
    first = load(tmp_path / "host" / "fullchain.pem")
    assert changed(reissue(pki_validity_days=364)) > 0
    second = load(tmp_path / "host" / "fullchain.pem")
    assert second.not_valid_after_utc < first.not_valid_after_utc
    assert "valid for 366 days at most" in refusal(reissue(pki_validity_days=367))


def test_the_dates_are_where_the_exporter_reads_them(after_a_first_run: Path) -> None:
    host, secrets = after_a_first_run / "host", after_a_first_run / "secrets"
    text = (host / "certificate.prom").read_text()
    for kind, path in (("gateway", host / "fullchain.pem"), ("ca", secrets / "ca.crt")):
        end = load(path).not_valid_after_utc.timestamp()
        assert f'fortress_certificate_not_after_seconds{{certificate="{kind}"}} {end:.0f}\n' in text


def test_a_ca_and_a_certificate_that_begin_in_the_future_are_issued_anew(reissue: Issue, tmp_path: Path) -> None:
    """A control node whose clock was two years ahead issued them; the CA keeps its key."""
    secrets = tmp_path / "secrets"
    key = serialization.load_pem_private_key((secrets / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    for path in (secrets / "ca.crt", next((secrets / "hosts").glob("*.crt"))):
        path.write_bytes(moved(load(path), key, datetime.timedelta(days=700)))
    early = load(secrets / "ca.crt")
    done = reissue()
    assert changed(done) > 0
    assert "was issued by a clock that was ahead" in " ".join(done.stdout.split())
    leaf, authority = load(tmp_path / "host" / "fullchain.pem"), load(secrets / "ca.crt")
    assert authority.public_key() == early.public_key()
    for certificate in (leaf, authority):
        assert certificate.not_valid_before_utc <= NOW + datetime.timedelta(minutes=5)
    verifier = PolicyBuilder().store(Store([authority])).build_server_verifier(x509.DNSName(NAME))
    assert verifier.verify(leaf, [])
    assert changed(reissue()) == 0

    (secrets / "ca.crt").write_bytes(moved(authority, key, datetime.timedelta(days=700)))
    (secrets / "ca.key").unlink()
    assert "now is" in refusal(reissue())


def moved(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, later: datetime.timedelta) -> bytes:
    """Return a certificate as it would have been issued so much later."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.issuer)
        .public_key(certificate.public_key())
        .serial_number(certificate.serial_number)
        .not_valid_before(certificate.not_valid_before_utc + later)
        .not_valid_after(certificate.not_valid_after_utc + later)
    )
    for extension in certificate.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_certificate_can_be_renewed_before_its_time_with_a_new_key(reissue: Issue, tmp_path: Path) -> None:
    authority, first = load(tmp_path / "secrets" / "ca.crt"), load(tmp_path / "host" / "fullchain.pem")
    assert changed(reissue(pki_renew_now=True)) > 0
    renewed = load(tmp_path / "host" / "fullchain.pem")
    assert renewed.serial_number != first.serial_number
    assert renewed.public_key() != first.public_key()
    renewed.verify_directly_issued_by(authority)
    assert load(tmp_path / "secrets" / "ca.crt") == authority
    assert changed(reissue()) == 0


def test_a_renewal_that_was_cut_short_is_made_good_by_the_next_run(reissue: Issue, tmp_path: Path) -> None:
    """The new key is written first: for a moment it does not belong to the certificate beside it."""
    [key] = (tmp_path / "secrets" / "hosts").glob("*.key")
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    assert changed(reissue()) > 0
    served = load(tmp_path / "host" / "fullchain.pem").public_key()
    assert served == serialization.load_pem_private_key(key.read_bytes(), None).public_key()


@pytest.mark.parametrize(("days", "warned"), [(364, True), (420, False)])
def test_the_end_of_the_ca_is_told_long_before_and_no_certificate_outlives_it(
    reissue: Issue, tmp_path: Path, days: int, warned: bool
) -> None:
    key = serialization.load_pem_private_key((tmp_path / "secrets" / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    old = load(tmp_path / "secrets" / "ca.crt")
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(old.serial_number)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(NOW + datetime.timedelta(days=days))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    authority = builder.sign(key, hashes.SHA256())
    (tmp_path / "secrets" / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))

    done = reissue(pki_renew_now=True)
    assert changed(done) > 0
    assert ("Choose a day on which all clients can be given a new ca.crt" in " ".join(done.stdout.split())) is warned
    leaf = load(tmp_path / "host" / "fullchain.pem")
    assert leaf.not_valid_after_utc <= authority.not_valid_after_utc
    assert changed(reissue()) == 0


def test_a_new_ca_signs_anew_and_a_ca_without_its_key_is_refused(reissue: Issue, tmp_path: Path) -> None:
    for file in (tmp_path / "secrets").glob("ca.*"):
        file.unlink()
    assert changed(reissue()) > 0
    load(tmp_path / "host" / "fullchain.pem").verify_directly_issued_by(load(tmp_path / "secrets" / "ca.crt"))

    (tmp_path / "secrets" / "ca.key").unlink()
    assert changed(reissue()) == 0, "nothing has to be signed, so the key may be kept elsewhere"
    assert "ca.key is missing. Put the key there" in refusal(reissue(pki_dns_names=["other.fortress.test"]))


def test_keys_that_ansible_vault_has_encrypted_are_used_as_they_are(reissue: Issue, tmp_path: Path) -> None:
    password = tmp_path / "vault"
    password.write_text("a password of Vault")
    options = ("--vault-password-file", str(password))
    authority, [host_key] = load(tmp_path / "secrets" / "ca.crt"), (tmp_path / "secrets" / "hosts").glob("*.key")
    encrypted = tmp_path / "secrets" / "ca.key"
    command = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt", *options, str(encrypted), str(host_key)]
    subprocess.run(command, check=True, capture_output=True)
    before = encrypted.read_text()
    assert changed(reissue(*options)) == 0
    done = reissue(*options, "-vvv", "--diff", pki_renew_now=True)
    assert changed(done) > 0
    load(tmp_path / "host" / "fullchain.pem").verify_directly_issued_by(authority)
    assert encrypted.read_text() == before
    assert "PRIVATE KEY" not in done.stdout
    (tmp_path / "secrets" / "ca.crt").unlink()
    assert changed(reissue(*options)) > 0
    assert encrypted.read_text() == before, "the CA's certificate is made anew from its key"
    assert load(tmp_path / "secrets" / "ca.crt").public_key() == authority.public_key()


def test_a_ca_may_be_limited_to_names(issue: Issue, tmp_path: Path) -> None:
    issue(pki_ca_permitted_names=["DNS:fortress.test", "IP:172.30.0.0/24"])
    authority = load(tmp_path / "secrets" / "ca.crt")
    limits = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert [str(name.value) for name in limits.value.permitted_subtrees or []] == ["fortress.test", "172.30.0.0/24"]


def test_a_certificate_of_ones_own_is_taken_with_its_chain(issue: Issue, given: Given, tmp_path: Path) -> None:
    chain = (given.certificate("leaf", "ca", "*.fortress.test"), given.certificate("ca", "ca"))
    files = given.files(*chain)
    assert changed(issue(**files)) > 0
    assert (tmp_path / "host" / "fullchain.pem").read_bytes() == b"".join(chain)
    dates = (tmp_path / "host" / "certificate.prom").read_text()
    assert 'certificate="gateway"' in dates
    assert 'certificate="ca"' not in dates
    assert not (tmp_path / "secrets").exists()
    assert changed(issue(**files)) == 0


def test_a_certificate_of_ones_own_that_would_not_work_is_refused_with_the_reason(
    preflights: Callable[..., list[str]], given: Given, tmp_path: Path
) -> None:
    leaf, authority = given.certificate("leaf", "ca"), given.certificate("ca", "ca")
    other_key = ec.generate_private_key(ec.SECP256R1())
    reasons: list[tuple[dict[str, str], str]] = [
        (given.files(leaf, key=other_key), "does not belong to the key"),
        (given.files(authority, leaf), "does not belong to the key"),
        (given.files(leaf, given.certificate("x", "y")), "is not followed by its chain in order"),
        (given.files(given.certificate("leaf", "ca", days=-1)), "is valid from"),
        (given.files(given.certificate("leaf", "ca", "other.test")), f"is for DNS:other.test, not for {NAME}"),
        (given.files(b"no certificate"), "must be a file on the control node that holds a certificate"),
        ({"pki_certificate_file": str(tmp_path / "given1.crt")}, "give both or none"),
    ]
    every = preflights(
        "pki",
        *(files for files, _ in reasons),
        ansible_python_interpreter=sys.executable,
        pki_secrets_dir=str(tmp_path / "secrets"),
    )
    for (_, reason), said in zip(reasons, every, strict=True):
        assert reason in said


def test_no_key_no_password_file_and_no_certificate_is_committed() -> None:
    """Dozens of copies of the original carry its TLS key and its .htpasswd."""

    def git(*arguments: str) -> list[str]:
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout.splitlines()

    suffixes = (".pem", ".key", ".crt", ".p12", "htpasswd", "id_ed25519", "id_rsa")
    assert [path for path in git("ls-files") if path.endswith(suffixes)] == []
    assert git("grep", "--files-with-matches", "-E", "^-----BEGIN [A-Z ]*(PRIVATE KEY|CERTIFICATE)-----$") == []
    assert git("grep", "--files-with-matches", "-E", r"^[A-Za-z0-9._-]+:(\{SSHA\}|\$apr1\$|\$6\$|\$2[aby]\$)") == []
