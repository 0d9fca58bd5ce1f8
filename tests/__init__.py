"""The project's tests; what several of them share stands in plain modules, and no test imports another."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
