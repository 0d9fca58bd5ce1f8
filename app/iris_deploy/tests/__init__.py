"""Tests of what deploys on a host, without a host."""
