"""Which engine serves a model where `auto` stands: ONNX Runtime, unless it is not proven or takes too much memory."""

from typing import Any

from iris_api.bundle.files import read_manifest
from iris_api.bundle.manifest import Cost, Manifest
from iris_api.settings import Settings

# What an instance takes beside the process that was measured: gunicorn's master, and requests on their way.
BESIDE_MB = 30
# ONNX Runtime answers faster, which is worth at most so many times the memory.
WORTH = 2


def instance_mb(cost: Cost) -> float:
    """Return the most memory that an instance takes by an engine, in 10^6 bytes."""
    return cost.memory_mb + BESIDE_MB


def why_too_large(manifest: Manifest, memory_max: int | None) -> str | None:
    """Return why `auto` does not take a proven ONNX model, or None if it does.

    `memory_max` is what the unit allows an instance, in bytes, or None if it is not known. A bundle of release 1.0.0
    has no costs: it is served by ONNX Runtime.
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


def need(settings: Settings) -> dict[str, Any]:
    """Return what an instance with these settings takes; raise BundleError if its bundle cannot be read.

    `engine` is the one that will answer, `instance_mb` the most memory that an instance takes by it, in 10^6 bytes, or
    None if its bundle does not tell, and `by_engine` the same for each engine that the bundle tells of.
    """
    manifest = read_manifest(settings.model_dir)
    engine = settings.engine
    if engine == "auto":
        from iris_api.engines.onnx import why_unproven

        refused = why_unproven(manifest) or why_too_large(manifest, settings.memory_max)
        engine = "sklearn" if refused else "onnx"
    known = {name: instance_mb(cost) for name, cost in (manifest.costs or {}).items()}
    return {"engine": engine, "instance_mb": known.get(engine), "by_engine": known}
