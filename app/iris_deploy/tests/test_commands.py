"""What is run, asked and written on a host, word for word."""

from __future__ import annotations

from pathlib import Path

import pytest
from iris_deploy import commands
from iris_deploy.commands import Command, Paths, Probe

UNIT = "iris-api@2.service"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (commands.reload_units(), "systemctl daemon-reload"),
        (commands.show(UNIT), f"systemctl show --property=ActiveState,SubState,InvocationID,StatusText {UNIT}"),
        (commands.restart(UNIT), f"systemctl restart --no-block {UNIT}"),
        (commands.stop(UNIT), f"systemctl stop {UNIT}"),
        (commands.kill(UNIT), f"systemctl kill --signal=KILL {UNIT}"),
        (commands.reset_failed(UNIT), f"systemctl reset-failed {UNIT}"),
        (commands.enable("a", "b"), "systemctl enable a b"),
        (commands.enable_now(UNIT), f"systemctl enable --now {UNIT}"),
        (commands.disable("a", "b"), "systemctl disable a b"),
        (commands.disable_now(UNIT), f"systemctl disable --now {UNIT}"),
        (commands.status(UNIT), f"systemctl status --no-pager --lines=0 {UNIT}"),
        (
            commands.journal(UNIT, 1764000000.6),
            f"journalctl --unit={UNIT} --since=@1764000001 --lines=25 --no-pager --output=cat",
        ),
        (commands.sync(Path("/opt/x")), "sync --file-system /opt/x"),
        (
            commands.in_a_unit("iris-deploy-1", "/usr/local/sbin/iris-deploy", "perform", "/run/x.json"),
            "systemd-run --quiet --collect --wait --unit=iris-deploy-1 --property=SyslogIdentifier=iris-deploy "
            "--property=OnFailure=iris-deploy-recover.service "
            "/usr/local/sbin/iris-deploy perform /run/x.json",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_command(command: Command, line: str) -> None:
    assert " ".join(command.argv) == line
    assert (command.environment, command.user, command.timeout) == (None, None, None)


def test_nothing_is_installed_that_the_lock_does_not_name_by_its_hash() -> None:
    release = Path("/opt/iris-api/releases/.r.new")
    assert commands.virtual_environment(release).argv == ("python3", "-m", "venv", "--without-pip", f"{release}/venv")
    wheel = Path("/usr/share/python-wheels/pip-25.1.whl")
    python, pip, *options = commands.pip_install(release, wheel, release / "requirements.txt").argv
    assert (python, pip) == (f"{release}/venv/bin/python3", f"{wheel}/pip")
    assert {"--no-index", "--no-deps", "--require-hashes", f"--find-links={release}/wheels"} <= set(options)
    assert f"--requirement={release}/requirements.txt" in options


def test_a_bundle_from_anywhere_is_not_read_as_root() -> None:
    asked = commands.what_it_takes(Path("/opt/iris-api/releases/r"), {"IRIS_API_ENGINE": "auto"})
    assert asked.argv == ("/opt/iris-api/releases/r/bin/iris-api", "--need")
    assert asked.user == "iris-api"
    assert asked.environment == {"IRIS_API_ENGINE": "auto"}
    assert asked.timeout == 60


def test_probes() -> None:
    assert commands.readiness("127.0.0.1:8001") == Probe("http://127.0.0.1:8001/health/ready")
    assert commands.prediction("[::1]:8002", {"x": 1}) == Probe("http://[::1]:8002/predict", {"x": 1})


def test_the_candidate_runs_as_an_instance_does_but_once_and_away_from_all_traffic() -> None:
    unit = "[Service]\nEnvironmentFile=/instances/%i/iris-api.env\nSyslogIdentifier=iris-api@%i\nRestart=always\n"
    assert commands.candidate_unit(unit, Path("/run/iris-deploy/candidate.env")) == (
        "[Service]\nEnvironmentFile=/instances/candidate/iris-api.env\nSyslogIdentifier=iris-api@candidate\n"
        "Restart=always\n\n[Service]\nRestart=no\nEnvironmentFile=/run/iris-deploy/candidate.env\n"
    )
    assert commands.candidate_environment(45678) == (
        "IRIS_API_INSTANCE=1\nIRIS_API_BASE_PORT=45678\nIRIS_API_BIND_ADDRESS=127.0.0.1\n"
    )


def test_where_things_are_on_a_host() -> None:
    here = Paths()
    assert {str(path) for path in (here.home, here.settings, here.run, here.unit, here.wants, here.proc)} == {
        "/opt/iris-api",
        "/etc/iris-api/deploy.json",
        "/run/iris-deploy",
        "/etc/systemd/system/iris-api@.service",
        "/etc/systemd/system/iris-api.target.wants",
        "/proc",
    }
    assert str(here.candidate_unit) == "/run/systemd/system/iris-api@candidate.service"
    assert str(here.candidate_environment) == "/run/iris-deploy/candidate.env"
