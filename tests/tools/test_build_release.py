"""tools/build-release builds what a Git revision holds; of a bundle it packs what the manifest vouches for, or none."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from iris_api.bundle.signature import sign
from iris_api.settings import Settings

from tests import ROOT


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    loader = SourceFileLoader("build_release", str(ROOT / "tools" / "build-release"))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    # Where dataclasses look for what annotations mean.
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def test_a_revision_is_checked_out_once(builder: ModuleType, tmp_path: Path) -> None:
    folder = builder.checkout(tmp_path, "HEAD")
    assert builder.find_package(folder).folder.is_relative_to(folder / "app")
    lock = subprocess.run(["git", "show", "HEAD:requirements/app.txt"], cwd=ROOT, capture_output=True, check=True)
    assert (folder / "requirements" / "app.txt").read_bytes() == lock.stdout
    assert list(tmp_path.iterdir()) == [folder]
    assert builder.checkout(tmp_path, "HEAD") == folder


def a_package(
    folder: Path,
    name: str = "iris-api",
    version: str = "1.2.0",
    settings: str = "class Settings:\n    port: int\n",
    scripts: str = "",
) -> None:
    """Write a distribution whose wheel could be built."""
    (folder / "src" / "module").mkdir(parents=True)
    (folder / "src" / "module" / "__init__.py").write_text(f'__version__ = "{version}"\n')
    (folder / "src" / "module" / "settings.py").write_text(settings)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\n[tool.hatch.version]\npath = "src/module/__init__.py"\n{scripts}'
    )


@pytest.mark.parametrize("place", ["app", "app/iris_api", "app/deep/down"])
def test_the_application_is_found_by_its_own_metadata(builder: ModuleType, tmp_path: Path, place: str) -> None:
    a_package(tmp_path / place)
    a_package(tmp_path / "app" / "other", name="other")
    package = builder.find_package(tmp_path)
    assert (package.folder, package.version) == (tmp_path / place, "1.2.0")
    assert [path.name for path in package.sources] == ["pyproject.toml", "__init__.py", "settings.py"]


@pytest.mark.parametrize(
    ("scripts", "program"),
    [
        ('[project.scripts]\niris-api = "iris_api.server.command:main"\n', "iris-api"),
        ("", "gunicorn --config python:iris_api.gunicorn_conf"),
    ],
)
def test_a_release_is_started_by_its_own_command_and_an_older_one_by_gunicorn(
    builder: ModuleType, tmp_path: Path, scripts: str, program: str
) -> None:
    a_package(tmp_path / "app", scripts=scripts)
    launcher = tmp_path / "releases" / "r1" / "bin" / "iris-api"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(builder.find_package(tmp_path).launcher)
    launcher.chmod(0o755)
    (tmp_path / "releases" / "r1" / "venv" / "bin").mkdir(parents=True)
    started = tmp_path / "releases" / "r1" / "venv" / "bin" / program.split()[0]
    started.write_text('#!/bin/sh\necho "$$ $0 $*"\n')
    started.chmod(0o755)
    # As an instance of systemd does: through its own link to the release.
    (tmp_path / "app 1").symlink_to("releases/r1")
    ran = subprocess.Popen([tmp_path / "app 1" / "bin" / "iris-api", "--more"], stdout=subprocess.PIPE, text=True)
    found = (ran.communicate()[0]).split(maxsplit=1)
    # No shell stays between systemd and the server.
    assert int(found[0]) == ran.pid
    assert found[1].strip() == f"{tmp_path}/app 1/venv/bin/{program} --more"


def test_the_settings_of_a_release_are_read_and_not_run(builder: ModuleType, tmp_path: Path) -> None:
    text = "import nothing_like_it\nclass Other:\n    a: int\nclass Settings:\n    b = 1\n    d: int\n    c: int = 2\n"
    a_package(tmp_path / "app", settings=text)
    assert builder.find_package(tmp_path).settings == ["c", "d"]
    assert builder.find_package(ROOT).settings == sorted(Settings.model_fields)
    (tmp_path / "app" / "src" / "module" / "settings.py").write_text("class Settings:\n    a = 1\n")
    with pytest.raises(builder.BuildError, match="has no class Settings with fields"):
        builder.find_package(tmp_path)


def test_a_revision_brings_the_bundles_that_came_with_it(builder: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "models" / "iris" / "1.0.0").mkdir(parents=True)
    shipped = ROOT / "models"
    assert builder.bundle_of(tmp_path, shipped / "iris" / "1.0.0") == tmp_path / "models" / "iris" / "1.0.0"
    # One that the revision has not got, and one from elsewhere.
    for other in (shipped / "wine" / "1.0.0", tmp_path / "models" / "iris" / "1.0.0"):
        assert builder.bundle_of(tmp_path, other) == other
        assert builder.bundle_of(ROOT, other) == other


def test_none_and_two_applications_are_refused(builder: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(builder.BuildError, match="holds 0 packages with project\\.name = 'iris-api'"):
        builder.find_package(tmp_path)
    a_package(tmp_path / "app" / "one")
    a_package(tmp_path / "app" / "two")
    with pytest.raises(builder.BuildError, match="holds 2 packages"):
        builder.find_package(tmp_path)


def test_a_revision_writes_nowhere_else_and_links_to_nothing_outside(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can push a branch must not, by its being deployed, read or write files of the control node."""
    repository = tmp_path / "repository"
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    for path in (builder.APP, builder.LOCK, builder.MODELS):
        (repository / path / "file").parent.mkdir(parents=True)
        (repository / path / "file").write_text("text")
    (repository / builder.APP / "link").symlink_to("/etc/passwd")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "a link"], check=True)
    monkeypatch.setattr(builder, "ROOT", repository)
    with pytest.raises(builder.BuildError, match=r"^The revision HEAD has 'app/link', which is no file of its own\.$"):
        builder.checkout(tmp_path / "trees", "HEAD")
    assert list((tmp_path / "trees").iterdir()) == []


def test_what_is_no_revision_is_refused(builder: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(builder.BuildError, match=r"'v0.0.0', which is no revision"):
        builder.checkout(tmp_path, "v0.0.0")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the default bundle, in a folder of its own."""
    return Path(shutil.copytree(ROOT / "models" / "iris" / "1.0.0", tmp_path / "models" / "iris" / "1.0.0"))


def edit(bundle: Path, **changes: Any) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pack(builder: ModuleType, bundle: Path, largest: int = 10**7) -> Path:
    """Pack a bundle into a cache beside it, deep enough for `../` to stay within the test's folder."""
    cache = bundle.parents[2] / "a" / "b" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    content = builder.read_own(bundle, "manifest.json", builder.LARGEST_MANIFEST)
    model = builder.plan_model(bundle, cache, largest, content)
    model.build()
    return Path(model.archive)


def refuse(builder: ModuleType, bundle: Path, complaint: str, largest: int = 10**7) -> None:
    """Assert that a bundle is refused with a complaint, and that nothing was written anywhere."""
    folder = bundle.parents[2]
    (folder / "a" / "b" / "cache").mkdir(parents=True)
    before = sorted(folder.rglob("*"))
    with pytest.raises((builder.BuildError, builder.BundleError), match=complaint):
        pack(builder, bundle, largest)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("field", ["name", "version"])
@pytest.mark.parametrize(
    "value",
    ["../../../evil", "/etc/evil", "a/b", "..", ".hidden", "", "a\nb", "a\0b", "Iris", "-x", "x" * 65, 1, None, ["a"]],
)
def test_a_name_that_would_lead_elsewhere_is_refused_before_anything_is_written(
    builder: ModuleType, bundle: Path, field: str, value: Any
) -> None:
    edit(bundle, **{field: value})
    refuse(builder, bundle, rf"manifest.json: {field}: .*Make the bundle anew")


@pytest.mark.parametrize(
    "name", ["../../../../secret", "/etc/passwd", "sub/model.joblib", "..", "", ".hidden", "model.joblib\n"]
)
def test_a_file_that_lies_elsewhere_is_refused(builder: ModuleType, bundle: Path, name: str) -> None:
    edit(bundle, artifact=name)
    refuse(builder, bundle, r"manifest.json: artifact: .*Make the bundle anew")


def test_what_the_manifest_does_not_name_is_not_packed(builder: ModuleType, bundle: Path) -> None:
    (bundle / "notes.txt").write_text("the database's password")
    (bundle / "sub").mkdir()
    (bundle / "sub" / "more").touch()
    (bundle / "link").symlink_to("/etc/passwd")
    with tarfile.open(pack(builder, bundle)) as tar:
        assert sorted(tar.getnames()) == ["MODEL_CARD.md", "manifest.json", "model.joblib", "model.onnx"]
        assert all(member.isreg() and member.mode == 0o644 for member in tar)


@pytest.mark.parametrize("name", ["manifest.json", "model.joblib", "model.onnx", "MODEL_CARD.md"])
@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "pipe", "folder", "socket"])
def test_what_is_no_file_of_its_own_is_refused(builder: ModuleType, bundle: Path, name: str, kind: str) -> None:
    path, elsewhere = bundle / name, bundle.parent / "elsewhere"
    # The very bytes that the manifest vouches for: only what it is can be wrong.
    path.rename(elsewhere)
    match kind:
        case "symbolic link":
            path.symlink_to(elsewhere)
        case "hard link":
            path.hardlink_to(elsewhere)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            # The path of a socket may have 107 characters.
            here = os.open(bundle, os.O_RDONLY)
            socket.socket(socket.AF_UNIX).bind(f"/proc/self/fd/{here}/{name}")
            os.close(here)
    refuse(builder, bundle, rf"{name}: (cannot be read|it is a hard link)")


def test_a_device_is_refused(builder: ModuleType, bundle: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    (bundle / "model.joblib").unlink()
    os.mknod(bundle / "model.joblib", 0o644 | stat.S_IFCHR, os.makedev(1, 3))
    refuse(builder, bundle, "it is no regular file")


def test_a_file_that_is_not_the_manifests_is_refused(builder: ModuleType, bundle: Path) -> None:
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"more")
    refuse(builder, bundle, r"model.onnx: its sha256 is .*damaged or exchanged")


def test_a_huge_file_is_refused_unread_and_the_bound_can_be_raised(builder: ModuleType, bundle: Path) -> None:
    size = (bundle / "model.joblib").stat().st_size
    refuse(builder, bundle, r"model.joblib: cannot be read \(it has \d+ bytes, and \d+ are allowed\)", size - 1)
    assert pack(builder, bundle, size).exists()
    with (bundle / "manifest.json").open("r+b") as file:
        file.truncate(10**12)
    with pytest.raises(builder.BuildError, match=r"manifest.json: cannot be read \(it has 1000000000000 bytes"):
        pack(builder, bundle)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{}", b"null", b'{"name": "iris"', b"[" * 100_000])
def test_what_is_no_manifest_is_refused(builder: ModuleType, bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    refuse(builder, bundle, r"manifest.json: .*Make the bundle anew")


def test_a_bundle_that_is_not_there_is_refused(builder: ModuleType, bundle: Path) -> None:
    shutil.rmtree(bundle)
    refuse(builder, bundle, r"manifest.json: cannot be read \(No such file or directory\). iris-model pack makes")


def test_the_program_says_it_in_one_line(bundle: Path, tmp_path: Path) -> None:
    edit(bundle, name="../../evil")
    program = [sys.executable, str(ROOT / "tools" / "build-release"), "--python=3.13", "--machine=../x"]
    for model, complaint in ((bundle, "--machine is '../x'"), (tmp_path / "nowhere", "--machine is '../x'")):
        done = subprocess.run(
            [*program, f"--cache={tmp_path}", f"--model={model}"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"build-release: {complaint}")
        assert len(done.stderr.splitlines()) == 1


def refused(bundle: Path, *options: str, **environment: str) -> str:
    """Return the one line by which the program refuses."""
    command = [sys.executable, str(ROOT / "tools" / "build-release"), "--python=3.13", "--machine=x86_64"]
    done = subprocess.run(
        [*command, f"--model={bundle}", *options],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("size", ["nan", "inf", "1e303", "0", "-1"])
def test_a_bound_that_is_none_is_refused(bundle: Path, tmp_path: Path, size: str) -> None:
    line = refused(bundle, f"--max-model-mb={size}", f"--cache={tmp_path / 'cache'}")
    shown = size.replace("1e303", "1e+303")
    assert line == (
        f"build-release: iris_api_max_model_mb (--max-model-mb) is {shown};"
        " give a number of 10^6 bytes above 0, say 2000."
    )
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_is_none_and_a_git_that_is_missing_are_one_line(bundle: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.touch()
    line = refused(bundle, f"--cache={cache}")
    assert line == (
        f"build-release: {cache}: File exists. The cache (--cache) must be a folder that you may write to, and the"
        " application's files readable."
    )
    assert "below: Not a directory. The cache" in refused(bundle, f"--cache={cache / 'below'}")
    line = refused(bundle, "--plan", "--revision=HEAD", f"--cache={tmp_path / 'other'}", PATH="/nowhere")
    assert line == "build-release: git: No such file or directory. Install it: apt-get install git"


def test_a_full_disk_is_one_line(
    builder: ModuleType,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Which an archive that is written does not name."""

    def write(_archive: Path, _members: dict[str, bytes]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(builder, "write_archive", write)
    monkeypatch.setattr(builder, "plan_release", lambda *_: builder.Artifact("r1", bundle, lambda _: None))
    monkeypatch.setattr(builder, "plan_environment", lambda *_: None)
    options = ["--python=3.13", "--machine=x86_64", f"--model={bundle}", f"--cache={tmp_path / 'cache'}"]
    monkeypatch.setattr(sys, "argv", ["build-release", *options])
    assert builder.main() == 1
    said = f"{tmp_path}/cache: No space left on device. Make room there, or give another folder as --cache."
    assert capsys.readouterr() == ("", f"build-release: {said}\n")


@pytest.mark.parametrize("revision", ["--help", "--output=x", "-1", "HEAD\nx", "../x"])
def test_a_revision_is_never_an_option(builder: ModuleType, tmp_path: Path, revision: str) -> None:
    with pytest.raises(builder.BuildError, match="which is no revision"):
        builder.checkout(tmp_path, revision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("revision", ["", "HEAD"])
def test_a_plan_writes_nothing_and_says_what_would_be_built(bundle: Path, tmp_path: Path, revision: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / "build-release"), "--plan", "--python=3.13", "--machine=x86_64"]
    command += [f"--model={bundle}", f"--cache={tmp_path / 'cache'}", f"--revision={revision}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert planned["release"]["archive"] == f"{tmp_path}/cache/releases/{planned['release']['id']}-x86_64.tar"
    assert planned["model"]["archive"] == f"{tmp_path}/cache/models/{planned['model']['id']}.tar"
    assert not (tmp_path / "cache").exists()


def test_a_name_of_things_built_follows_from_their_content(builder: ModuleType, bundle: Path) -> None:
    first = pack(builder, bundle)
    card = bundle / "MODEL_CARD.md"
    card.write_text(card.read_text() + "More.\n")
    second = pack(builder, bundle)
    assert first != second and first.exists() and second.exists()
    card.unlink()
    assert pack(builder, bundle) not in {first, second}
    one = [("a", b"1"), ("b", b"2")]
    changed = [[("a", b"1"), ("b", b"3")], [("a", b"1"), ("c", b"2")], [("a", b"1")], [("ab", b"12")]]
    assert len({builder.digest(each) for each in [one, *changed]}) == 5


@pytest.fixture(scope="module")
def release(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """A release of this tree with its real wheel; an empty one stands for those that are fetched."""
    cache = tmp_path_factory.mktemp("cache")

    def download(folder: Path, *_: object) -> Path:
        folder.mkdir(parents=True)
        (folder / "numpy-0-py3-none-any.whl").touch()
        return folder

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "download", download)
        package, lock = builder.find_package(ROOT), ROOT / "requirements" / "app.txt"
        planned = builder.plan_release(package, lock, cache, "3.13", "x86_64")
        planned.build()
    folder = cache / "unpacked"
    shutil.unpack_archive(planned.archive, folder, "tar")
    yield planned, folder


def test_what_the_host_installs_is_known_by_its_hashes(builder: ModuleType, release: tuple[Any, Path]) -> None:
    _, folder = release
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert len(lines) > 20
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+( --hash=sha256:[0-9a-f]{64})+", line) for line in lines)
    (wheel,) = (folder / "wheels").glob("iris_api-*.whl")
    assert lines[-1].startswith("iris_api==")
    assert lines[-1].endswith(f"--hash=sha256:{builder.sha256(wheel)}")


def test_a_release_tells_what_it_is(release: tuple[Any, Path]) -> None:
    planned, folder = release
    about = json.loads((folder / "release.json").read_text())
    assert about["id"] == planned.id
    assert (about["python"], about["machine"]) == ("3.13", "x86_64")
    assert about["settings"] == sorted(Settings.model_fields)
    assert stat.S_IMODE((folder / "bin" / "iris-api").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "release.json").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("python", "machine", "complaint"),
    [
        ("3", "x86_64", "--python is '3'; give a version such as 3.13."),
        ("3.13.1", "x86_64", "--python is '3.13.1'"),
        ("../3.13", "x86_64", "--python is '../3.13'"),
        ("3.13", "../x86_64", "--machine is '../x86_64'; give what `uname -m` prints"),
        ("3.13", "", "--machine is ''"),
    ],
)
def test_what_a_host_says_of_itself_leads_nowhere_else(
    builder: ModuleType, tmp_path: Path, python: str, machine: str, complaint: str
) -> None:
    a_package(tmp_path / "app")
    lock = tmp_path / "app.txt"
    lock.write_text("numpy==2.4.6 --hash=sha256:00\n")
    with pytest.raises(builder.BuildError, match=f"^{re.escape(complaint)}"):
        builder.plan_release(builder.find_package(tmp_path), lock, tmp_path, python, machine)


def test_one_process_builds_at_a_time(builder: ModuleType, tmp_path: Path) -> None:
    with builder.building(tmp_path / "cache") as revisions, (tmp_path / "cache" / "build.lock").open() as other:
        assert revisions == tmp_path / "cache" / "revisions"
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / "cache" / "build.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_was_built_half_is_built_anew(builder: ModuleType, tmp_path: Path) -> None:
    def write(archive: Path) -> None:
        archive.write_text("half")
        if not (tmp_path / "space").exists():
            raise OSError("no space left")
        archive.write_text("whole")

    artifact = builder.Artifact("id", tmp_path / "releases" / "id.tar", write)
    with pytest.raises(OSError, match="no space"):
        artifact.build()
    assert not artifact.archive.exists()
    (tmp_path / "space").touch()
    artifact.build()
    assert [path.name for path in artifact.archive.parent.iterdir()] == ["id.tar"]
    assert artifact.archive.read_text() == "whole"
    (tmp_path / "space").unlink()
    # It is there: nothing is written.
    artifact.build()


def test_what_is_fetched_is_checked_by_its_hash_and_is_no_source_to_be_run(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "app.txt"
    lock.write_text("numpy==2.4.6 --hash=sha256:00\n")
    commands: list[list[str]] = []
    monkeypatch.setattr(builder, "run", lambda command, _: commands.append(command))
    assert builder.download(tmp_path / "wheels", lock, "3.13", "aarch64") == tmp_path / "wheels"
    [command] = commands
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version=3.13"} <= set(command)
    platforms = {option for option in command if option.startswith("--platform=")}
    # As new as the oldest Debian's C library, and no newer.
    assert {"--platform=manylinux_2_36_aarch64", "--platform=manylinux2014_aarch64"} <= platforms
    assert "--platform=manylinux_2_37_aarch64" not in platforms
    # Not once more.
    builder.download(tmp_path / "wheels", lock, "3.13", "aarch64")
    assert len(commands) == 1


def test_an_archive_depends_on_its_members_alone(builder: ModuleType, tmp_path: Path) -> None:
    builder.write_archive(tmp_path / "a.tar", {"b": b"2", "a": b"1", "bin/c": b"3"})
    with tarfile.open(tmp_path / "a.tar") as tar:
        found = [(each.name, each.mode, each.mtime, each.uid, each.gid, each.uname) for each in tar]
    assert found == [
        ("a", 0o644, builder.EPOCH, 0, 0, ""),
        ("b", 0o644, builder.EPOCH, 0, 0, ""),
        ("bin/c", 0o755, builder.EPOCH, 0, 0, ""),
    ]


def test_an_id_follows_from_all_that_a_release_is_made_of(builder: ModuleType, tmp_path: Path) -> None:
    lock = tmp_path / "app.txt"

    def plan(python: str = "3.13") -> str:
        return str(builder.plan_release(builder.find_package(tmp_path), lock, tmp_path / "cache", python, "x86_64").id)

    a_package(tmp_path / "app")
    lock.write_text("numpy==2.4.6 --hash=sha256:00\n")
    module = tmp_path / "app" / "src" / "module"
    ids = [plan(), plan("3.11")]
    lock.write_text("numpy==2.4.7 --hash=sha256:00\n")
    ids.append(plan())
    (module / "more.py").write_text("x = 1\n")
    ids.append(plan())
    (module / "more.py").write_text("x = 2\n")
    ids.append(plan())
    (module / "room").mkdir()
    (module / "more.py").rename(module / "room" / "more.py")
    ids.append(plan())
    (tmp_path / "app" / "pyproject.toml").open("a").write('[project.scripts]\niris-api = "x:y"\n')
    ids.append(plan())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "LAUNCHER_TEXT", "#!/bin/sh\nexec something else\n")
        ids.append(plan())
    assert len(set(ids)) == len(ids)
    assert not (tmp_path / "cache").exists()


def test_the_deployment_program_is_one_file_of_the_same_bytes_every_time(builder: ModuleType, tmp_path: Path) -> None:
    programs = [builder.plan_program(tmp_path / place) for place in ("here", "there")]
    for program in programs:
        program.build()
    assert programs[0].archive.read_bytes() == programs[1].archive.read_bytes()
    with zipfile.ZipFile(programs[0].archive) as packed:
        assert {"__main__.py", "iris_deploy/cli.py"} <= set(packed.namelist())
        golden = ROOT / "app" / "iris_api" / "src" / "iris_api" / "bundle" / "golden.py"
        assert packed.read("iris_api/bundle/golden.py") == golden.read_bytes()
        assert all(name.endswith(".py") for name in packed.namelist())
        assert {entry.date_time for entry in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_deployment_program_runs_by_the_python_of_a_host(builder: ModuleType, tmp_path: Path) -> None:
    program = builder.plan_program(tmp_path)
    program.build()
    program.archive.chmod(0o755)
    # Nothing of this checkout is found where it runs.
    command = [program.archive, "deploy", "--help"]
    done = subprocess.run(command, cwd="/", env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout


def test_an_environment_that_lacks_something_is_named() -> None:
    """As where somebody runs the playbooks by an Ansible of their own."""
    program = [sys.executable, "-S", str(ROOT / "tools" / "build-release"), "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 1
    assert re.search(r"has no module \w+\. Use the ansible-playbook of .venv/bin", done.stderr)
    assert "Traceback" not in done.stderr


def test_a_site_that_demands_signatures_takes_no_other_bundle(builder: ModuleType, bundle: Path) -> None:
    key, signers = bundle.parent / "key", bundle.parent / "signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers.write_text(f"ana@example.com {key.with_suffix('.pub').read_text()}")
    content = (bundle / "manifest.json").read_bytes()
    with pytest.raises(
        builder.BuildError, match=r"it has no signature, and this site demands one\. Sign it: iris-model"
    ):
        builder.require_signature(bundle, content, signers)
    sign(bundle, key)
    builder.require_signature(bundle, content, signers)
    with pytest.raises(builder.BuildError, match="its signature is of nobody in"):
        builder.require_signature(bundle, content + b" ", signers)
    with pytest.raises(builder.BuildError, match=r"iris_api_bundle_signers .* names no file"):
        builder.require_signature(bundle, content, bundle.parent / "none")
    # A link would show a file that is not the bundle's own.
    (bundle / "manifest.json.sig").rename(bundle.parent / "elsewhere")
    (bundle / "manifest.json.sig").symlink_to(bundle.parent / "elsewhere")
    with pytest.raises(builder.BuildError, match="cannot be read"):
        builder.require_signature(bundle, content, signers)


def test_the_signature_is_asked_for_before_anything_is_planned(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools" / "build-release"), "--plan", "--python=3.13", "--machine=x86_64"]
    (tmp_path / "signers").touch()
    command += [f"--model={bundle}", f"--cache={tmp_path / 'cache'}", f"--signers={tmp_path / 'signers'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "it has no signature" in done.stderr
