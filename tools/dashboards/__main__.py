"""Write every dashboard as JSON."""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.dashboards import iris_api, nginx

TARGET = Path(__file__).resolve().parents[2] / "roles/grafana/files/etc/grafana/dashboards"


def rendered() -> dict[str, str]:
    """Return each dashboard's file name and text."""
    dashboards = {"iris-api.json": iris_api.dashboard(), "nginx.json": nginx.dashboard()}
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {name: encoder.encode(dashboard.build()) + "\n" for name, dashboard in dashboards.items()}


def main() -> None:
    """Write the files."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (TARGET / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
