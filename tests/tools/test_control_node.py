"""tools/control-node: a changed lock is installed, and iris-model and iris-api are commands afterwards."""

from __future__ import annotations

import hashlib
import runpy
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT


def wheel(folder: Path, version: str) -> str:
    """Write a package that holds nothing but its version; return its line of a lock.

    It asks for one that no lock has: what is installed is the lock, whatever an index has by then.
    """
    path = folder / f"tiny-{version}-py3-none-any.whl"
    about = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny.py", f"VERSION = {version!r}\n")
        metadata = f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\nRequires-Dist: released-today[toml]>=1\n"
        file.writestr(f"{about}/METADATA", metadata)
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", "")
    return f"{path} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


PROGRAM = runpy.run_path(str(ROOT / "tools" / "control-node"))
COMMANDS = {"iris-model": "packing/cli.py", "iris-api": "server/command.py"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the program, a lock and an application whose commands tell what they see."""
    folder = tmp_path / "a checkout"
    for name in ("tools", "requirements"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "control-node", folder / "tools")
    package = folder / "app/iris_api/src/iris_api"
    for command, module in COMMANDS.items():
        (package / module).parent.mkdir(parents=True)
        (package / module).write_text(
            f"import sys, tiny\nprint('{command}', tiny.VERSION, *sys.argv[1:])\nsys.exit(3)\n"
        )
    (package / "__init__.py").touch()
    return folder


def control_node(checkout: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "tools" / "control-node"), "control"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def set_up(checkout: Path) -> str:
    done = control_node(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_a_changed_lock_is_installed_if_it_is_what_it_says_and_the_commands_run_by_it(
    checkout: Path, tmp_path: Path
) -> None:
    """Beginning with an environment of another place, which is not touched."""
    elsewhere = tmp_path / "elsewhere"
    # All of pip that is looked at is where it says that it is.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(elsewhere)], check=True)
    (elsewhere / "bin" / "pip").write_text(f"#!{elsewhere}/bin/python\n")
    (checkout / ".venv").symlink_to(elsewhere)
    (tmp_path / "tiny.py").write_text("VERSION = 'of the folder one happens to be in'")
    lock = checkout / "requirements" / "control.txt"
    lock.write_text(wheel(tmp_path, "1.0")[:-5] + "0000\n")
    done = control_node(checkout)
    assert done.returncode == 1
    assert "control-node: pip could not install the packages" in done.stderr
    assert not list((checkout / ".venv").glob(".control-*"))
    # By uv where it is there, and by pip where that fails.
    uv = checkout / ".venv/bin/uv"
    for version, installer in (("1.0", "pip"), ("2.0", "uv")):
        uv.unlink(missing_ok=True)
        if installer == "uv":
            uv.symlink_to(Path(sys.executable).with_name("uv"))
        else:
            uv.write_text("#!/bin/sh\necho 'no route' >&2\nexit 2\n")
            uv.chmod(0o755)
        lock.write_text(wheel(tmp_path, version))
        said = set_up(checkout)
        assert ("uv could not, so pip does it: no route" in said) == (installer == "pip")
        [told] = (checkout / ".venv").rglob(f"tiny-{version}.dist-info/INSTALLER")
        assert told.read_text().strip() == installer
        assert "Installing the Python packages of requirements/control.txt" in said
        assert "Removing .venv" not in said, "although the path of the checkout has a space"
        for command in COMMANDS:
            done = subprocess.run(
                [checkout / ".venv/bin" / command, "a b"], capture_output=True, text=True, check=False, cwd=tmp_path
            )
            assert (done.stdout, done.returncode) == (f"{command} {version} a b\n", 3), done.stderr
    assert not (checkout / ".venv").is_symlink()
    assert not list(elsewhere.rglob("tiny.py")), "an environment of another place is not touched"
    assert (elsewhere / "bin" / "python").exists()
    assert set_up(checkout) == ""
    (checkout / "app/iris_api/src/iris_api/packing/cli.py").write_text("print('changed')\n")
    assert subprocess.run([checkout / ".venv/bin/iris-model"], capture_output=True, check=True).stdout == b"changed\n"


def stamped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the program install nothing in an environment in this folder; return the locks that it would install."""
    installed: list[str] = []
    (folder / ".venv").mkdir()
    (folder / "requirements").mkdir()
    program = PROGRAM["install_venv"].__globals__
    monkeypatch.setitem(program, "ROOT", folder)
    monkeypatch.setitem(program, "VENV", folder / ".venv")
    monkeypatch.setitem(program, "install_lock", lambda _python, lock, _complaint: installed.append(lock.read_text()))
    return installed


def test_a_lock_that_was_installed_before_another_one_is_installed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a checkout of an older revision, and back."""
    installed = stamped(tmp_path, monkeypatch)
    control, test = (tmp_path / "requirements" / f"{name}.txt" for name in ("control", "test"))

    def set_up(lock: Path, revision: str) -> None:
        control.write_text(f"control {revision}")
        test.write_text(f"test {revision}")
        PROGRAM["install_venv"](lock)

    for lock, revision in ((test, "A"), (control, "A"), (control, "B"), (test, "A"), (control, "A"), (test, "A")):
        set_up(lock, revision)
    assert installed == ["test A", "control B", "test A"]
    # A program of before left the stamps of others: by them, both are what was installed last.
    for lock in (control, test):
        installed.clear()
        (tmp_path / ".venv" / ".control-0123456789abcdef").touch()
        set_up(lock, "A")
        set_up(lock, "A")
        assert installed == [lock.read_text()]


def test_an_installation_that_was_cut_short_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the lock of before, to which somebody went back then, was installed as a whole."""
    installed = stamped(tmp_path, monkeypatch)
    lock = tmp_path / "requirements" / "control.txt"
    lock.write_text("A")
    PROGRAM["install_venv"](lock)
    lock.write_text("B")
    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setitem(PROGRAM["install_venv"].__globals__, "install_lock", raises(KeyboardInterrupt))
        PROGRAM["install_venv"](lock)
    lock.write_text("A")
    PROGRAM["install_venv"](lock)
    assert installed == ["A", "A"]


def raises(error: type[BaseException]) -> Callable[..., None]:
    def function(*_: object) -> None:
        raise error

    return function


def test_the_commands_of_another_checkout_are_not_replaced(checkout: Path, tmp_path: Path) -> None:
    """Where .venv is a link to an environment that has the same lock."""
    lock = checkout / "requirements" / "control.txt"
    lock.write_text("# nothing\n")
    other = tmp_path / "other" / ".venv"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "pip").write_text(f"#!{other}/bin/python\n")
    (other / "bin" / "iris-model").write_text("the other's\n")
    (other / f".control-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}").touch()
    (other / "bin" / "python").symlink_to(sys.executable)
    (checkout / ".venv").symlink_to(other)
    done = control_node(checkout)
    assert done.returncode == 1
    assert done.stderr.startswith(f"control-node: {checkout}/.venv is a link to {other}, the environment of another")
    assert done.stderr.endswith(f"rm '{checkout}/.venv', and run this again.\n") and done.stderr.count("\n") == 1
    assert (other / "bin" / "iris-model").read_text() == "the other's\n"
    assert not (other / "bin" / "iris-api").exists()
    # One that was moved, to a larger disk say, is its own.
    (other / "bin" / "pip").write_text(f"#!{checkout}/.venv/bin/python\n")
    set_up(checkout)
    assert (other / "bin" / "iris-api").exists()


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("", {}),
        ("global.index-url='https://a/simple'\n", {"UV_DEFAULT_INDEX": "https://a/simple"}),
        # What the environment says comes first, and wins.
        (":env:.index-url='https://b'\nglobal.index-url='https://a'\n", {"UV_DEFAULT_INDEX": "https://b"}),
        (
            "install.extra-index-url='https://c'\nglobal.cert='/etc/ca.pem'\n",
            {"UV_INDEX": "https://c", "SSL_CERT_FILE": "/etc/ca.pem"},
        ),
    ],
)
def test_uv_asks_the_index_that_pip_asks_and_trusts_as_it_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: str, asked: dict[str, str]
) -> None:
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    pip = tmp_path / "pip"
    pip.write_text(f"#!/bin/sh\nprintf %s {shlex.quote(told)}\n")
    pip.chmod(0o755)
    found = PROGRAM["as_pip_does"]([str(pip)])
    assert {name: found[name] for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "SSL_CERT_FILE") if name in found} == asked
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own")
    assert PROGRAM["as_pip_does"]([str(pip)])["UV_DEFAULT_INDEX"] == "https://own"


def test_a_checkout_that_everybody_may_write_to_is_named_with_the_remedy(checkout: Path) -> None:
    """Ansible would pass over its ansible.cfg."""
    checkout.chmod(0o777)
    done = control_node(checkout)
    assert done.returncode == 1
    assert f"chmod o-w '{checkout}'" in done.stderr
