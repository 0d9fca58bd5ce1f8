"""Grafana's dashboards as code; `python -m tools.dashboards` writes them into the files of the role grafana."""
