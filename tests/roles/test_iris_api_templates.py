"""What the role iris_api gives an instance: its unit, whose every line has a reason, and settings that it knows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from iris_api.settings import Settings

from tests.controller import render

UNIT = "opt/iris-api/deployment/iris-api@.service"
ENVIRONMENT = "opt/iris-api/deployment/iris-api.env"

SERVICE = {
    "Environment": "IRIS_API_INSTANCE=%i IRIS_API_MODEL_DIR=/opt/iris-api/instances/%i/model",
    "EnvironmentFile": "/opt/iris-api/instances/%i/iris-api.env",
    "ExecStart": "/opt/iris-api/instances/%i/app/bin/iris-api",
    # As root, which asks systemd even where there is no D-Bus.
    "ExecStop": "-+/usr/bin/python3 -I -S /usr/local/lib/fortress/turn.py %n",
    "Group": "iris-api",
    "IPAddressAllow": "localhost",
    "KillMode": "mixed",
    "LimitNOFILE": "8192",
    "MemoryMax": "512M",
    "NotifyAccess": "all",
    "Restart": "always",
    "RestartSec": "2",
    "SyslogIdentifier": "iris-api@%i",
    "TasksMax": "64",
    "TimeoutStartSec": "60",
    "TimeoutStopSec": "20",
    "Type": "notify",
    "User": "iris-api",
    "WatchdogSec": "12",
    "WatchdogSignal": "SIGKILL",
}


def section(name: str, **settings: Any) -> dict[str, str]:
    """Return a section of the unit; values that are given more than once are joined."""
    lines = render("iris_api", UNIT, **settings).splitlines()
    start = lines.index(f"[{name}]") + 1
    end = next((number for number, line in enumerate(lines) if number >= start and line.startswith("[")), len(lines))
    found: dict[str, str] = {}
    for line in lines[start:end]:
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key] = f"{found[key]}|{value}" if key in found else value
    return found


def test_an_instance_is_watched_restarted_and_bounded() -> None:
    """Its sandbox is held by test_sandbox."""
    assert SERVICE.items() <= section("Service").items()


def test_it_never_gives_up_and_belongs_to_the_target() -> None:
    assert section("Unit")["StartLimitIntervalSec"] == "0"
    assert section("Unit")["PartOf"] == section("Install")["WantedBy"] == "iris-api.target"


def test_it_is_stopped_later_than_gunicorn_gives_up_its_requests() -> None:
    assert section("Service", iris_api_graceful_timeout=40)["TimeoutStopSec"] == "45"


@pytest.mark.parametrize("template", [UNIT, ENVIRONMENT])
def test_a_deployment_is_the_same_whatever_the_ports_addresses_and_clients_of_its_host(template: str) -> None:
    release = {"release": {"id": "1.2.0-abc-cp313", "settings": sorted(Settings.model_fields)}}
    host = {
        "iris_api_base_port": 9001,
        "iris_api_bind_address": "192.0.2.7",
        "iris_api_clients": ["192.0.2.8"],
        "iris_api_instances": 7,
    }
    texts = [render("iris_api", template, _iris_api_artifacts=release, **settings) for settings in ({}, host)]
    assert texts[0] == texts[1]


def test_the_host_says_where_instances_listen_and_whom_they_answer() -> None:
    told = json.loads(
        render("iris_api", "etc/iris-api/deploy.json", iris_api_base_port=9001, iris_api_clients=["192.0.2.7"])
    )
    assert (told["base_port"], told["bind_address"], told["clients"]) == (9001, "127.0.0.1", ["192.0.2.7"])


def environment(known: list[str] | None = None, **settings: Any) -> dict[str, str]:
    """Return the variables of an instance whose release knows these settings; None: those of this application."""
    release = {"id": "1.2.0-abc-cp313", "settings": sorted(Settings.model_fields) if known is None else known}
    text = render("iris_api", ENVIRONMENT, _iris_api_artifacts={"release": release}, **settings)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(line.startswith("IRIS_API_") for line in lines), text
    return dict(line.split("=", 1) for line in lines)


def test_the_application_knows_and_takes_every_variable() -> None:
    found = environment(
        iris_api_engine="onnx",
        iris_api_log_level="debug",
        iris_api_request_deadline=3,
        iris_api_max_body_bytes=5000,
        iris_api_max_rows=70,
        iris_api_max_values=800,
        iris_api_max_bytes_in_flight=90000,
        iris_api_graceful_timeout=9,
        iris_api_memory_max="2G",
        iris_api_skops_trusted=["a.B", "c.D"],
    )
    told_by_the_unit = {"IRIS_API_MODEL_DIR": "/m", "IRIS_API_INSTANCE": "2", "IRIS_API_DEPLOYMENT": "x"}
    told_by_the_host = {"IRIS_API_BASE_PORT": "9001", "IRIS_API_BIND_ADDRESS": "192.0.2.7"}
    settings = Settings.from_environ(found | told_by_the_unit | told_by_the_host)
    assert settings.model_dump(exclude={"model_dir", "deployment", "keepalive", "worker_timeout"}, mode="json") == {
        "instance": 2,
        "base_port": 9001,
        "bind_address": "192.0.2.7",
        "engine": "onnx",
        "release": "1.2.0-abc-cp313",
        "memory_max": 2 * 2**30,
        "log_level": "debug",
        "request_deadline": 3,
        "max_body_bytes": 5000,
        "max_rows": 70,
        "max_values": 800,
        "max_bytes_in_flight": 90000,
        "max_batch_rows": 1000,
        "max_waiting_rows": 0,
        "skops_trusted": ["a.B", "c.D"],
        "graceful_timeout": 9,
    }


@pytest.mark.parametrize("size", ["25%", "infinity", "1.5G"])
def test_an_instance_is_not_told_a_bound_that_is_no_number_of_bytes(size: str) -> None:
    assert "IRIS_API_MEMORY_MAX" not in environment(iris_api_memory_max=size)


def test_an_older_release_is_told_what_it_knows() -> None:
    """It would not start with a setting that it doesn't know."""
    found = environment(["log_level", "release"])
    assert found == {"IRIS_API_LOG_LEVEL": "info", "IRIS_API_RELEASE": "1.2.0-abc-cp313"}
