"""Serves one scikit-learn model bundle over HTTP."""

import os

__version__ = "1.0.0"

# ONNX Runtime reports to its maker unless told not to before it is imported; a model server calls nobody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
