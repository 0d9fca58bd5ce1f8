"""tools/ansible_forks: what is spared of a run is not seen in what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests import ROOT
from tests.controller import Run, ansible

# By a process that the worker starts.
WORKER = "{{ lookup('ansible.builtin.pipe', 'echo worker-$PPID') }}"


def test_a_task_that_runs_twice_is_templated_twice(play: Run, tmp_path: Path) -> None:
    handlers = tmp_path / "roles" / "demo" / "handlers" / "main.yml"
    handlers.parent.mkdir(parents=True)
    handlers.write_text(yaml.safe_dump([{"name": "say", "ansible.builtin.debug": {"msg": "it is {{ what }}"}}]))
    done = play(
        [
            task
            for value in ("first", "second")
            for task in (
                {"ansible.builtin.set_fact": {"what": value}, "changed_when": True, "notify": "say"},
                {"ansible.builtin.meta": "flush_handlers"},
            )
        ]
    )
    assert re.findall(r"it is (\w+)", done.stdout) == ["first", "second"], done.stdout + done.stderr


def test_items_are_told_in_their_order_and_what_a_plugin_warns_of(play: Run) -> None:
    done = play(
        [
            {"ansible.builtin.debug": {"msg": "item {{ item }}"}, "loop": [1, 2]},
            {"ansible.builtin.debug": {"msg": "{{ lookup('ansible.builtin.file', '/nonesuch', errors='warn') }}"}},
            {"ansible.builtin.fail": {"msg": "item 3"}},
        ]
    )
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert re.findall(r"msg: item (\d)", said) == ["1", "2", "3"], said
    assert "[WARNING]" in said
    assert "/nonesuch" in said


def run_play(folder: Path, hosts: str, *tasks: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    (folder / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    return ansible("ansible-playbook", "-i", hosts, "-c", "local", "play.yml", cwd=folder)


def test_a_task_is_done_where_the_play_is(tmp_path: Path) -> None:
    task = {"ansible.builtin.debug": {"msg": WORKER}}
    done = run_play(tmp_path, "a,b,", task, task)
    assert done.returncode == 0, done.stdout + done.stderr
    workers = re.findall(r"msg: (worker-\d+)", done.stdout)
    assert len(workers) == 4 and len(set(workers)) == 1


def test_of_several_hosts_each_has_its_own_values_and_its_own_end(tmp_path: Path) -> None:
    done = run_play(
        tmp_path,
        "a,b,c,",
        {"ansible.builtin.set_fact": {"mine": "of {{ inventory_hostname }}"}},
        {"ansible.builtin.fail": {"msg": "no"}, "when": "inventory_hostname == 'b'"},
        {"ansible.builtin.debug": {"msg": "it is {{ item }} {{ mine }} beside {{ hostvars.b.mine }}"}, "loop": [1, 2]},
        {"ansible.builtin.debug": {"msg": "once {{ mine }}"}, "run_once": True, "delegate_to": "c"},
    )
    assert done.returncode == 2
    said = re.findall(r"msg: (it is .*|once .*)", done.stdout)
    assert said == [*(f"it is {item} of {host} beside of b" for host in "ac" for item in (1, 2)), "once of a"], (
        done.stdout
    )
    assert re.findall(r"(\w) +: ok=(\d)", done.stdout) == [("a", "3"), ("b", "1"), ("c", "2")]


def test_one_text_is_another_template_by_other_marks(play: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("{{ 1 + 1 }} [[ 2 + 2 ]]")
    find = "lookup('ansible.builtin.template', playbook_dir ~ '/text'"
    marked = f"{find}, variable_start_string='[[', variable_end_string=']]')"
    for _ in range(2):
        done = play([{"ansible.builtin.debug": {"msg": "{{ " + f"{find}) ~ ' and ' ~ {marked}" + " }}"}}])
        assert "2 [[ 2 + 2 ]] and {{ 1 + 1 }} 4" in done.stdout, done.stdout + done.stderr


def test_a_file_of_the_project_that_changed_is_read_again() -> None:
    # In the checkout, where no other test looks for anything.
    playbook = ROOT / "build" / f"test-{os.getpid()}.yml"
    playbook.parent.mkdir(exist_ok=True)
    try:
        for said in ("once", "once", "otherwise"):
            playbook.write_text(
                json.dumps(
                    [{"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": said}}]}]
                )
            )
            done = ansible("ansible-playbook", "-i", "a,", "-c", "local", str(playbook))
            assert f"msg: {said}" in done.stdout, done.stdout + done.stderr
    finally:
        playbook.unlink()


def test_a_condition_holds_by_its_text_and_the_values_of_its_run(play: Run) -> None:
    tasks: list[dict[str, object]] = [
        {"ansible.builtin.debug": {"msg": f"it is {value}"}, "when": f"number == {value}"} for value in (1, 2)
    ]
    for number in (1, 2, 1):
        done = play(tasks, number=number)
        assert re.findall(r"msg: it is (\d)", done.stdout) == [str(number)], done.stdout + done.stderr


def test_a_filter_of_a_role_takes_the_place_of_one_of_jinja_in_that_run_alone(play: Run, tmp_path: Path) -> None:
    plugins = tmp_path / "roles" / "demo" / "filter_plugins"
    task: dict[str, object] = {"ansible.builtin.debug": {"msg": "{{ 'text' | title }}"}}
    assert "msg: Text" in play([task]).stdout
    plugins.mkdir(parents=True)
    own = 'class FilterModule:\n    def filters(self):\n        return {"title": lambda text: f"own {text}"}\n'
    (plugins / "own.py").write_text(own)
    done = play([task])
    assert "msg: own text" in done.stdout, done.stdout + done.stderr
    shutil.rmtree(plugins)
    assert "msg: Text" in play([task]).stdout
