"""Mutation testing: does a test go red when a line is wrong? `make mutants` runs it, README.md says how."""
