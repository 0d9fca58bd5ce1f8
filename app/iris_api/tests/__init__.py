"""Tests of the application, in rooms as its own; `instance` starts a real one."""
