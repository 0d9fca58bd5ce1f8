"""Grafana's dashboards as code; `python -m dashboards` writes them to where the role grafana installs them from."""
