"""Ansible, imported once: each run of one of its programs is a fork of a process that has all of it loaded.

Importing Ansible and packing its modules for transport is most of what a small play costs, and starting a Python that
imports what a module needs is most of what a task costs. What runs is the program itself and the module itself, each in
a process and a working directory of its own. Of the rest of a task, two thirds were a fork of all that memory for the
task alone: a play of one host does without it.
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import marshal
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from threading import Lock, local
from types import CodeType, ModuleType, SimpleNamespace
from typing import IO, Any, NoReturn, cast

ROOT = Path(__file__).resolve().parents[1]
CRYPTO = "ansible_collections.community.crypto.plugins.module_utils._crypto.module_backends"
# What many modules import; the rest, and each module itself, comes from the archive that Ansible sends to a host.
PRELOADED = (
    "ansible.module_utils._internal._ansiballz._loader",
    *(
        f"{CRYPTO}.{name}"
        for name in ("certificate_acme", "certificate_ownca", "certificate_selfsigned", "csr", "privatekey")
    ),
)
PROGRAMS = {"ansible": "adhoc", "ansible-playbook": "playbook", "ansible-inventory": "inventory"}


class Forks:
    """The process that forks, as whoever asks for runs sees it; it ends when they do."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.lock = Lock()
        command = [sys.executable, "-m", __name__]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
        atexit.register(self.end)

    def run(self, program: str, arguments: tuple[str, ...], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        assert self.process.stdin and self.process.stdout
        with tempfile.TemporaryDirectory() as folder:
            outputs = [str(Path(folder, name)) for name in ("stdout", "stderr")]
            with self.lock:
                print(json.dumps([program, arguments, str(cwd), *outputs]), file=self.process.stdin, flush=True)
                status = int(self.process.stdout.readline())
            stdout, stderr = (Path(output).read_text() for output in outputs)
        return subprocess.CompletedProcess([program, *arguments], status, stdout, stderr)

    def end(self) -> None:
        """End it, with the temporary folder that Ansible made."""
        self.process.communicate()


def serve(jobs: IO[str]) -> None:
    """Fork for each job that is asked for, and print how it ended."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as modules:
        address = f"{folder}/modules"
        modules.bind(address)
        modules.listen()
        server = os.fork()
        if server == 0:
            serve_modules(modules)
        try:
            serve_programs(jobs, address)
        finally:
            os.kill(server, signal.SIGTERM)
            os.waitpid(server, 0)


def serve_programs(jobs: IO[str], modules: str) -> None:
    """Import what runs on a control node, and fork for each program."""
    programs = {name: import_module(f"ansible.cli.{module}") for name, module in PROGRAMS.items()}
    for module in ("executor.playbook_executor", "executor.task_executor", "executor.module_common", "vars.manager"):
        import_module(f"ansible.{module}")
    load_plugins()
    run_modules_by(modules)
    work_in_place()
    path = Path(f"{modules}.templates")
    with path.open("ab", buffering=0) as written, path.open("rb") as read:
        learn = remember_templates(written, read)
        # What a collection of garbage touches is copied: each fork would get a copy of all that was loaded.
        gc.freeze()
        for job in jobs:
            program, arguments, cwd, *outputs = json.loads(job)
            work = partial(programs[program].main, [program, *arguments])
            print(fork(work, cwd, outputs), flush=True)
            learn()


def load_plugins() -> None:
    """Read what each run, or even each task, would read for itself: the plugins of Ansible and of the project."""
    loader = import_module("ansible.plugins.loader")
    warnings.filterwarnings("ignore", "AnsibleCollectionFinder has already been configured")
    loader.init_plugin_loader()
    import_module("ansible_collections.ansible.builtin")
    kinds = "inventory connection shell action become callback filter test lookup"
    for kind in kinds.split():
        list(getattr(loader, f"{kind}_loader").all(class_only=True))
    loader.filter_loader.get("community.crypto.x509_certificate_info")
    loader.strategy_loader.get("linear", class_only=True)


def fork(work: Callable[[], object], cwd: str, outputs: list[str]) -> int:
    """Do work to its end in a process and a folder of its own, with its output in two files; return its status."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    gc.disable()
    status = 1
    try:
        for number, name in enumerate([os.devnull, *outputs]):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        os.chdir(cwd)
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # Ansible's temporary folder, with the modules that are packed already, is for all forks.
    os._exit(status)


def run_modules_by(address: str) -> None:
    """Give what a local connection would pipe into a new Python to the process that has imported what modules need."""
    connection = import_module("ansible.plugins.connection.local").Connection
    execute = connection.exec_command
    python = f"/bin/sh -c '{sys.executable} && sleep 0'"

    def exec_command(
        self: object, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        if cmd != python or not in_data:
            ended: tuple[int, bytes, bytes] = execute(self, cmd, in_data, sudoable)
            return ended
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as asked:
            program, *outputs = (Path(folder, name) for name in ("program", "stdout", "stderr"))
            program.write_bytes(in_data)
            asked.connect(address)
            asked.sendall(json.dumps([os.getcwd(), str(program), *map(str, outputs)]).encode())
            asked.shutdown(socket.SHUT_WR)
            status = int(asked.recv(16))
            return status, outputs[0].read_bytes(), outputs[1].read_bytes()

    connection.exec_command = exec_command


def work_in_place() -> None:
    """Do a task of a play of one host where the play runs; with several hosts each has a process, as in Ansible.

    Ansible forks since hosts are worked for side by side, and nothing is beside one. What a task may change for itself
    alone stays its own here as well: the task is a copy, and the host gets back what the worker takes from it.
    """
    names = ("executor.process.worker", "_internal._task", "utils.display")
    worker, contexts, display = (cast(Any, import_module(f"ansible.{name}")) for name in names)
    start = worker.WorkerProcess.start
    # A worker's messages go through the queue of results, which another thread of the same process prints.
    thread = local()
    display.Display._final_q = property(
        lambda self: getattr(thread, "queue", None), lambda self, queue: setattr(thread, "queue", queue)
    )

    def start_in_place(self: Any) -> None:
        if len(self._task_vars.get("ansible_play_hosts_all", ())) != 1:
            start(self)
            return
        of_host = self._host.vars, self._host.groups
        parent = self._task._parent
        self._task = self._task.copy(exclude_parent=True)
        self._task._parent = parent
        thread.queue = self._final_q
        try:
            with contexts.TaskContext(self._task):
                self._run()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        finally:
            thread.queue = worker.current_worker = None
            self._host.vars, self._host.groups = of_host

    worker.WorkerProcess.start = start_in_place
    # It looks there for what a plugin has printed past Ansible; here the outputs are the play's.
    worker.sys = SimpleNamespace(stdout=io.StringIO(), stderr=io.StringIO())


def remember_templates(written: IO[bytes], read: IO[bytes]) -> Callable[[], None]:
    """Compile a template once for all runs: each has hundreds, mostly those of the run before.

    Args:
        written: The file in which forks write down what they compile.
        read: The same file.

    Returns:
        What has this process read it.
    """
    bits = cast(Any, import_module("ansible._internal._templating._jinja_bits"))
    environment, context, settings = (
        bits.AnsibleEnvironment,
        bits._TemplateCompileContext,
        bits._TEMPLATE_OVERRIDE_FIELD_NAMES,
    )
    compile_template = environment.compile
    known: dict[tuple[object, ...], CodeType] = {}

    def compile_once(
        self: Any, source: Any, name: Any = None, filename: Any = None, raw: bool = False, defer_init: bool = False
    ) -> Any:
        if not isinstance(source, str) or name or filename or raw or defer_init:
            return compile_template(self, source, name, filename, raw, defer_init)
        compiling = context.current(optional=True)
        escape = compiling.escape_backslashes if compiling else None
        values = (source, escape, *(getattr(self, setting) for setting in settings))
        # Of a text the text alone: it also bears where it stands.
        key = tuple(str.__str__(value) if isinstance(value, str) else value for value in values)
        if key not in known:
            known[key] = compile_template(self, source)
            written.write(marshal.dumps((key, known[key])))
        return known[key]

    def learn() -> None:
        with suppress(EOFError):
            while True:
                key, code = marshal.load(read)
                known.setdefault(key, code)

    environment.compile = compile_once
    return learn


class Packed:
    """Take from the archive of a module what is not imported yet of Ansible and of collections, as on a host."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where a part of Ansible or of a collection is; the archive is the first in the path of modules."""
        package, *_ = name.split(".")
        if package not in ("ansible", "ansible_collections"):
            return None
        return PathFinder.find_spec(name, [str(Path(sys.path[0], *name.split(".")[:-1]))])


def serve_modules(jobs: socket.socket) -> NoReturn:
    """Fork for each module that is to be run. This process has nothing of Ansible but what a host has of it."""
    while True:
        asked, _ = jobs.accept()
        preload()
        with asked, asked.makefile() as words:
            cwd, program, *outputs = json.load(words)
            work = partial(exec, Path(program).read_bytes(), {"__name__": "__main__"})
            asked.sendall(str(fork(work, cwd, outputs)).encode())


@cache
def preload() -> None:
    """Import what modules need, when there is one: a check of syntax runs none."""
    for part in PRELOADED:
        import_module(part)
    gc.freeze()
    sys.meta_path.insert(0, Packed)


if __name__ == "__main__":
    serve(sys.stdin)
