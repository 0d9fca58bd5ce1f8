"""The gateway in front of every stack: the role's own configuration, on ports of its own and below a folder."""

from __future__ import annotations

import base64
import ctypes
import platform
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from getpass import getuser
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import action_loader, filter_loader
from ansible.template import Templar, trust_as_template
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks import ROOT, environments
from benchmarks.processes import Process

USER = "benchmark"
PASSWORD = secrets.token_urlsafe(24)
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

# The naive stack's front: nginx's own defaults, HTTP/1.0 to a new upstream connection for each request.
NAIVE = """
user www-data;
worker_processes auto;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log;
events {{}}
http {{
    access_log /var/log/nginx/access.log;
    upstream api {{
        {servers}
    }}
    server {{
        listen 127.0.0.1:80;
        return 301 https://$host$request_uri;
    }}
    server {{
        listen 127.0.0.1:443 ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location = /predict {{
            auth_basic "Restricted";
            auth_basic_user_file htpasswd;
            proxy_pass http://api;
        }}
    }}
}}
"""


def start(
    folder: Path,
    ports: tuple[int, int],
    upstreams: list[str],
    path: str,
    *,
    naive: bool,
    settings: Mapping[str, Any] | None = None,
) -> Process:
    """Start nginx on two ports, for https and http, in front of servers that answer at a path.

    Of the role's variables those in `settings` have other values than its defaults.
    """
    folder.mkdir()
    certificate, key = _make_certificate(folder)
    if naive:
        servers = " ".join(f"server {upstream};" for upstream in upstreams)
        text = NAIVE.format(servers=servers, certificate=certificate, key=key)
        files = {"/etc/nginx/nginx.conf": text, "/etc/nginx/htpasswd": f"{USER}:{_bcrypt(PASSWORD)}\n"}
    else:
        files = _render_role(upstreams, certificate, key, settings)
    _adapt(files, folder, ports, path)
    for name, text in files.items():
        target = folder / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    program = environments.debian() / "usr" / "sbin" / "nginx"
    command = [str(program), "-p", str(folder), "-c", "etc/nginx/nginx.conf", "-g", "daemon off;"]
    return Process(command, environments.debian_environ(), folder, folder / "log")


def _render_role(
    upstreams: list[str], certificate: Path, key: Path, settings: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Return the files of roles/nginx by their paths, with its defaults but for the limiter."""
    role = ROOT / "roles" / "nginx"
    loader = DataLoader()
    release = platform.freedesktop_os_release().get("VERSION_ID", "13")
    known: dict[str, Any] = {"ansible_facts": {"distribution": "Debian", "distribution_major_version": release}}
    for part in ("defaults", "vars"):
        known |= loader.load_from_file(str(role / part / "main.yml"), trusted_as_template=True)
    known |= {
        "nginx_server_addresses": ["127.0.0.1"],
        "nginx_listen_addresses": ["127.0.0.1"],
        "nginx_certificate_file": str(certificate),
        "nginx_private_key_file": str(key),
        "nginx_upstreams": upstreams,
        "nginx_grafana_upstream": "",
        "nginx_rate_limit_enabled": False,
        "nginx_basic_auth_users": [{"name": USER, "password": PASSWORD}],
        "nginx_basic_auth_salt": secrets.token_hex(),
        **(settings or {}),
    }
    action_loader.add_directory(str(ROOT / "plugins" / "action"))
    filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
    templar = Templar(loader, known)
    config_tree = action_loader.get("config_tree", class_only=True)
    files: dict[str, str] = config_tree.render_tree(role, templar, known, ["etc/nginx"])
    files["/etc/nginx/fortress.htpasswd"] = str(templar.template(trust_as_template("{{ _nginx_htpasswd }}")))
    return files


def _adapt(files: dict[str, str], folder: Path, ports: tuple[int, int], path: str) -> None:
    """Move what the configuration names to our folder, ports and path."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    https, http = ports
    replacements = {
        "/var/log/nginx/": f"{folder}/",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "user www-data;": f"user {getuser()};",
        "127.0.0.1:443;": f"127.0.0.1:{https};",
        "127.0.0.1:443 ": f"127.0.0.1:{https} ",
        "127.0.0.1:80;": f"127.0.0.1:{http};",
        "127.0.0.1:80 ": f"127.0.0.1:{http} ",
        "location = /predict {": f"location = {path} {{",
        "    /predict  ": f"    {path}  ",
        "http {\n": "http {\n" + "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds),
    }
    for name, text in files.items():
        for old, new in replacements.items():
            text = text.replace(old, new)
        files[name] = text


def _make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a key of the kind that the role pki makes, and a certificate for it."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(private, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    certificate.write_bytes(made.public_bytes(pem))
    key.write_bytes(private.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return certificate, key


def _bcrypt(password: str) -> str:
    """Hash a password as `htpasswd -B` does, by the C library that nginx itself asks."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    salt = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(21)) + "u"
    hashed: bytes = crypt(password.encode(), f"$2y$05${salt}".encode())
    return hashed.decode()
