"""`iris-model export`: a bundle as MLServer and KServe serve it."""

import argparse
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import iris_api
from iris_api.bundle.files import BundleError, read_file, read_manifest
from iris_api.bundle.manifest import MANIFEST, EngineName, Manifest

# The runtime, and what it imports: no more of the application.
_RUNTIME = (
    *("__init__.py", "settings.py", "bundle", "engines", "packing/__init__.py", "packing/replay.py"),
    *("local/__init__.py", "local/bundle.py", "local/mlserver.py"),
)
_BUNDLE = "bundle"
SERVICE = "inference-service.yaml"
# As Kubernetes wants names of services.
_LONGEST_NAME = 63


class ExportError(Exception):
    """The bundle can't be exported as it was asked; the message says what to give instead."""


def add_export(parser: argparse.ArgumentParser, add_trusted: Callable[[argparse._ActionsContainer], None]) -> None:
    """Add the arguments of `export`."""
    parser.description = (
        "Write a folder that MLServer 1.7 serves, by the same code that answers on a host; for KServe with an "
        "InferenceService beside it. In the folder: `pip install 'mlserver>=1.7,<2' -r requirements.txt`, then "
        "`mlserver start .`, or `mlserver build . -t IMAGE` for an image that has all of it."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder, say models/iris/1.0.0")
    parser.add_argument("folder", type=Path, metavar="OUT", help="a folder that is not there yet")
    parser.add_argument("--to", choices=["mlserver", "kserve"], required=True, help="who is to serve it")
    parser.add_argument(
        "--engine",
        choices=["auto", "sklearn", "onnx"],
        default="auto",
        help="what computes the answers there; auto: ONNX Runtime where packing has proven it; default: %(default)s",
    )
    parser.add_argument("--storage-uri", metavar="URI", help="kserve: where you put the folder, say s3://models/churn")
    parser.add_argument("--image", metavar="IMAGE", help="kserve: what `mlserver build . -t IMAGE` has made of it")
    add_trusted(parser)
    parser.set_defaults(run=_export)


def _export(given: argparse.Namespace) -> None:
    if given.to == "kserve" and not (given.storage_uri or given.image):
        raise ExportError("KServe must know where the model is: --storage-uri s3://..., or --image IMAGE.")
    if given.to == "mlserver" and (given.storage_uri or given.image):
        raise ExportError("--storage-uri and --image are for --to kserve alone.")
    if given.storage_uri and not re.match(r"[a-z0-9+.-]+://", given.storage_uri):
        raise ExportError(f"--storage-uri is {given.storage_uri!r}: give an address such as s3://models/churn.")
    if os.path.lexists(given.folder):
        raise ExportError(f"{given.folder} is there already. Give another folder, or remove it.")
    manifest = read_manifest(given.bundle)
    engine = _engine(given.bundle, manifest, given.engine)
    name = service_name(manifest.name) if given.to == "kserve" else manifest.name
    files = dict(_files(given.bundle, manifest))
    settings = {
        "name": name,
        "implementation": "iris_api.local.mlserver.BundleModel",
        "parameters": {
            "version": manifest.version,
            "uri": f"./{_BUNDLE}",
            "extra": {"engine": engine, "skops_trusted": given.skops_trusted},
        },
    }
    files["model-settings.json"] = (json.dumps(settings, indent=2) + "\n").encode()
    # MLServer 1.7 can't start its workers by a newer uvloop than it was made for, and one process is what a pod is for.
    files["settings.json"] = b'{"parallel_workers": 0}\n'
    files["requirements.txt"] = requirements(manifest, engine).encode()
    if given.to == "kserve":
        files[SERVICE] = service(name, given.storage_uri, given.image).encode()
    try:
        _write(given.folder, files)
    except OSError as error:
        raise ExportError(f"{given.folder}: cannot be written ({error.strerror}: {error.filename}).") from None
    print(f"{given.folder}: {manifest.name} {manifest.version}, answered by {engine}")
    print(f"Try it: cd {given.folder} && pip install 'mlserver>=1.7,<2' -r requirements.txt && mlserver start .")
    if given.to == "kserve":
        print(f"Deploy it: kubectl apply -f {given.folder / SERVICE}")


def _engine(directory: Path, manifest: Manifest, choice: str) -> EngineName:
    if choice == "sklearn":
        return "sklearn"
    from iris_api.engines.choice import why_too_large
    from iris_api.engines.onnx import why_unproven

    reason = why_unproven(manifest)
    if choice == "onnx":
        if reason:
            raise BundleError(f"{directory / MANIFEST}: the model cannot be served by ONNX Runtime: {reason}.")
        return "onnx"
    return "sklearn" if reason or why_too_large(manifest, None) else "onnx"


def _files(directory: Path, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the export by their names: those of the bundle as its manifest vouches for them, and ours."""
    yield f"{_BUNDLE}/{MANIFEST}", (directory / MANIFEST).read_bytes()
    for name, sha256 in manifest.files.items():
        yield f"{_BUNDLE}/{name}", read_file(directory, name, sha256)
    sources = Path(iris_api.__file__).parent
    for place in _RUNTIME:
        for path in [sources / place] if place.endswith(".py") else sorted((sources / place).glob("*.py")):
            yield f"iris_api/{path.relative_to(sources)}", path.read_bytes()


def requirements(manifest: Manifest, engine: EngineName) -> str:
    """Return what the runtime needs beside MLServer, in the versions that the bundle was packed with."""
    wanted = {"numpy": "numpy>=1.26", "pydantic": "pydantic>=2.14"}
    if engine == "onnx" and manifest.onnx:
        wanted["onnxruntime"] = f"onnxruntime=={manifest.onnx.proof.onnxruntime}"
    else:
        packed = {**manifest.libraries, **(manifest.environment.packages if manifest.environment else {})}
        wanted |= {name: f"{name}=={version}" for name, version in packed.items() if name != "python"}
        if manifest.artifact.endswith(".skops"):
            wanted.setdefault("skops", "skops>=0.16")
    return "".join(f"{each}\n" for each in sorted(wanted.values()))


def service_name(name: str) -> str:
    """Return the name of a model as Kubernetes has names: it begins with a letter, and has neither dots nor _."""
    plain = re.sub(r"[^a-z0-9]+", "-", name)
    return (plain if plain[:1].isalpha() else f"model-{plain}")[:_LONGEST_NAME].strip("-")


def service(name: str, storage_uri: str | None, image: str | None) -> str:
    """Return an InferenceService in YAML: KServe's own runtime of MLServer, with this model."""
    where = "".join(
        f"      {key}: {json.dumps(value)}\n" for key, value in (("storageUri", storage_uri), ("image", image)) if value
    )
    hint = (
        ""
        if image
        else f"""\
      # The image must have the packages of requirements.txt: `mlserver build . -t IMAGE` makes one.
      # image: {name}:latest
"""
    )
    return f"""\
# kubectl apply -f {SERVICE}, then POST to /v2/models/{name}/infer of its address.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    model:
      # The format chooses the runtime; model-settings.json in the folder says what it loads.
      modelFormat:
        name: sklearn
      runtime: kserve-mlserver
      protocolVersion: v2
{where}{hint}"""


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write all files, or none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in files.items():
            path = unfinished / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        # As any other folder: the one that was made may be read by its owner alone.
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
