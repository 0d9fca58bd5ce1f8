"""The certificate, and how a connection is encrypted."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests import ROOT
from tests.blackbox.gateway import Gateway
from tests.blackbox.paced import paced

SUITES = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]
WEAK = [
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA384",
    "AES128-GCM-SHA256",
    "AES128-SHA",
    "DHE-RSA-AES128-GCM-SHA256",
]


def certificate(gateway: Gateway) -> x509.Certificate:
    with gateway.connect_tls() as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


def permissive(gateway: Gateway) -> ssl.SSLContext:
    """A client that would accept what no client should."""
    context = gateway.trust()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def test_clients_that_trust_the_ca_connect_by_address_and_by_name(gateway: Gateway) -> None:
    for name in (None, gateway.domain):
        with gateway.connect_tls(name) as connection:
            assert connection.version() == "TLSv1.3"


def test_the_certificate_names_what_clients_ask_for(gateway: Gateway) -> None:
    """The original's had a common name only, which no client has read for years."""
    names = certificate(gateway).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert gateway.domain in names.get_values_for_type(x509.DNSName)
    assert ipaddress.ip_address(gateway.host) in names.get_values_for_type(x509.IPAddress)


def test_the_certificate_is_one_that_browsers_take(gateway: Gateway) -> None:
    leaf = certificate(gateway)
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= datetime.timedelta(days=366)
    assert leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > datetime.timedelta(days=14)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert leaf.issuer != leaf.subject


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=lambda version: version.name)
def test_old_tls_is_refused(gateway: Gateway, version: ssl.TLSVersion) -> None:
    context = permissive(gateway)
    context.minimum_version = context.maximum_version = version
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        gateway.connect_tls(context=context)


@pytest.mark.parametrize("suite", SUITES)
def test_tls_1_2_works_with_each_good_suite(gateway: Gateway, suite: str) -> None:
    context = gateway.trust()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)
    with gateway.connect_tls(context=context) as connection:
        assert (connection.cipher() or [""])[0] == suite


@pytest.mark.parametrize("suite", WEAK)
def test_weak_suites_are_refused(gateway: Gateway, suite: str) -> None:
    context = permissive(gateway)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{suite}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        gateway.connect_tls(context=context)


def test_sslyze_finds_it_compliant_with_mozillas_intermediate_profile(gateway: Gateway) -> None:
    """Versions, suites, curves, the certificate's key and life, and the known attacks."""
    python = ROOT / ".cache" / "sslyze" / "bin" / "python"
    if not python.exists():
        pytest.skip("there is no .cache/sslyze: `make tests-venv` installs it")
    with paced(gateway) as port:
        command = [str(python), "-m", "sslyze", "--mozilla_config=intermediate", f"--certinfo_ca_file={gateway.ca}"]
        command += [f"--sni={gateway.domain}", f"127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    verdict = done.stdout[done.stdout.find("COMPLIANCE AGAINST") :]
    assert done.returncode == 0, verdict
    assert f"127.0.0.1:{port}: OK - Compliant." in verdict


def test_http_2_is_agreed_upon(gateway: Gateway) -> None:
    with gateway.connect_tls(None, "h2", "http/1.1") as connection:
        assert connection.selected_alpn_protocol() == "h2"


def test_a_foreign_name_is_shown_no_certificate(gateway: Gateway) -> None:
    context = gateway.trust()
    context.check_hostname = False
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        gateway.connect_tls("evil.example", context=context)
