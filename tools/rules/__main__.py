"""Write every file of rules; with --check say which is not what the code makes."""

import argparse
import sys
from pathlib import Path

from tools.rules import gateway, host, instances, model, monitoring, objectives, security
from tools.rules.parts import render

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "roles/prometheus/files/etc/prometheus/rules"
FILES = {
    "host.yml": host.GROUPS,
    "iris-api.yml": instances.GROUPS,
    "model.yml": model.GROUPS,
    "nginx.yml": gateway.GROUPS,
    "objectives.yml": objectives.GROUPS,
    "prometheus.yml": monitoring.GROUPS,
    "security.yml": security.GROUPS,
}
"""What each file has. A file that is renamed stays on hosts under its old name: see `absent` of `config_tree`."""


def rendered() -> dict[str, str]:
    """Return each file's name and text."""
    return {name: render(groups) for name, groups in FILES.items()}


def main() -> None:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not current")
    check = parser.parse_args().check
    wanted = rendered()
    committed = {path.name: path.read_text(encoding="utf-8") for path in TARGET.glob("*")}
    stale = sorted(name for name in {*wanted, *committed} if wanted.get(name) != committed.get(name))
    if check:
        if stale:
            sys.exit(f"Not what tools/rules makes: {', '.join(stale)}. Run `make rules` and commit what it writes.")
        return
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in wanted:
            (TARGET / name).write_text(wanted[name], encoding="utf-8")
        else:
            (TARGET / name).unlink()


if __name__ == "__main__":
    main()
