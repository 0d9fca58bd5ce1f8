"""Where things are in the repository."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parents[2]
SOURCE = TESTS.parent / "src"
MODELS = ROOT / "models"
BUNDLE = MODELS / "iris" / "1.0.0"
"""The default model."""
