"""Module new writes the small project a service begins with."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

# Words joined by dashes, underscores or dots; a DNS label's length, which registries can carry.
_NAME = re.compile(r"[a-z][a-z0-9]*([-_.][a-z][a-z0-9]*)*")
_LONGEST = 63
_LONGEST_PACKAGE = 32
_TAKEN = sys.stdlib_module_names | {"shoal", "tests"}
_TAKEN_TYPES = frozenset({"HelloReply", "HelloRequest"})


class NewError(Exception):
    """The project cannot be made; the sentence says why."""


def create(name: str, directory: Path) -> list[Path]:
    """Write the project of a service into a new or empty directory, and return its files.

    A name with dots (`go.micro.srv.greeter`) gives its last part to the package and the handler.
    Raises NewError for a name that cannot be one, and a directory that cannot be used.
    """
    package = _package(name)
    kind = _type(package)
    # `shoal.testing.serve` names a service like its handler's class in lower case.
    words = {"name": name, "package": package, "type": kind, "served": kind.lower()}
    texts = {_filled(path, words): _filled(text, words) for path, text in _templates()}
    written = []
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise NewError(f"{directory} exists already: name an empty or a new directory")
        for path, text in texts.items():
            file = directory / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            written.append(file)
    except OSError as error:
        where = error.filename or directory
        raise NewError(f"cannot write {where}: {error.strerror or error}") from error
    return written


def _package(name: str) -> str:
    """Return the package's name; raises NewError if the service cannot be called so."""
    if not _NAME.fullmatch(name):
        usable = re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower())
        usable = re.sub(r"(^|-)[-0-9]+", r"\1", usable).strip("-") or "greeter"
        raise NewError(
            f"{name!r} cannot be a service's name: write lower-case words joined by dashes or dots,"
            f" such as {usable}"
        )
    package = name.rpartition(".")[2].replace("-", "_")
    if len(name) > _LONGEST or len(package) > _LONGEST_PACKAGE:
        raise NewError(
            f"{name!r} is too long: {_LONGEST} characters, {_LONGEST_PACKAGE} after the last dot"
        )
    kind = _type(package)
    if package in _TAKEN or keyword.iskeyword(package) or keyword.iskeyword(kind):
        raise NewError(f"{name!r} cannot be a service's name: {package} is taken in Python")
    if kind in _TAKEN_TYPES:
        raise NewError(f"{name!r} cannot be a service's name: its message is called {kind}")
    return package


def _type(package: str) -> str:
    return "".join(word.capitalize() for word in package.split("_"))


def _filled(text: str, words: dict[str, str]) -> str:
    for name, word in words.items():
        text = text.replace("{{" + name + "}}", word)
    return text


def _templates() -> Iterator[tuple[str, str]]:
    """Yield where each file goes, and what is in it, both with words to fill in."""
    for path, file in _walk(files("shoal.cli") / "_templates", PurePosixPath()):
        target = str(path).removesuffix(".txt").replace("PACKAGE", "{{package}}")
        target = ".gitignore" if target == "gitignore" else target
        yield target, file.read_text(encoding="utf-8")


def _walk(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            yield from _walk(item, path / item.name)
        elif item.name.endswith(".txt"):
            yield path / item.name, item
