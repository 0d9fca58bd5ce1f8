"""A bundle is signed by a key of SSH: whoever has none of the known keys, or changes it since, is found out."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from iris_api.bundle.files import BundleError
from iris_api.bundle.signature import NAMESPACE, SIGNATURE, sign, verify
from iris_api.packing import cli

if not shutil.which("ssh-keygen"):
    pytest.skip("ssh-keygen is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys of ana and eve, and a file that allows ana's."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ana", "eve"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(command, check=True)
    public = (folder / "ana.pub").read_text()
    (folder / "signers").write_text(f'# Who packs.\nana@example.com namespaces="{NAMESPACE}" {public}')
    return folder


def signed(bundle: Path) -> tuple[bytes, bytes]:
    return (bundle / "manifest.json").read_bytes(), (bundle / SIGNATURE).read_bytes()


def test_who_signed_is_known(copied_bundle: Path, keys: Path) -> None:
    assert cli.main(["sign", str(copied_bundle), "--key", str(keys / "ana")]) == 0
    assert verify(*signed(copied_bundle), keys / "signers") == "ana@example.com"
    # Once more replaces it.
    sign(copied_bundle, keys / "eve")
    with pytest.raises(BundleError, match="is of nobody in"):
        verify(*signed(copied_bundle), keys / "signers")


def test_what_was_changed_since_is_not_signed(copied_bundle: Path, keys: Path) -> None:
    sign(copied_bundle, keys / "ana")
    manifest, signature = signed(copied_bundle)
    for other in (manifest.replace(b"1", b"2", 1), b"", manifest + b" "):
        with pytest.raises(BundleError, match=r"or not of this manifest\.json"):
            verify(other, signature, keys / "signers")
    for other in (b"", b"text", signature[:200]):
        with pytest.raises(BundleError):
            verify(manifest, other, keys / "signers")


def test_a_signature_for_something_else_does_not_count(copied_bundle: Path, keys: Path) -> None:
    manifest = copied_bundle / "manifest.json"
    command = ["ssh-keygen", "-Y", "sign", "-q", "-n", "git", "-f", str(keys / "ana"), str(manifest)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(BundleError):
        verify(*signed(copied_bundle), keys / "signers")


def test_what_can_not_be_signed_is_said(copied_bundle: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sign", str(copied_bundle), "--key", str(keys / "nobody")]) == 1
    assert "not signed by" in capsys.readouterr().err
    sign(copied_bundle, keys / "ana")
    before = signed(copied_bundle)
    assert cli.main(["sign", str(copied_bundle), "--key", str(keys / "nobody")]) == 1
    assert signed(copied_bundle) == before, "the earlier signature stays where there is no other"
    (copied_bundle / SIGNATURE).unlink()
    (copied_bundle / "manifest.json").write_text("{}")
    assert cli.main(["sign", str(copied_bundle), "--key", str(keys / "ana")]) == 1
    assert not (copied_bundle / SIGNATURE).exists()
