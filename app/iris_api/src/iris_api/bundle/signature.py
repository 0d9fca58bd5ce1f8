"""Signatures of bundles by `ssh-keygen -Y`: of the manifest, which vouches for the other files."""

import subprocess
import tempfile
from pathlib import Path

from iris_api.bundle.files import BundleError
from iris_api.bundle.manifest import MANIFEST

SIGNATURE = f"{MANIFEST}.sig"
# What a signature is for: one of a commit or of a mail is none of a bundle.
NAMESPACE = "iris-model"
# A signature has less than a thousand bytes.
LARGEST_SIGNATURE = 100_000


def sign(bundle: Path, key: Path) -> Path:
    """Sign a bundle's manifest by a key of SSH, or its public half where an agent has it; return the signature's file.

    ssh-keygen asks for the passphrase of the key. Raises BundleError with what it says.
    """
    signature = bundle / SIGNATURE
    command = ["ssh-keygen", "-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(key)]
    # By its standard output: asked to write the file, it would want the earlier signature gone before there is another.
    done = subprocess.run(command, input=(bundle / MANIFEST).read_bytes(), capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        raise BundleError(f"{bundle}: not signed by {key}: {' '.join(done.stderr.decode(errors='replace').split())}")
    new = signature.with_name(f".{SIGNATURE}.new")
    new.write_bytes(done.stdout)
    new.replace(signature)
    return signature


def verify(manifest: bytes, signature: bytes, signers: Path) -> str:
    """Return who signed a manifest; raise BundleError if it is nobody in the file of allowed signers (ssh-keygen(1)).

    `manifest` are the very bytes that are used afterwards.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(signature)
        file.flush()
        known = _ssh_keygen(["find-principals", "-s", file.name, "-f", str(signers)], b"")
        for who in known.stdout.decode(errors="replace").splitlines():
            arguments = ["verify", "-s", file.name, "-f", str(signers), "-n", NAMESPACE, "-I", who]
            if _ssh_keygen(arguments, manifest).returncode == 0:
                return who
    raise BundleError(f"its signature is of nobody in {signers}, or not of this {MANIFEST}")


def _ssh_keygen(arguments: list[str], stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ssh-keygen", "-Y", *arguments], input=stdin, capture_output=True, check=False)
