"""Prometheus' rules as code; `python -m tools.rules` writes them into the files of the role prometheus."""
