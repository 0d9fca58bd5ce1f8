"""config_tree: the whole tree is put in place, validated first, or none of it."""

from __future__ import annotations

import grp
import hashlib
import hmac
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from tests.controller import Run

OWNER = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}


def task(**arguments: Any) -> list[dict[str, object]]:
    return [{"name": "Write the tree", "config_tree": {**OWNER, **arguments}}]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder on the 'host', and in the role's folders the same path with one template and one verbatim file."""
    target = tmp_path / "host" / "etc"
    for folder, name, text in (
        ("templates", "greeting.conf.j2", "hello {{ name }}\n{% if true %}\nyes\n{% endif %}\n"),
        ("files", "board.json", '{"legend": "{{ instance }}"}\n'),
    ):
        source(tmp_path, folder, target / name).write_text(text)
    return target


def source(tmp_path: Path, folder: str, path: Path) -> Path:
    """Return where the role has the file that becomes `path` on the host."""
    file = tmp_path / "roles" / "demo" / folder / path.relative_to("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def test_a_template_may_include_what_roles_share(play: Run, target: Path, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "shared.conf").write_text("shared by {{ name }}\nas it is\n")
    source(tmp_path, "templates", target / "unit.conf").write_text('first\n{% include "shared.conf" +%}\nlast\n')
    done = play(task(), name="roles")
    assert done.returncode == 0, done.stdout
    assert (target / "unit.conf").read_text() == "first\nshared by roles\nas it is\nlast\n"


def test_templates_are_rendered_and_files_copied_to_the_path_they_mirror(
    play: Run, target: Path, tmp_path: Path
) -> None:
    source(tmp_path, "files", target / "__pycache__" / "half_written.cpython-311.pyc.12345").write_bytes(b"\xa7\r")
    done = play(task(), name="{{ 'wor' ~ 'ld' }}")
    assert done.returncode == 0, done.stdout
    assert (target / "greeting.conf").read_text() == "hello world\nyes\n"
    assert (target / "board.json").read_text() == '{"legend": "{{ instance }}"}\n'
    assert (target / "board.json").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in target.iterdir()) == ["board.json", "greeting.conf"]


def test_a_second_run_changes_nothing(play: Run, target: Path) -> None:
    assert "changed=1" in play(task(), name="a").stdout
    assert "changed=0" in play(task(), name="a").stdout
    assert "changed=0" in play(task(), "--check", name="a").stdout


def test_check_mode_shows_the_difference_and_writes_nothing(play: Run, target: Path) -> None:
    done = play(task(), "--check", "--diff", name="world")
    assert "+hello world" in done.stdout
    assert "changed=1" in done.stdout
    assert not target.exists()


def test_an_invalid_tree_changes_nothing_and_says_why(play: Run, target: Path, tmp_path: Path) -> None:
    assert play(task(), name="old").returncode == 0
    source(tmp_path, "files", target / "extra").write_text("x")
    check = f"grep -q new {{staged}}{target}/greeting.conf"
    done = play(task(validate=["true", check]), name="broken")
    assert done.returncode != 0
    assert "nothing was changed" in done.stdout + done.stderr
    assert (target / "greeting.conf").read_text() == "hello old\nyes\n"
    assert not (target / "extra").exists()
    assert play(task(validate=["true", check]), name="new").returncode == 0
    assert (target / "greeting.conf").read_text() == "hello new\nyes\n"


def test_what_was_replaced_is_put_back_when_writing_fails_half_way(play: Run, target: Path) -> None:
    before = {f"{target}/a": "old\n", f"{target}/b": "old\n"}
    assert play(task(contents=before, mode="0640")).returncode == 0
    # Files are written in the order of their paths. This one can't be: its folder is a link to nowhere.
    (target / "z").symlink_to(target / "nowhere")
    after = dict.fromkeys((f"{target}/a", f"{target}/new", f"{target}/z/file"), "new\n")
    done = play(task(contents=after, mode="0600", absent=[f"{target}/b"]))
    assert done.returncode != 0
    assert "The previous files were put back" in " ".join((done.stdout + done.stderr).split())
    assert (target / "a").read_text() == "old\n"
    assert (target / "a").stat().st_mode & 0o777 == 0o640
    assert (target / "b").read_text() == "old\n"
    assert sorted(path.name for path in target.iterdir()) == ["a", "b", "z"]


def test_a_folder_where_a_file_should_be_stops_it_before_anything_changes(play: Run, target: Path) -> None:
    (target / "z" / "keep").mkdir(parents=True)
    done = play(task(contents={f"{target}/a": "new\n", f"{target}/z": "new\n"}))
    assert done.returncode != 0
    assert "Nothing was changed" in " ".join((done.stdout + done.stderr).split())
    assert sorted(path.name for path in target.iterdir()) == ["z"]


def test_what_means_nothing_is_an_error(play: Run, target: Path) -> None:
    complaints: list[tuple[dict[str, Any], str]] = [
        ({"contents": {"/x": "x"}, "path": "etc"}, "`contents` stands instead of the role's folders"),
        ({"contents": {}}, "there is no file in `contents`"),
        ({"path": "var"}, "there is no file below ['var']"),
        ({"attributes": {"/x": {"mod": "0600"}}}, "`attributes` of /x names mod; known are group, mode, owner, secret"),
    ]
    tasks = [each | {"ignore_errors": True} for arguments, _ in complaints for each in task(**arguments)]
    done = play(tasks, name="a")
    assert f"ok={len(complaints)}    changed=0 " in done.stdout and f"ignored={len(complaints)}" in done.stdout
    for _, complaint in complaints:
        assert complaint in " ".join((done.stdout + done.stderr).split())
    assert not target.exists()


def test_mode_and_secrecy_are_set_by_path(play: Run, target: Path) -> None:
    secret = task(
        contents={f"{target}/secret": "swordfish\n"},
        attributes={f"{target}/sec*": {"mode": "0600", "secret": True}},
    )
    done = play(secret, "--diff", name="a")
    assert (target / "secret").stat().st_mode & 0o777 == 0o600
    assert "swordfish" not in done.stdout
    (target / "secret").chmod(0o644)
    assert "changed=1" in play(secret, name="a").stdout
    assert (target / "secret").stat().st_mode & 0o777 == 0o600


def test_absent_files_are_removed_in_the_same_step(play: Run, target: Path) -> None:
    target.mkdir(parents=True)
    (target / "old.conf").touch()
    assert "changed=1" in play(task(absent=[f"{target}/old.conf"]), name="a").stdout
    assert not (target / "old.conf").exists()
    assert "changed=0" in play(task(absent=[f"{target}/old.conf"]), name="a").stdout


def test_an_unknown_owner_is_named(play: Run, target: Path) -> None:
    done = play(task(owner="nobody-here"), name="a")
    assert done.returncode != 0
    assert "nobody-here" in done.stdout + done.stderr
    assert play(task(owner="nobody-here"), "--check", name="a").returncode == 0  # a package may bring the user


def test_an_undefined_variable_names_the_template(play: Run, target: Path) -> None:
    done = play(task())
    assert done.returncode != 0
    assert "greeting.conf" in done.stdout + done.stderr


def test_a_login_with_a_strict_umask_changes_no_mode(play: Run, target: Path, tmp_path: Path) -> None:
    """A daemon that can't enter its folder starts without its configuration, and says nothing."""
    shell = tmp_path / "sh"
    shell.write_text('#!/bin/sh\numask 077\nexec /bin/sh "$@"\n')
    shell.chmod(0o755)
    done = play(task(), name="a", ansible_shell_executable=str(shell))
    assert done.returncode == 0, done.stdout
    assert target.stat().st_mode & 0o777 == 0o755
    assert (target / "board.json").stat().st_mode & 0o777 == 0o644


def interrupted(target: Path, record: Path, content: str, cut: bool) -> list[dict[str, object]]:
    """Tasks as a role has them: what is written is applied by a later one, unless the run is cut before."""
    apply: dict[str, object] = {
        "name": "Apply",
        "ansible.builtin.copy": {"src": f"{target}/a.conf", "dest": f"{target}/running"},
        "when": "written.changed",
    }
    return [
        {
            "name": "Write",
            "config_tree": {**OWNER, "contents": {f"{target}/a.conf": content}, "unapplied": str(record)},
            "register": "written",
        },
        {"name": "Cut", "ansible.builtin.fail": {"msg": "the connection is gone"}, "when": cut},
        apply,
        {"name": "Record", "config_tree": {"applied": str(record)}, "when": "written.changed"},
    ]


def test_what_a_run_wrote_and_did_not_apply_is_applied_by_the_next(play: Run, target: Path, tmp_path: Path) -> None:
    record = tmp_path / "unapplied" / "demo"
    target.mkdir(parents=True)
    assert play(interrupted(target, record, "old\n", cut=False)).returncode == 0
    assert not record.exists()
    assert play(interrupted(target, record, "new\n", cut=True)).returncode != 0
    assert (target / "running").read_text() == "old\n"
    looked = play(interrupted(target, record, "new\n", cut=False), "--check", "--diff")
    assert "written by an earlier run, not in use" in looked.stdout
    assert record.exists()
    assert play(interrupted(target, record, "new\n", cut=False)).returncode == 0
    assert (target / "running").read_text() == "new\n"
    assert "changed=0" in play(interrupted(target, record, "new\n", cut=False)).stdout


def test_what_could_not_be_written_is_not_waited_for(play: Run, target: Path, tmp_path: Path) -> None:
    record = tmp_path / "unapplied"
    target.mkdir(parents=True)
    (target / "z").symlink_to(target / "nowhere")
    assert play(task(contents={f"{target}/z/file": "new\n"}, unapplied=str(record))).returncode != 0
    assert not record.exists()


def test_a_record_has_files_of_its_own_task_alone(play: Run, target: Path, tmp_path: Path) -> None:
    record = tmp_path / "unapplied"
    record.write_text(f"{target}/other\n")
    write = task(contents={f"{target}/a": "a\n"}, unapplied=str(record))
    assert "changed=1" in play(write).stdout
    assert record.read_text().splitlines() == [f"{target}/a", f"{target}/other"]
    applied: list[dict[str, object]] = [{"name": "Record", "config_tree": {"applied": str(record)}}]
    assert "changed=0" in play(applied, "--check").stdout
    assert record.exists()
    assert "changed=0" in play(applied).stdout
    assert not record.exists()
    assert "changed=0" in play(write).stdout


def test_beside_applied_nothing_has_a_meaning(play: Run) -> None:
    done = play([{"name": "Record", "config_tree": {"applied": "x", "path": "etc"}}])
    assert "`applied` writes no file, so path means nothing beside it" in " ".join((done.stdout + done.stderr).split())


def test_what_somebody_unloaded_by_hand_is_reported_as_changed(play: Run, target: Path, tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    contents = {f"{target}/a.conf": "a\n", f"{target}/b.conf": "b\n"}
    [write] = task(contents=contents, in_use={f"{target}/a.conf": f"test -e {loaded}"})
    show: dict[str, object] = {
        "name": "Show",
        "ansible.builtin.debug": {"msg": "{{ written.changed_paths | map('basename') | join(' ') }} changed"},
    }
    tasks = [write | {"register": "written"}, show]
    assert "a.conf b.conf changed" in play(tasks).stdout
    for options in (["--check"], []):
        assert "msg: a.conf changed" in play(tasks, *options).stdout
    loaded.touch()
    assert "changed=0" in play(tasks).stdout


def surveyed(contents: dict[str, str], **more: object) -> dict[str, object]:
    """Return the task that leaves the facts of a survey which has seen these files, as they are to be."""
    written = {
        path: {**OWNER, "mode": "0644", "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for path, text in contents.items()
    }
    fact = {"written": written, "unapplied": {}, "missing": [], **more}
    return {"name": "Survey", "ansible.builtin.set_fact": {"survey": fact, "cacheable": True}}


def test_what_the_survey_has_seen_is_not_asked_for_again(play: Run, target: Path) -> None:
    """The file is not there, so that to ask would be to write it."""
    contents = {f"{target}/a": "a\n"}
    gone = f"{target}/gone"
    [write] = task(contents=contents, absent=[gone], unapplied="demo", mode="644")
    assert "changed=0" in play([surveyed(contents, missing=[gone]), write]).stdout
    assert not target.exists()


def test_a_secret_that_the_survey_has_seen_by_the_key_is_not_asked_for_again(play: Run, target: Path) -> None:
    """It is not there, so that to ask would be to write it. By another key, or another text, nothing is known of it."""
    file = f"{target}/a"
    [write] = task(
        contents={file: "a\n"}, in_use={file: "test yes"}, attributes={"*/a": {"mode": "0600", "secret": True}}
    )

    def run(text: str, key: str) -> str:
        sealed = hmac.digest(b"key", text.encode(), "sha256").hex()
        fact = surveyed({}, written={file: {**OWNER, "mode": "0600", "hmac": sealed}}, succeeding=["test yes"])
        return play([fact, write], "--check", _fortress_survey_key=key).stdout

    assert "changed=0" in run("a\n", "{{ 'KEY' | lower }}")
    assert "changed=1" in run("a\n", "another")
    assert "changed=1" in run("b\n", "key")


@pytest.mark.parametrize(
    ("seen", "options", "more"),
    [
        ("b\n", {}, {}),
        ("a\n", {"mode": "0600"}, {}),
        ("a\n", {"attributes": {"*/a": {"mode": "0640"}}}, {}),
        ("a\n", {"in_use": {"a": "true"}}, {"succeeding": ["false"]}),
        ("a\n", {"unapplied": "demo"}, {"unapplied": {"demo": ["/other"]}}),
        ("a\n", {"absent": ["/no/such/file"]}, {}),
        ("a\n", {}, {"written": {}}),
    ],
    ids=["content", "mode", "attributes", "in use", "unapplied", "absent", "nothing seen"],
)
def test_what_may_differ_from_the_survey_is_asked_for(
    play: Run, target: Path, seen: str, options: dict[str, object], more: dict[str, object]
) -> None:
    file = f"{target}/a"
    [write] = task(contents={file: "a\n"}, **options)
    # In check mode no record is written on this machine.
    done = play([surveyed({file: seen}, **more), write], "--check")
    assert "changed=1" in done.stdout, done.stdout


def test_what_a_run_has_written_is_asked_for_again_in_it(play: Run, target: Path) -> None:
    """The survey was taken before."""
    file = f"{target}/a"
    old, new = {file: "old\n"}, {file: "new\n"}
    target.mkdir(parents=True)
    Path(file).write_text("old\n")
    [write_new], [write_old] = task(contents=new), task(contents=old)
    assert "changed=2" in play([surveyed(old), write_new, write_old]).stdout
    assert Path(file).read_text() == "old\n"
