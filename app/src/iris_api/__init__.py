"""Serves one scikit-learn model bundle over HTTP."""

__version__ = "1.0.0"
