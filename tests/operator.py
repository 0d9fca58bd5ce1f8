"""What an operator does: runs the project's playbooks, with models and applications that are broken on purpose too."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testinfra.host import Host

from tests import ROOT
from tests.controller import ansible, environment

PLAYBOOK = str(ROOT / ".venv" / "bin" / "ansible-playbook")

# Put in front of the last line of create_app(): after the golden samples were answered, before the first request.
# (No import of asyncio: it would make the name local to create_app(), which then would not start at all.)
HANGS = """
    async def hang(scope, receive, send):
        await (asyncio.sleep(3600) if scope["type"] == "http" else app(scope, receive, send))

    return hang
"""
ANSWERS_500 = """
    async def fail(scope, receive, send):
        if scope["type"] == "http":
            raise RuntimeError("broken on purpose")
        await app(scope, receive, send)

    return fail
"""
DOES_NOT_START = """
    raise RuntimeError("broken on purpose")
"""
SECOND_INSTANCE_DOES_NOT_START = """
    if settings.instance == 2:
        raise RuntimeError("broken on purpose")
"""


def play(inventory: str, playbook: str, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the project on a host to its end, with extra variables; stdout has all that it said.

    Of several hosts it would do each task for one after the other: `make` does it for all of them at once.
    """
    source = str(Path(inventory).absolute())
    done = ansible("ansible-playbook", "-i", source, playbook, *options, "--extra-vars", json.dumps(variables))
    done.stdout += done.stderr
    return done


def make(command: str, inventory: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command of make's as it stands on a page, for another inventory and with options of Ansible's."""
    program, *words = shlex.split(command)
    assert program == "make"
    source = Path(inventory).absolute()
    playbook = shlex.join([".venv/bin/ansible-playbook", "-i", str(source), *options])
    targets = [word for word in words if not word.startswith("INVENTORY=")]
    # The control node is set up: these tests run on it.
    own = ["--old-file=control", f"INVENTORY={os.path.relpath(source, ROOT / 'inventory')}", f"PLAYBOOK={playbook}"]
    # Molecule may have been started by make, whose options are not meant here.
    variables = {name: value for name, value in environment().items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *own, *targets], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )


def types(command: str, inventory: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a page on the control node, with $INVENTORY in it, and with options of Ansible's."""
    playbook = ".venv/bin/ansible-playbook "
    command = command.replace(playbook, f"{PLAYBOOK} {shlex.join(options)} ")
    variables = environment() | {"INVENTORY": str(Path(inventory).absolute())}
    return subprocess.run(["sh", "-c", command], cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


def play_and_lose_the_control_node(inventory: str, playbook: str, task: str, **variables: Any) -> None:
    """Run a playbook, and kill all of the control node's part in it when it comes to a task."""
    command = [PLAYBOOK, "-i", str(Path(inventory).absolute()), playbook, "--extra-vars", json.dumps(variables)]
    killed = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert killed.stdout is not None
    try:
        reached = any(task in line for line in killed.stdout)
    finally:
        subprocess.run(["pkill", "--signal", "KILL", "--session", str(killed.pid)], check=False)
        killed.stdout.close()
        killed.wait()
    assert reached, f"it never came to {task}"
    assert killed.returncode == -signal.SIGKILL, "it was over before it was cut off"


def deploy(inventory: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `make deploy`'s playbook."""
    return play(inventory, "playbooks/deploy.yml", *options)


def deploy_and_lose_the_control_node(host: Host, inventory: str, model: str, *options: str) -> None:
    """Deploy a model, and kill all of the control node's part in it as soon as the first instance has the model."""
    command = [PLAYBOOK, "-i", inventory, "playbooks/deploy.yml", "-e", f"fortress_model_name={model}", *options]
    killed = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(600):
            if ready(host, 1).get("model") == model:
                break
            time.sleep(0.2)
        assert ready(host, 3)["model"] != model, "it was over before it was cut off"
    finally:
        # Ansible's ssh master is in a session of its own and stays; what ran over it is cut off.
        subprocess.run(["pkill", "--signal", "KILL", "--session", str(killed.pid)], check=False)
        killed.wait()
    assert killed.returncode == -signal.SIGKILL


def rollback(inventory: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `make rollback`'s playbook."""
    return play(inventory, "playbooks/rollback.yml", *options)


def pack(folder: Path, name: str, *options: str) -> None:
    """Pack the model NAME.joblib of a folder, with the sample NAME.parquet, into its folder `models`."""
    command = [sys.executable, "-m", "iris_api.packing.cli", "pack", f"{name}.joblib", f"{name}.parquet", *options]
    command += ["--name", name, "--version", "1.0.0", "--target", "kind", "--models-dir", "models"]
    variables = os.environ | {"PYTHONPATH": str(ROOT / "app" / "iris_api" / "src")}
    subprocess.run(command, cwd=folder, env=variables, check=True)


def broken_app(folder: Path, defect: str) -> list[str]:
    """Copy the application with a defect in it; return the options that deploy the copy."""
    for name in ("app", "tools", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".cache").symlink_to(ROOT / ".cache")
    main = folder / "app" / "iris_api" / "src" / "iris_api" / "server" / "app.py"
    before, last = main.read_text().rsplit("    return app\n", 1)
    main.write_text(f"{before}{defect}    return app\n{last}")
    return ["-e", f"iris_api_release_builder={folder / 'tools' / 'build-release'}"]


def broken_model(folder: Path, change: Callable[[Path], object]) -> list[str]:
    """Copy the models with a defect in the default one; return the options that deploy the copy."""
    models = Path(shutil.copytree(ROOT / "models", folder / "models"))
    change(models / "iris" / "1.0.0")
    return ["-e", f"iris_api_models_dir={models}"]


def damaged_model(folder: Path) -> list[str]:
    """Damage the default model on its way: behind the builder's back, which would refuse it."""
    options = broken_app(folder, "")
    builder = folder / "tools" / "build-release"
    whole = "def write_archive(archive: Path, members: dict[str, bytes]) -> None:\n"
    text = builder.read_text()
    assert whole in text
    damage = "    members = {name: content + b'x' * name.startswith('model.') for name, content in members.items()}\n"
    doc = text.index('"""\n', text.index(whole)) + 4
    builder.write_text(text[:doc] + damage + text[doc:])
    # What is in the cache already would not be packed again.
    return [*options, *broken_model(folder, lambda bundle: (bundle / "MODEL_CARD.md").write_text("damaged"))]


def take_more_memory(bundle: Path, times: int = 1) -> None:
    """Raise the manifest's costs to 1.3 GB by ONNX Runtime and 454 MB by scikit-learn, or so many times that."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    costs = {
        engine: {"call_us": 9, "row_us": 1, "memory_mb": size * times}
        for engine, size in (("onnx", 1300), ("sklearn", 454))
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"format": 3, "costs": costs}))


def promise_another_answer(bundle: Path) -> None:
    """Change the golden samples to what the model does not answer."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["golden_samples"][0]["probabilities"] = [0.2, 0.3, 0.5]
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def ready(host: Host, instance: int) -> dict[str, Any]:
    """Return what an instance says of itself; nothing where it is not ready."""
    text = host.run(f"curl --silent --max-time 2 http://127.0.0.1:{8000 + instance}/health/ready").stdout
    return dict(json.loads(text)) if text.startswith("{") else {}


def history(host: Host) -> list[dict[str, Any]]:
    """Return the host's history, the oldest event first."""
    return [json.loads(line) for line in host.file("/opt/iris-api/history.jsonl").content_string.splitlines()]


def main_pids(host: Host) -> list[str]:
    """Return the process ids of the three instances."""
    return [host.run(f"systemctl show iris-api@{n} -p MainPID --value").stdout.strip() for n in (1, 2, 3)]
