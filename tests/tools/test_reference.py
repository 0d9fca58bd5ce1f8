"""The tables of variables: what stands in an argument spec is what people read."""

from __future__ import annotations

import importlib.util
import re
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from tests import ROOT

SPEC = """\
argument_specs:
  main:
    short_description: A service
    options:
      demo_users:
        type: list
        elements: dict
        default: []
        description:
          - Who may call it.
          - See O(demo_mode), and demo_file | no other.
        options:
          name: {type: str, required: true, description: A name.}
      demo_mode: {type: str, choices: [a, b], default: a, description: How.}
      demo_file: {type: str, default: "", description: "Where."}
      demo_jobs: {type: list, default: [aaaaaaaaaaaaaaaaaaaaaaaaaaaa, bbbbbbbbbbbbbbbbbbbbbbbbbbbb], description: What.}
"""
ROWS = """\
| Variable | Type | Default | Description |
| --- | --- | --- | --- |
| `demo_users` | list of dict | `[]` | Who may call it. See `demo_mode`, and `demo_file` \\| no other. |
| `demo_users[].name` | str | required | A name. |
| `demo_mode` | str: `a` or `b` | `a` | How. |
| `demo_file` | str | `""` | Where. |
| `demo_jobs` | list | in `defaults/main.yml` | What. |
"""


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, for a repository with one role."""
    loader = SourceFileLoader("reference", str(ROOT / "tools" / "reference"))
    spec = importlib.util.spec_from_loader("reference", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    role = tmp_path / "roles" / "demo"
    (role / "meta").mkdir(parents=True)
    (role / "meta" / "argument_specs.yml").write_text(SPEC)
    (role / "README.md").write_text(f"# Role demo\n\n{module.BEGIN}\n{module.END}\n\nThe end.\n")
    (tmp_path / "docs").mkdir()
    return module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["reference", *arguments])
    return int(module.main())


def test_a_roles_table_goes_between_the_markers_and_everything_else_stays(
    reference: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(reference, monkeypatch) == 0
    text = (tmp_path / "roles" / "demo" / "README.md").read_text()
    assert text == f"# Role demo\n\n{reference.BEGIN}\n\n{ROWS}\n{reference.END}\n\nThe end.\n"
    assert (tmp_path / "docs" / "variables.md").read_text().endswith(f"\n## demo\n\nA service.\n\n{ROWS}")


def test_what_is_stale_is_named_and_not_written_by_a_check(
    reference: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(reference, monkeypatch) == 0
    assert run(reference, monkeypatch, "--check") == 0
    spec = tmp_path / "roles" / "demo" / "meta" / "argument_specs.yml"
    spec.write_text(spec.read_text().replace("default: a,", "default: b,"))
    capsys.readouterr()
    assert run(reference, monkeypatch, "--check") == 1
    said = capsys.readouterr().out
    assert re.findall(r"^(\S+): stale", said, re.MULTILINE) == ["roles/demo/README.md", "docs/variables.md"]
    assert "make docs-reference" in said
    assert "| `b` |" not in (tmp_path / "docs" / "variables.md").read_text()


def test_a_readme_without_markers_is_named(
    reference: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "roles" / "demo" / "README.md").write_text("# Role demo\n")
    with pytest.raises(SystemExit, match="needs two lines"):
        run(reference, monkeypatch)
