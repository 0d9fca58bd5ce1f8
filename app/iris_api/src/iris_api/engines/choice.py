"""Which engine serves a model where `auto` stands: ONNX Runtime, unless it is not proven or takes too much memory.

As a program, in the environment of an instance, it says what that instance will take: iris-deploy asks before anything
is touched.
"""

import json
import os
import sys

from iris_api.bundle.files import BundleError, read_manifest
from iris_api.bundle.manifest import Cost, Manifest
from iris_api.settings import Settings, SettingsError

# What an instance takes beside the process that was measured: gunicorn's master, and requests on their way.
BESIDE_MB = 30
# ONNX Runtime answers faster; that is worth so many times the memory, and no more.
WORTH = 2


def instance_mb(cost: Cost) -> float:
    """Return the most memory that an instance takes by an engine, in 10^6 bytes."""
    return cost.memory_mb + BESIDE_MB


def why_too_large(manifest: Manifest, memory_max: int | None) -> str | None:
    """Say why `auto` does not take a proven ONNX model, or nothing if it does.

    `memory_max` is what the unit allows an instance, in bytes. A bundle of release 1.0.0 has no costs, and nothing is
    known against it.
    """
    costs = manifest.costs or {}
    if not {"onnx", "sklearn"} <= costs.keys():
        return None
    onnx, sklearn = instance_mb(costs["onnx"]), instance_mb(costs["sklearn"])
    if memory_max is not None and onnx * 1e6 > memory_max and sklearn < onnx:
        return f"an instance takes {onnx:.0f} MB by it, and the unit's MemoryMax allows {memory_max / 1e6:.0f} MB"
    if onnx > WORTH * sklearn:
        return f"an instance takes {onnx:.0f} MB by it, more than {WORTH} times the {sklearn:.0f} MB by scikit-learn"
    return None


def main() -> int:
    """Print engine and memory of an instance with this process's environment, as a line of JSON; null is unknown."""
    try:
        settings = Settings.from_environ(os.environ)
        manifest = read_manifest(settings.model_dir)
    except (SettingsError, BundleError) as error:
        print(error, file=sys.stderr)
        return 1
    engine = settings.engine
    if engine == "auto":
        from iris_api.engines.onnx import why_unproven

        refused = why_unproven(manifest) or why_too_large(manifest, settings.memory_max)
        engine = "sklearn" if refused else "onnx"
    known = {name: instance_mb(cost) for name, cost in (manifest.costs or {}).items()}
    print(json.dumps({"engine": engine, "instance_mb": known.get(engine), "by_engine": known}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
