"""Grafana's dashboards as code; `python -m tools.dashboards` writes them to where the role grafana installs them from."""
