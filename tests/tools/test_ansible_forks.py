"""tools/ansible_forks: what is spared of a run is not seen in what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

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


def test_a_play_of_one_host_works_in_place_and_each_of_several_hosts_in_a_process(tmp_path: Path) -> None:
    def workers(hosts: str) -> list[str]:
        task = {"ansible.builtin.debug": {"msg": WORKER}}
        play = {"hosts": "all", "gather_facts": False, "tasks": [task, task]}
        (tmp_path / "play.yml").write_text(json.dumps([play]))
        done = ansible("ansible-playbook", "-i", hosts, "-c", "local", "play.yml", cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.findall(r"msg: (worker-\d+)", done.stdout)

    one = workers("a,")
    assert len(one) == 2 and len(set(one)) == 1
    assert len(set(workers("a,b,"))) == 4


def test_one_text_is_another_template_by_other_marks(play: Run, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("{{ 1 + 1 }} [[ 2 + 2 ]]")
    find = "lookup('ansible.builtin.template', playbook_dir ~ '/text'"
    marked = f"{find}, variable_start_string='[[', variable_end_string=']]')"
    for _ in range(2):
        done = play([{"ansible.builtin.debug": {"msg": "{{ " + f"{find}) ~ ' and ' ~ {marked}" + " }}"}}])
        assert "2 [[ 2 + 2 ]] and {{ 1 + 1 }} 4" in done.stdout, done.stdout + done.stderr
