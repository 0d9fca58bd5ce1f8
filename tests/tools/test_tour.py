"""tools/tour and verify.yml ask what is deployed, whatever model that is and whosever certificate the gateway has."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvicorn
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from iris_api.engines.model import Model
from iris_api.server.app import build_app
from iris_api.settings import Settings

from tests import ROOT
from tests.controller import ansible, check_inventory, variable

# A name that no resolver knows: nothing but the address can lead to the server.
DOMAIN = "prediction.example.test"
# With both characters that mean something in curl's configuration.
PASSWORD = 'a"b\\c'
Site = Callable[[str, str], Path]


def certificate(folder: Path, *, name: str | None = None, address: str | None = None) -> Path:
    """Write a key and a certificate, signed by itself, for a name or an address; return the certificate's file."""
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(name)] if name else [x509.IPAddress(ip_address(address or "::1"))]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "own.crt"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "own.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Serve a model over TLS, and write down where as `make converge` does."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def serve(model: str, host: str) -> Path:
        trusted = certificate(tmp_path, name=DOMAIN)
        bundle = ROOT / "models" / model / "1.0.0"
        app = build_app(Settings(model_dir=bundle, instance=2), Model.load(bundle))
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            port = listener.getsockname()[1]
        config = uvicorn.Config(
            app, host, port, ssl_certfile=trusted, ssl_keyfile=tmp_path / "own.key", log_level="error"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        servers.append((server, thread))
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        settings = {
            "FORTRESS_URL": f"https://{DOMAIN}:{port}",
            "FORTRESS_HOST": host,
            "FORTRESS_CA": str(trusted),
            "FORTRESS_USER": "iris",
            "FORTRESS_PASSWORD": PASSWORD,
        }
        file = tmp_path / "fortress.env"
        file.write_text("".join(f"export {name}='{value}'\n" for name, value in settings.items()))
        return file

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join()


def tour(what: str, settings: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "tools" / "tour", what, settings], cwd="/", capture_output=True, text=True, check=False, timeout=60
    )


def golden(model: str) -> dict[str, object]:
    manifest = json.loads((ROOT / "models" / model / "1.0.0" / "manifest.json").read_text())
    return dict(manifest["golden_samples"][0])


@pytest.mark.parametrize(("model", "host"), [("iris", "127.0.0.1"), ("diabetes", "127.0.0.1"), ("wine", "::1")])
def test_it_asks_a_golden_sample_of_whatever_is_served(site: Site, model: str, host: str) -> None:
    settings = site(model, host)
    example = tour("example", settings)
    assert json.loads(example.stdout) == golden(model)["input"], example.stderr
    answer = json.loads(tour("predict", settings).stdout)
    assert answer["prediction"] == pytest.approx(golden(model)["prediction"], rel=1e-6)
    assert answer["model"] == model


def test_flood_and_balance_count_answers_to_it(site: Site) -> None:
    settings = site("diabetes", "127.0.0.1")
    # This server limits nobody; a row of another model would be answered by 422.
    assert tour("flood", settings).stdout.splitlines()[1:] == ["  200  20 times"]
    assert tour("balance", settings).stdout.splitlines()[1:] == ["  iris-api@2  30 times"]


def test_another_certificate_is_not_taken(site: Site, tmp_path: Path) -> None:
    settings = site("iris", "127.0.0.1")
    certificate(tmp_path, name=DOMAIN)
    done = tour("predict", settings)
    assert done.returncode == 1
    assert "curl: (60) SSL certificate problem" in done.stderr
    assert f"is checked by {tmp_path}/own.crt, which fortress_ca_file sets" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """One host, whose passwords were made."""
    folder = Path(shutil.copytree(ROOT / "inventory" / "example", tmp_path / "prod"))
    (folder / "secrets" / "users").mkdir(parents=True)
    (folder / "secrets" / "grafana").mkdir()
    for name in ("users/iris", "grafana/admin"):
        (folder / "secrets" / name).write_text("x" * 32 + "\n")
    return folder


def handed_over(inventory: Path, **variables: str) -> dict[str, str]:
    """Run the end of site.yml; return what the settings for curl are."""
    done = ansible(
        "ansible-playbook", "-i", str(inventory), "playbooks/handover.yml", "--extra-vars", json.dumps(variables)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    file = inventory / "secrets" / "fortress.env"
    shell = f"set -a; . {file}; exec {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    shown = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    return dict(json.loads(shown.stdout))


@pytest.mark.parametrize(
    ("variables", "url", "ca"),
    [
        ({}, "https://192.0.2.1", "{secrets}/pki/ca.crt"),
        ({"fortress_address": "2001:db8::1"}, "https://[2001:db8::1]", "{secrets}/pki/ca.crt"),
        ({"pki_certificate_file": "own.crt"}, f"https://{DOMAIN}", "/etc/ssl/certs/ca-certificates.crt"),
        (
            {"pki_certificate_file": "own.crt", "fortress_ca_file": "/etc/company.crt"},
            f"https://{DOMAIN}",
            "/etc/company.crt",
        ),
        ({"fortress_ca_file": "/etc/company.crt"}, "https://192.0.2.1", "/etc/company.crt"),
    ],
)
def test_url_and_authority_are_those_of_the_certificate(
    inventory: Path, variables: dict[str, str], url: str, ca: str
) -> None:
    settings = handed_over(inventory, **{"fortress_address": "192.0.2.1", "fortress_domain": DOMAIN} | variables)
    assert settings["FORTRESS_URL"] == url
    assert settings["FORTRESS_CA"] == ca.format(secrets=inventory / "secrets")


@pytest.mark.parametrize(
    ("address", "url"), [("192.0.2.1", "http://192.0.2.1:9999"), ("2001:db8::1", "http://[2001:db8::1]:9999")]
)
def test_prometheus_is_linked_to_at_its_own_port(inventory: Path, address: str, url: str) -> None:
    (inventory / "group_vars" / "all.yml").write_text(
        f"fortress_prometheus_port: 9999\nfortress_address: '{address}'\n"
    )
    assert handed_over(inventory)["FORTRESS_PROMETHEUS"] == url
    links = tour("links", inventory / "secrets" / "fortress.env").stdout
    assert f"Prometheus     {url}/classic/graph" in links
    assert f"Overview       {url}/consoles/overview.html" in links


def test_an_authority_that_is_no_file_is_refused(inventory: Path) -> None:
    done = check_inventory(inventory, "-e", "fortress_ca_file=/nowhere/ca.crt")
    assert done.returncode != 0
    assert "fortress_ca_file is /nowhere/ca.crt, which is no file on this machine" in " ".join(done.stdout.split())


def test_verify_asks_as_the_tour_does(site: Site, inventory: Path) -> None:
    """The command line that verify.yml runs, with a row and a password, gets the answer."""
    settings = dict(
        line.removeprefix("export ").split("=", 1) for line in site("wine", "127.0.0.1").read_text().splitlines()
    )
    (inventory / "group_vars" / "all.yml").write_text(
        json.dumps(
            {
                "fortress_address": "127.0.0.1",
                "fortress_domain": DOMAIN,
                "pki_certificate_file": "own.crt",
                "fortress_ca_file": settings["FORTRESS_CA"].strip("'"),
            }
        )
    )
    command = [yaml.safe_load(line.strip())[0] for line in variable(inventory, "_fortress_curl").splitlines()]
    given = {"user": f"iris:{PASSWORD}", "data": json.dumps(golden("wine")["input"])}
    stdin = "".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items())
    done = subprocess.run(
        [*command, settings["FORTRESS_URL"].strip("'") + "/predict"],
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["prediction"] == golden("wine")["prediction"]
