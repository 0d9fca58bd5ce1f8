"""Keys of Grafana's repository, queries of its panels, and the operator's note: plugins/filter/grafana.py."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.plugins.loader import filter_loader

from tests import ROOT

filter_loader.add_directory(str(ROOT / "plugins" / "filter"))
key_ids, primary_fingerprints, panel_queries, queries_with_data, grafana_note, deb_version = (
    filter_loader.get(name).j2_function
    for name in ("key_ids", "primary_fingerprints", "panel_queries", "queries_with_data", "grafana_note", "deb_version")
)

PRIMARY, SUBKEY, OTHER = (
    "B53AE77BADB630A683046005963FA27710458545",
    "A" * 40,
    "0E22EB88E39E12277A7760AE9E439B102CF3C0C6",
)
LISTING = f"""\
pub:-:3072:1:963FA27710458545:1687953127:1755000000::-:::escESC::::::23::0:
fpr:::::::::{PRIMARY}:
uid:-::::1687953127::0D8C4E8B::Grafana Labs <engineering@grafana.com>::::::::::0:
sub:-:3072:1:AAAAAAAAAAAAAAAA:1687953127:1755000000:::::e::::::23:
fpr:::::::::{SUBKEY}:
pub:-:4096:1:9E439B102CF3C0C6:1687953127:::-:::scSC::::::23::0:
fpr:::::::::{OTHER}:
"""


def test_a_key_is_named_by_the_end_of_its_fingerprint() -> None:
    assert key_ids([PRIMARY, OTHER]) == ["963FA27710458545", "9E439B102CF3C0C6"]
    assert key_ids([]) == []


def test_primary_keys_are_found_and_subkeys_are_not() -> None:
    assert primary_fingerprints(LISTING) == [PRIMARY, OTHER]
    assert primary_fingerprints("") == []


def test_a_panel_asks_for_every_instance_at_the_width_of_a_page() -> None:
    target = {"refId": "A", "expr": 'up{instance=~"$instance"}', "datasource": {"uid": "$host"}, "exemplar": False}
    assert panel_queries([target, {"refId": "B", "steps": ["$instance", 1]}]) == [
        {
            "refId": "A",
            "expr": 'up{instance=~".*"}',
            "datasource": {"uid": ".*"},
            "exemplar": False,
            "intervalMs": 3000,
            "maxDataPoints": 500,
        },
        {"refId": "B", "steps": [".*", 1], "intervalMs": 3000, "maxDataPoints": 500},
    ]
    assert target["expr"] == 'up{instance=~"$instance"}'


@pytest.mark.parametrize("dashboard", sorted((ROOT / "roles/grafana/files/etc/grafana/dashboards").glob("*.json")))
def test_no_variable_is_left_in_the_queries_of_the_projects_panels(dashboard: Any) -> None:
    panels = json.loads(dashboard.read_text())["panels"]
    queries = [query for panel in panels for query in panel_queries(panel.get("targets", []))]
    assert queries
    assert "$instance" not in json.dumps(queries)


def answered(*values: list[Any]) -> dict[str, Any]:
    return {"status": 200, "frames": [{"data": {"values": list(values)}}]}


def test_a_query_has_data_where_its_first_frame_has_a_value() -> None:
    results = {
        "A": answered([1764120000000], [0]),
        "B": answered([], []),
        "C": answered(),
        "D": {"frames": []},
        "E": {"frames": [{"schema": {}}]},
        "F": {"error": "bad_data"},
        "G": answered([1764120000000, 1764120003000], [1, 2]),
    }
    assert queries_with_data(results) == ["A", "G"]
    assert queries_with_data({}) == []


UNREACHABLE = "not installed: its package repository could not be reached"
BEFORE = f"export FORTRESS_GRAFANA_USER=admin\nexport FORTRESS_GRAFANA_NOTE='{UNREACHABLE}'\n"


@pytest.mark.parametrize(
    ("settings", "probe", "service", "note"),
    [
        # The repository could be reached, and Grafana was installed.
        ("", {"rc": 0}, {"changed": True}, ""),
        # It was installed before, so the repository was not probed.
        (BEFORE, {"skipped": True}, {"changed": False}, ""),
        (BEFORE, None, {"changed": False}, ""),
        ("", {"rc": 100}, None, UNREACHABLE),
        # A run without the role, after one that left it out, one that installed it, and none.
        (BEFORE, None, None, UNREACHABLE),
        ("export FORTRESS_GRAFANA_NOTE=''\n", None, None, ""),
        ("", None, None, ""),
    ],
)
def test_the_operator_is_told_why_there_is_no_grafana(
    settings: str, probe: dict[str, Any] | None, service: dict[str, Any] | None, note: str
) -> None:
    written = grafana_note(settings, probe, service)
    assert shlex.split(written) == [note]


@pytest.mark.parametrize("packed", ["gzip", "xz", "none"])
def test_the_version_of_a_package_is_read_from_its_file(tmp_path: Path, packed: str) -> None:
    control = tmp_path / "package" / "DEBIAN" / "control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: grafana\nVersion: 12.1.0+security-01\nArchitecture: all\nMaintainer: a <a@example.com>\n"
        "Description: Version: 1\n more\n"
    )
    control.parent.parent.chmod(0o755)
    control.parent.chmod(0o755)
    package = tmp_path / "grafana.deb"
    subprocess.run(
        ["dpkg-deb", "--uniform-compression", f"-Z{packed}", "--build", control.parent.parent, package],
        check=True,
        capture_output=True,
    )
    assert deb_version(str(package)) == "12.1.0+security-01"


@pytest.mark.parametrize("content", [b"", b"a text\n", b"!<arch>\n", b"!<arch>\n" + b"control.tar.gz".ljust(60)])
def test_what_is_no_package_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "grafana.deb"
    file.write_bytes(content)
    with pytest.raises(AnsibleFilterError, match=r"grafana\.deb can't be read as a Debian package"):
        deb_version(str(file))
