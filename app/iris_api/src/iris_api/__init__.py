"""Serves one scikit-learn model bundle over HTTP."""

import os

__version__ = "1.0.0"

# ONNX Runtime sends telemetry unless this is set before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
