"""Write Grafana's dashboards and Prometheus' console pages; with --check say which are not what the code makes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.dashboards import console, gateway, host, iris_api, model, overview, runbooks

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "roles/grafana/files/etc/grafana/dashboards"
CONSOLES = ROOT / "roles/prometheus/files/etc/prometheus/consoles"
DASHBOARDS = {
    "host.json": host.dashboard,
    "iris-api.json": iris_api.dashboard,
    "model.json": model.dashboard,
    "nginx.json": gateway.dashboard,
    "overview.json": overview.dashboard,
}
"""A file that is renamed stays on hosts under its old name: see `absent` of `config_tree`."""


def rendered() -> dict[Path, str]:
    """Return each file and its text."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    dashboards = {TARGET / name: encoder.encode(make().build()) + "\n" for name, make in DASHBOARDS.items()}
    return dashboards | {CONSOLES / "overview.html": console.page(), CONSOLES / "runbooks.html": runbooks.page()}


def main() -> None:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not current")
    check = parser.parse_args().check
    wanted = rendered()
    committed = {path: path.read_text(encoding="utf-8") for folder in (TARGET, CONSOLES) for path in folder.glob("*")}
    stale = sorted(path for path in {*wanted, *committed} if wanted.get(path) != committed.get(path))
    if check:
        if stale:
            names = ", ".join(path.name for path in stale)
            sys.exit(f"Not what tools/dashboards makes: {names}. Run `make dashboards` and commit what it writes.")
        return
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path in wanted:
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()


if __name__ == "__main__":
    main()
