"""Models of other libraries, and one with own code, are served in environments of their own beside the release."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from testinfra.host import Host

from tests import ROOT, operator
from tests.operator import deploy, history, ready, rollback

testinfra_hosts = ["ansible://api"]

FEATURES = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin


class Ratio(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        X = np.asarray(X)
        return np.c_[X, X[:, :1] / (1 + X[:, 1:] ** 2)]
"""
TRAIN = """
import joblib
import numpy as np
import pandas as pd
from features import Ratio
from lightgbm import LGBMClassifier
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from xgboost import XGBClassifier

rows, classes = load_iris(return_X_y=True)
rows = rows[:, 2:]
boosted = make_pipeline(Ratio(), XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1))
joblib.dump(boosted.fit(rows, classes), "boosted.joblib")
frame = pd.DataFrame(rows, columns=["length", "width"]).assign(kind=classes)
frame.to_parquet("boosted.parquet")
frame["place"] = pd.Categorical(np.where(np.arange(len(rows)) % 3 > 0, "north", "south"))
frame.loc[::7, "width"] = np.nan
frame.to_parquet("mixed.parquet")
mixed = LGBMClassifier(n_estimators=5, num_leaves=5, n_jobs=1, verbose=-1)
joblib.dump(mixed.fit(frame[["length", "width", "place"]], classes), "mixed.joblib")
"""
PACKED = ROOT / "build" / "environments"
# What an environment may take on the disk, with its wheels: less than what of it the release has. Pandas comes with a
# table of mixed columns.
MOST_MB = {"boosted": 60, "mixed": 150}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles as a data scientist packs them, each with its environment; packed once for both sites of `make test`."""
    files = [Path(__file__), *(ROOT / "app" / "iris_api" / "src").rglob("*.py"), ROOT / "requirements" / "test.txt"]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()[:16]
    PACKED.mkdir(parents=True, exist_ok=True)
    folder = PACKED / state
    with (PACKED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            new = tmp_path_factory.mktemp("packed")
            pack(new)
            shutil.copytree(new / "models", f"{folder}.new", dirs_exist_ok=True)
            Path(f"{folder}.new").rename(folder)
    # Tests change them.
    return Path(shutil.copytree(folder, tmp_path_factory.mktemp("models") / "models"))


def pack(folder: Path) -> None:
    """Train the models in a folder, and pack each."""
    (folder / "features.py").write_text(FEATURES)
    (folder / "train.py").write_text(TRAIN)
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True)
    for name in MOST_MB:
        options = ["--code", "features.py"] if name == "boosted" else []
        operator.pack(folder, name, "--no-onnx", *options)


def interpreter(host: Host, instance: int) -> str:
    """Return the program of an instance's main process, as its command line names it."""
    pid = host.check_output(f"systemctl show --property=MainPID --value iris-api@{instance}")
    return str(host.check_output(f"tr '\\0' '\\n' < /proc/{pid}/cmdline | head -1"))


def sign(bundle: Path, key: Path) -> None:
    """Sign a bundle as who packed it does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "app" / "iris_api" / "src")}
    command = [sys.executable, "-m", "iris_api.packing.cli", "sign", str(bundle), "--key", str(key)]
    subprocess.run(command, env=environment, check=True)


def offered(models: Path, name: str, keys: Path | None = None) -> list[str]:
    """Return the options that deploy a model, to a site that demands a signature where there are keys."""
    options = ["-e", f"iris_api_models_dir={models}", "-e", f"fortress_model_name={name}"]
    return options + (["-e", f"iris_api_bundle_signers={keys / 'signers'}"] if keys else [])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys of ana, whose signature counts, and of eve, and the file that says so."""
    folder = tmp_path_factory.mktemp("keys")
    for who in ("ana", "eve"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / who)]
        subprocess.run(command, check=True)
    public = (folder / "ana.pub").read_text()
    (folder / "signers").write_text(f'ana@example.com namespaces="iris-model" {public}')
    return folder


@pytest.mark.one_release
def test_a_site_that_demands_signatures_refuses_what_nobody_of_its_own_has_signed(
    host: Host, inventory: str, models: Path, keys: Path
) -> None:
    before, serves = history(host), ready(host, 1)["deployment"]
    for who, complaint in (
        ("", "it has no signature, and this site demands one"),
        ("eve", "its signature is of nobody"),
    ):
        if who:
            sign(models / "boosted" / "1.0.0", keys / who)
        done = deploy(inventory, *offered(models, "boosted", keys))
        assert done.returncode != 0
        assert complaint in " ".join(done.stdout.split())
    # Nothing was begun on the host.
    assert history(host) == before and ready(host, 1)["deployment"] == serves


@pytest.mark.parametrize(
    ("name", "signed"), [("boosted", True), pytest.param("mixed", False, marks=pytest.mark.one_release)]
)
def test_a_model_brings_what_the_release_has_not_got(
    host: Host, inventory: str, models: Path, keys: Path, name: str, signed: bool
) -> None:
    """The one with code of its owner's is signed, for a site that demands that."""
    before = host.check_output("ls /opt/iris-api/releases").split()
    if signed:
        sign(models / name / "1.0.0", keys / "ana")
    done = deploy(inventory, *offered(models, name, keys if signed else None))
    assert done.returncode == 0, done.stdout
    samples = json.loads((models / name / "1.0.0" / "manifest.json").read_text())["golden_samples"]
    for instance in (1, 2, 3):
        assert (ready(host, instance)["model"], ready(host, instance)["engine"]) == (name, "sklearn")
        assert interpreter(host, instance).startswith("/opt/iris-api/environments/")
        url = f"http://127.0.0.1:{8000 + instance}/predict"
        asked = (f"curl --silent --json {shlex.quote(json.dumps(each['input']))} {url}; echo" for each in samples)
        answers = host.check_output("; ".join(asked)).splitlines()
        for sample, answer in zip(samples, map(json.loads, answers), strict=True):
            assert answer["prediction"] == sample["prediction"]
            for found, expected in zip(answer["prediction_proba"], sample["probabilities"], strict=True):
                assert math.isclose(found, expected, abs_tol=1e-6), answer
    # Everything else is the release's; there is no new one.
    assert set(host.check_output("ls /opt/iris-api/releases").split()) <= set(before)
    taken = host.check_output("du --summarize --block-size=1M $(readlink -f /opt/iris-api/instances/1/app)").split()[0]
    assert int(taken) <= MOST_MB[name]


@pytest.mark.one_release
def test_the_way_back_takes_the_interpreter_along(host: Host, inventory: str) -> None:
    assert ready(host, 1)["model"] == "mixed"
    left = interpreter(host, 1)
    done = rollback(inventory)
    assert done.returncode == 0, done.stdout
    assert ready(host, 1)["model"] == "boosted"
    assert history(host)[-1]["event"] == "rolled back"
    assert interpreter(host, 1).startswith("/opt/iris-api/environments/") and interpreter(host, 1) != left


@pytest.mark.one_release
def test_a_bundle_that_was_changed_is_refused_before_anything_of_it_is_fetched(
    host: Host, inventory: str, models: Path
) -> None:
    before = ready(host, 1)["deployment"]
    lock = next((models / "boosted" / "1.0.0").glob("environment-*.txt"))
    text = lock.read_text()
    lock.write_text(text.replace("xgboost-cpu==", "xgboost-cpu-evil=="))
    try:
        done = deploy(inventory, *offered(models, "boosted"))
    finally:
        lock.write_text(text)
    assert done.returncode != 0
    assert "its sha256 is" in done.stdout
    assert ready(host, 1)["deployment"] == before
