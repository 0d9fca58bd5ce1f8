"""Ansible, imported once: each run of one of its programs is a fork of a process that has all of it loaded.

Importing Ansible and packing its modules for transport is most of what a small play costs, and starting a Python that
imports what a module needs is most of what a task costs. What runs is the program itself and the module itself, each in
a process and a working directory of its own. Of the rest of a task, two thirds were a fork of all that memory for the
task alone: a play of one host does without it.
"""

from __future__ import annotations

import fcntl
import gc
import io
import marshal
import os
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from threading import local
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, NoReturn, cast

from tools import forks

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
PROGRAMS = {
    "ansible": "adhoc",
    "ansible-doc": "doc",
    "ansible-inventory": "inventory",
    "ansible-playbook": "playbook",
}


def run(
    server: socket.socket, program: str, arguments: tuple[str, ...], cwd: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs, or a module that uses Ansible, to its end; server: a connection to who forks."""
    module, given = program, arguments
    if program in PROGRAMS:
        module, given = "tools.ansible_program", (PROGRAMS[program], program, *arguments)
    return forks.run_text(server, forks.Job(module, given, str(cwd), dict(environment)))


def connect(folder: Path, owner: int, environment: Mapping[str, str]) -> socket.socket:
    """Return a connection to the process that forks, which is there until another one ends, its owner.

    All who ask for it by the same folder have one. Ansible reads its settings from the environment when it is imported:
    they are those of the first.
    """
    address = folder / "ansible"
    # The folder goes with who made it, and with it what Ansible would remove when a program of its own ends.
    settings = {"ANSIBLE_LOCAL_TEMP": str(folder / "ansible-temporary"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", __name__, str(address), str(owner)]
    start = partial(subprocess.run, command, env={**environment, **settings}, check=True, stdin=subprocess.DEVNULL)
    return forks.connect(address, partial(start, cwd=ROOT, stdout=subprocess.DEVNULL))


def serve(address: Path, owner: int) -> NoReturn:
    """Import what runs on a control node, and fork for each program."""
    gc.disable()
    modules = address.with_suffix(".modules")
    listener = forks.listen(modules)
    if not os.fork():
        os.setsid()
        forks.become_part(*forks.serve(listener, owner, before=preload))
    listener.close()
    for name in PROGRAMS.values():
        import_module(f"ansible.cli.{name}")
    for name in ("executor.playbook_executor", "executor.task_executor", "executor.module_common", "vars.manager"):
        import_module(f"ansible.{name}")
    load_plugins()
    run_modules_by(modules)
    work_in_place()
    learnt = [remember(Notes(address.with_suffix(f".{remember.__name__}"))) for remember in (templates, files)]
    # What a collection of garbage touches is copied: each fork would get a copy of all that was loaded.
    gc.freeze()
    listener = forks.listen(address)
    if os.fork():
        os._exit(0)
    os.setsid()
    # Ansible's temporary folder, with the modules that are packed already, is for all forks.
    forks.become_part(*forks.serve(listener, owner, after=lambda: [learn() for learn in learnt]))


def load_plugins() -> None:
    """Read what each run, or even each task, would read for itself: the plugins of Ansible and of the project."""
    loader = import_module("ansible.plugins.loader")
    warnings.filterwarnings("ignore", "AnsibleCollectionFinder has already been configured")
    loader.init_plugin_loader()
    import_module("ansible_collections.ansible.builtin")
    kinds = "inventory connection shell action become callback filter test lookup"
    for kind in kinds.split():
        list(getattr(loader, f"{kind}_loader").all(class_only=True))
    remember_plugins(loader.Jinja2Loader)
    # Of Jinja's own, which templates use most, Ansible would look for another one in all of its files each time.
    own = import_module("jinja2.defaults")
    for plugins, names in ((loader.filter_loader, own.DEFAULT_FILTERS), (loader.test_loader, own.DEFAULT_TESTS)):
        for name in filter(str.isidentifier, names):
            plugins.get(name)
    loader.filter_loader.get("community.crypto.x509_certificate_info")
    loader.strategy_loader.get("linear", class_only=True)


def remember_plugins(loader: Any) -> None:
    """Look for a filter or a test in the files of a collection once, in which nothing changes."""
    find, known = loader.get_with_context, {}

    def find_once(self: Any, name: str, *arguments: Any, **options: Any) -> Any:
        self._ensure_non_collection_wrappers()
        # Those of a role or a project may be others for the next play.
        if name.removeprefix("ansible.legacy.") in self._cached_non_collection_wrappers:
            return find(self, name, *arguments, **options)
        if (self.type, name) not in known:
            known[self.type, name] = find(self, name, *arguments, **options)
        return known[self.type, name]

    loader.get_with_context = find_once


def run_modules_by(address: Path) -> None:
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
        # This process has nothing of Ansible but what a host has of it.
        with tempfile.NamedTemporaryFile() as program, socket.socket(socket.AF_UNIX) as server:
            program.write(in_data)
            program.flush()
            server.connect(str(address))
            job = forks.Job("tools.ansible_module", (program.name,), os.getcwd(), dict(os.environ))
            done = forks.run(server, job)
            return done.returncode, done.stdout, done.stderr

    connection.exec_command = exec_command


def work_in_place() -> None:
    """Do each task where the play runs: of several hosts for one after the other.

    Ansible forks since hosts are worked for side by side. What a task may change for itself alone stays its own here as
    well: the task is a copy, and the host gets back what the worker takes from it.
    """
    names = ("executor.process.worker", "_internal._task", "utils.display")
    worker, contexts, display = (cast(Any, import_module(f"ansible.{name}")) for name in names)
    # A worker's messages go through the queue of results, which another thread of the same process prints.
    thread = local()
    display.Display._final_q = property(
        lambda self: getattr(thread, "queue", None), lambda self, queue: setattr(thread, "queue", queue)
    )

    def start_in_place(self: Any) -> None:
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


class Notes:
    """What forks write down for the process that forks."""

    def __init__(self, path: Path) -> None:
        self.written = path.open("ab", buffering=0)
        self.read = path.open("rb")

    def write(self, note: Any) -> None:
        """Write something down."""
        fcntl.lockf(self.written, fcntl.LOCK_EX)
        self.written.write(marshal.dumps(note))
        fcntl.lockf(self.written, fcntl.LOCK_UN)

    def __iter__(self) -> Iterator[Any]:
        """Yield what was not read yet."""
        # Nobody writes meanwhile, so that no note ends in its midst.
        fcntl.lockf(self.read, fcntl.LOCK_SH)
        with suppress(EOFError):
            while True:
                yield marshal.load(self.read)
        fcntl.lockf(self.read, fcntl.LOCK_UN)


def templates(notes: Notes) -> Callable[[], None]:
    """Compile a template or a condition once for all runs: each has hundreds, mostly those of the run before.

    Returns:
        What has this process know what its forks have compiled.
    """
    bits = cast(Any, import_module("ansible._internal._templating._jinja_bits"))
    environment, context, settings = (
        bits.AnsibleEnvironment,
        bits._TemplateCompileContext,
        bits._TEMPLATE_OVERRIDE_FIELD_NAMES,
    )
    compile_template, compile_expression = environment.compile, environment.compile_expression
    known: dict[tuple[object, ...], CodeType] = {}
    # Expressions that are being compiled. One is compiled as a tree, which does not say of which text.
    expressions: list[tuple[object, ...]] = []

    def key_of(self: Any, source: str, kind: str) -> tuple[object, ...]:
        compiling = context.current(optional=True)
        escape = compiling.escape_backslashes if compiling else None
        values = (kind, source, escape, *(getattr(self, setting) for setting in settings))
        # Of a text the text alone: it also bears where it stands.
        return tuple(str.__str__(value) if isinstance(value, str) else value for value in values)

    def keep(key: tuple[object, ...], code: CodeType) -> CodeType:
        known[key] = code
        notes.write((key, code))
        return code

    def compile_once(
        self: Any, source: Any, name: Any = None, filename: Any = None, raw: bool = False, defer_init: bool = False
    ) -> Any:
        if expressions and not isinstance(source, str):
            return keep(expressions[-1], compile_template(self, source, name, filename, raw, defer_init))
        if not isinstance(source, str) or name or filename or raw or defer_init:
            return compile_template(self, source, name, filename, raw, defer_init)
        key = key_of(self, source, "template")
        return known.get(key) or keep(key, compile_template(self, source))

    def compile_expression_once(self: Any, source: str, undefined_to_none: bool = True) -> Any:
        key = key_of(self, source, "expression")
        if key in known:
            template = self.template_class.from_code(self, known[key], self.make_globals(None))
            return bits.TemplateExpression(template, undefined_to_none)
        expressions.append(key)
        try:
            return compile_expression(self, source, undefined_to_none)
        finally:
            expressions.pop()

    def learn() -> None:
        for key, code in notes:
            known.setdefault(key, code)

    environment.compile, environment.compile_expression = compile_once, compile_expression_once
    return learn


def files(notes: Notes) -> Callable[[], None]:
    """Read a file of the project once for all runs, as long as nobody changes it.

    Returns:
        What has this process read what its forks have read.
    """
    loader = import_module("ansible.parsing.dataloader").DataLoader
    load = loader.load_from_file
    # By its path and how it is read: what it was when it was read, and two of what it holds.
    known: dict[tuple[str, bool, bool], tuple[object, list[Any]]] = {}

    def state(path: str) -> object:
        found = os.stat(path)
        return found.st_ino, found.st_size, found.st_mtime_ns

    def load_once(
        self: Any,
        file_name: str,
        cache: str = "all",
        unsafe: bool = False,
        json_only: bool = False,
        trusted_as_template: bool = False,
    ) -> Any:
        path = str(self.path_dwim(file_name))
        if cache == "all" and path.startswith(f"{ROOT}{os.sep}") and path not in self._FILE_CACHE:
            key = (path, json_only, trusted_as_template)
            then, contents = known.pop(key, (None, []))
            if contents and then == state(path):
                # Who gets no copy gets what Ansible keeps.
                content, kept = contents
                self._FILE_CACHE[path] = content if unsafe else kept
                return content
            notes.write(key)
        return load(self, file_name, cache, unsafe, json_only, trusted_as_template)

    def learn() -> None:
        for path, json_only, trusted in notes:
            # What is gone, or encrypted, is read by each run that wants it.
            with suppress(Exception):
                before = state(path)
                read = partial(load, loader(), path, "none", True, json_only, trusted)
                known[path, json_only, trusted] = before, [read(), read()]

    loader.load_from_file = load_once
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


@cache
def preload() -> None:
    """Import what modules need, when there is one: a check of syntax runs none."""
    for part in PRELOADED:
        import_module(part)
    gc.freeze()
    sys.meta_path.insert(0, Packed)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
