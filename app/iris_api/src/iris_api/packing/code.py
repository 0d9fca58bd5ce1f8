"""The user's own code in a bundle: a module, a package or a wheel, of which an environment gets a wheel."""

import ast
import base64
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# The same code makes the same wheel; a zip file holds no date before 1980.
_DATE = (1980, 1, 1, 0, 0, 0)
_WHEEL = re.compile(r"([A-Za-z0-9_.]+)-([0-9][A-Za-z0-9_.]*)((?:-[A-Za-z0-9_.]+){3})\.whl")


class CodeError(Exception):
    """What was given as code can't become a wheel; the message says what to give."""


@dataclass(frozen=True)
class Code:
    """Some of the user's own code, as a wheel."""

    name: str
    """File name of the wheel."""
    content: bytes
    source: Path
    """What to put on the path of modules, so that it can be imported here."""
    modules: frozenset[str]
    """Names of the modules and packages that it brings, without dots."""
    imports: frozenset[str]
    """Names of those that its sources import, without dots."""

    @property
    def requirement(self) -> str:
        """The wheel as a line of requirements, with its hash."""
        return requirement(self.name, hashlib.sha256(self.content).hexdigest())


def requirement(wheel: str, sha256: str) -> str:
    """Return a wheel, by the name of its file, as a line of requirements with its hash."""
    name, version = wheel.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{sha256}"


def read_code(path: Path) -> Code:
    """Return a module `NAME.py`, the folder of a package, or a wheel as a wheel; raise CodeError for anything else."""
    try:
        if path.suffix == ".whl":
            return _read_wheel(path)
        if path.is_dir() and path.name.isidentifier() and (path / "__init__.py").is_file():
            files = sorted(each for each in path.rglob("*") if each.is_file() and _is_own(each.relative_to(path)))
            return _make_wheel(path, {f"{path.name}/{each.relative_to(path)}": each.read_bytes() for each in files})
        if path.suffix == ".py" and path.stem.isidentifier():
            return _make_wheel(path, {path.name: path.read_bytes()})
    except (OSError, zipfile.BadZipFile, SyntaxError) as error:
        raise CodeError(f"{path}: cannot be read ({error}). Give a file of Python or a wheel.") from None
    raise CodeError(
        f"{path}: --code takes a module (features.py), the folder of a package (with an __init__.py), or a wheel "
        "(features-1.0-py3-none-any.whl)."
    )


def _is_own(path: Path) -> bool:
    return "__pycache__" not in path.parts and not any(part.startswith(".") for part in path.parts)


def _read_wheel(path: Path) -> Code:
    found = _WHEEL.fullmatch(path.name)
    if not found:
        raise CodeError(
            f"{path}: a wheel is called NAME-VERSION-py3-none-any.whl, with letters, digits, dots and _ in name and "
            "version."
        )
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name and ".data/" not in name]
        sources = [wheel.read(name) for name in names if name.endswith(".py")]
    modules = {name.split("/")[0].split(".")[0] for name in names}
    return Code(path.name, content, path, frozenset(modules), frozenset(_imports(sources)) - modules)


def _make_wheel(path: Path, files: dict[str, bytes]) -> Code:
    """Make a wheel whose version follows from its content: two versions of a module are never taken for one."""
    digest = hashlib.sha256(b"".join(name.encode() + b"\0" + content for name, content in sorted(files.items())))
    module = path.stem if path.suffix == ".py" else path.name
    # No package of an index is called so: its own name may be that of somebody else's there.
    name, version = f"bundle_code_{module.lower()}", f"0.{int(digest.hexdigest()[:12], 16)}"
    about = f"{name}-{version}.dist-info"
    members = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: iris-model\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{each},sha256={_digest(content)},{len(content)}\n" for each, content in members.items())
    members[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as wheel:
        for each, content in members.items():
            entry = zipfile.ZipInfo(each, _DATE)
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, content)
    imports = _imports(content for each, content in files.items() if each.endswith(".py"))
    return Code(
        f"{name}-{version}-py3-none-any.whl",
        buffer.getvalue(),
        path.absolute().parent,
        frozenset({module}),
        frozenset(imports) - {module},
    )


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _imports(sources: Iterable[bytes]) -> Iterator[str]:
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0]


def make_importable(code: Sequence[Code]) -> None:
    """Let this process import the code."""
    for each in reversed(code):
        if (place := str(each.source)) not in sys.path:
            sys.path.insert(0, place)
