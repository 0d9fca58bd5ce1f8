"""Backups of a site on the control node: see README.md."""
