"""Which environment a bundle is served in: one rule for the builder, which makes it, and for the host, which uses it.

iris-deploy carries this very file and runs it by the host's own Python: it takes what JSON holds, and needs the
standard library alone.
"""

import hashlib
from collections.abc import Mapping
from typing import Any


def needs_environment(manifest: Mapping[str, Any], engine: str, onnxruntime: str | None) -> bool:
    """Return whether a bundle is served in an environment of its own, beside the release.

    Args:
        manifest: content of its manifest.json.
        engine: what the setting `engine` of the instances says: auto, sklearn or onnx.
        onnxruntime: version of ONNX Runtime that the release has.
    """
    if not manifest.get("environment") or engine == "onnx":
        return False
    onnx, costs = manifest.get("onnx"), manifest.get("costs") or {}
    if engine != "auto" or not onnx or onnx["proof"]["onnxruntime"] != onnxruntime:
        return True
    # Where ONNX Runtime takes more memory, `auto` may still take the model's own library.
    memory = [costs[name]["memory_mb"] for name in ("onnx", "sklearn") if name in costs]
    return len(memory) == 2 and memory[0] > memory[1]


def environment_id(release: str, manifest: Mapping[str, Any], python: str) -> str:
    """Return the id of the environment of a bundle for one release and one Python, as in `3.13`.

    It follows from the lock and the own code of the bundle: a model that is trained anew by the same packages has the
    same one. Raises LookupError where the bundle has no lock for that Python.
    """
    environment = manifest["environment"]
    parts = [environment["locks"][python]["sha256"], *sorted(environment.get("code", {}).values())]
    return f"{release}+{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:10]}"
