"""The documentation holds: its Python runs, its commands parse, its links lead somewhere.

Run as a program with a page as its argument, this executes the Python of that page.
"""

from __future__ import annotations

import ast
import asyncio
import faulthandler
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT = 120.0  # seconds for the Python of one page
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)

# What pages speak of without saying it again: the README's greeter, and plugins of other packages.
ASSUMED = """
import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import msgspec

import shoal
from shoal import *
from shoal.codec import Codec
from shoal.codec.json import JsonCodec

body = b'{"name": "John"}'


@dataclass
class HelloRequest:
    name: str


@dataclass
class HelloReply:
    greeting: str


class Greeter:
    async def hello(self, request: HelloRequest) -> HelloReply:
        return HelloReply(f"Hello {request.name}")


class ZebraCodec(JsonCodec):
    content_type = "application/zebra"
"""

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/]+\.py)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text and the line it begins in."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str:
        """The file whose content this is, empty if it is none."""
        found = _FILE.match(self.text)
        return found[1] if found else ""


def blocks_of(page: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page in these languages."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        indent, language, body = fence.groups()
        body = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        if language in languages:
            found.append(Block(language, body, text.count("\n", 0, fence.start()) + 2))
    return found


def execute(page: Path) -> None:
    """Run the Python blocks of a page one after the other, in a module of their own.

    What names a file is written to it first, for others to import; its `__main__` part does not
    run. A block may await at its top level.
    """
    faulthandler.dump_traceback_later(LIMIT * 0.9, exit=True)
    sys.path.insert(0, os.getcwd())
    sys.argv[1:] = []
    module = types.ModuleType("page")
    sys.modules["page"] = module
    exec(compile(ASSUMED, "assumed", "exec"), vars(module))
    blocks = blocks_of(page, "python")
    _add_plugins(vars(module), "".join(block.text for block in blocks))
    for block in blocks:
        if block.file:
            path = Path(block.file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    with asyncio.Runner() as runner:
        for block in blocks:
            if block.file:
                __import__(block.file.removesuffix(".py").replace("/", "."))
                continue
            source = "\n" * (block.line - 1) + block.text
            code = compile(source, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            made = types.FunctionType(code, vars(module))()
            if inspect.iscoroutine(made):
                runner.run(made)


def _add_plugins(namespace: dict[str, object], text: str) -> None:
    """Let a page speak of a plugin's class, such as EtcdRegistry, without importing it."""
    from shoal import plugins

    for interface, known in plugins._TABLE.items():
        for name, target in known.items():
            kind = target.partition(":")[2]
            if re.search(rf"\b{kind}\b", text):
                namespace[kind] = plugins.load(interface, name)


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
    raise SystemExit(0)


import click  # noqa: E402  # the part above runs without it
import pytest  # noqa: E402

import shoal  # noqa: E402
from shoal import plugins  # noqa: E402
from shoal._settings import SETTINGS  # noqa: E402
from shoal.cli import cli  # noqa: E402
from shoal.options import Options, OptionsError  # noqa: E402


def _pages(*languages: str) -> pytest.MarkDecorator:
    """Run a test for every page that has blocks in one of these languages."""
    pages = [page for page in PAGES if not languages or blocks_of(page, *languages)]
    return pytest.mark.parametrize(
        "page", [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in pages]
    )


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a program that sees no other, nor settings of this machine."""
    # An outsider's plugin, for pages that choose one by a name that is not in the package.
    installed = tmp_path / "installed" / "others-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[shoal.registry]\naudited = shoal.registry.memory:MemoryRegistry\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MICRO_")}
    return {
        **clean,
        "PYTHONPATH": os.pathsep.join([str(installed.parent), str(ROOT)]),
        "MICRO_REGISTRY": "memory",
        "MICRO_SERVER_ADDRESS": "127.0.0.1:0",
    }


@_pages("python")
def test_python_runs(page: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    _run([sys.executable, "-W", "error", __file__, str(page)], folder, environment)
    tests = _tests(page, folder)
    if tests:
        settings = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        (folder / "pytest.ini").write_text(f"{settings}filterwarnings = error\n")
        _run([sys.executable, "-m", "pytest", "-q", *tests], folder, environment)


def _tests(page: Path, folder: Path) -> list[str]:
    """Return the files with the tests that a page shows: its test files, and its Test classes."""
    blocks = blocks_of(page, "python")
    found = [block.file for block in blocks if block.file.startswith(("test_", "tests/"))]
    rest = "\n\n".join(block.text for block in blocks if not block.file and _is_module(block.text))
    if re.search(r"^class Test", rest, re.MULTILINE):
        (folder / "test_of_the_page.py").write_text(ASSUMED + "\n\n" + rest, encoding="utf-8")
        found.append("test_of_the_page.py")
    return found


def _is_module(text: str) -> bool:
    """Whether a block can stand in a file: it does not await at its top level."""
    try:
        compile(text, "block", "exec")
    except SyntaxError:
        return False
    return True


def _run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder, env=environment, text=True, timeout=LIMIT, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_service_and_client_find_each_other(page: str, tmp_path: Path) -> None:
    """The files of these pages, run as the programs they are, over mdns."""
    for block in blocks_of(ROOT / page, "python"):
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MICRO_")}
    environment = {**clean, "PYTHONPATH": str(ROOT), "MICRO_SERVER_ADDRESS": "127.0.0.1:0"}
    server = subprocess.Popen(
        [sys.executable, "greeter.py"],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if "Others reach it at" in line:
                break
        else:
            pytest.fail("the server ended")
        client = [sys.executable, "client.py"]
        done = _client(client, tmp_path, environment)
        for _ in range(20):  # a busy machine may not answer within the time of a look-up
            if "ServiceNotFound" in done.stderr:
                done = _client(client, tmp_path, environment)
        assert done.stdout.splitlines() == ["Hello John"], done.stderr
        server.terminate()
        assert server.wait(LIMIT) == 0
    finally:
        server.kill()
        server.wait(LIMIT)
        server.stderr.close()


def _client(
    command: list[str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT,
        check=False,
    )  # fmt: skip


# Commands

_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
_VARIABLES = {setting.env for setting in SETTINGS}
# Programs that are not ours and no services.
_OTHERS = set(
    """cat cd consul cp curl docker echo etcd eval export git go kill ls micro mkdir nats
    nats-server openssl tree""".split()
)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, and the line after it."""

    words: list[str]
    variables: dict[str, str]
    output: str


def _commands(page: Path) -> list[Command]:
    found = []
    for block in blocks_of(page, "console", "sh"):
        lines = block.text.replace("\\\n", " ").splitlines()
        for line, output in zip(lines, [*lines[1:], ""], strict=True):
            if line.startswith("$ ") or block.language == "sh":
                found += _split(line.removeprefix("$ "), output)
    return found


def _split(line: str, output: str) -> list[Command]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    pieces: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            pieces.append([])
        else:
            pieces[-1].append(word)
    found = []
    for words in pieces:
        variables = {}
        while words and (assigned := _ASSIGNMENT.fullmatch(words[0])):
            variables[assigned[1]] = assigned[2]
            words = words[1:]
        if any(set(word) <= set("<>") for word in words):
            words = words[: next(i for i, word in enumerate(words) if set(word) <= set("<>"))]
        if words:
            found.append(Command(words, variables, output))
    return found


@_pages("console", "sh")
def test_commands_exist(page: Path) -> None:
    files = {block.file for block in blocks_of(page, "python")} | {"service.py"}
    for command in _commands(page):
        name, *arguments = command.words
        unknown = {word for word in command.variables if word.startswith("MICRO_")} - _VARIABLES
        assert not unknown, f"nobody reads {unknown}"
        if name == "shoal":
            _parse(cli, "shoal", arguments)
        elif name == "make":
            assert {word for word in arguments if "=" not in word} <= _TARGETS, command.words
        elif name in {"pip", "pipx", "uv"}:
            _check_extras(arguments)
        elif name.startswith("python"):
            _check_python(command, files)
        elif name not in _OTHERS:
            _check_service(command, arguments)


def _parse(
    command: click.Command, name: str, arguments: list[str], parent: click.Context | None = None
) -> None:
    """Parse a command line of ours without running it; raises for what does not exist."""
    try:
        context = command.make_context(name, list(arguments), parent=parent)
    except click.exceptions.Exit as shown:  # --help, --version
        if shown.exit_code:
            raise
        return
    if isinstance(command, click.Group):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        found, inner, rest = command.resolve_command(context, rest)
        assert inner is not None
        _parse(inner, str(found), rest, context)


def _check_extras(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in arguments:
        for extra in re.findall(r"shoal\[([\w,-]+)\]", word):
            assert set(extra.split(",")) <= set(project["optional-dependencies"]), word


def _check_python(command: Command, files: set[str]) -> None:
    script = command.words[1]
    if script == "-m":
        module = command.words[2]
        assert (
            module in {"pytest", "venv", "pip", "grpc_tools.protoc", "shoal", "mypy"}
            or (ROOT / module.replace(".", "/")).exists()
            or (ROOT / f"{module.replace('.', '/')}.py").exists()
        ), module
        return
    if script.startswith("-"):
        return
    known = files | {path.name for path in ROOT.glob("examples/*/*.py")}
    assert Path(script).name in known or (ROOT / script).exists(), script
    _check_service(command, command.words[2:])


def _check_service(command: Command, arguments: list[str]) -> None:
    """Read flags and variables as a service would; an error must be the one the page shows."""
    name = Path(command.words[1] if command.words[0].startswith("python") else command.words[0])
    said = ""
    try:
        Options(name=name.stem).read(arguments, command.variables)
    except OptionsError as error:
        said = f"{name.stem}: {error}"
    assert said in {"", command.output}


# Data


@_pages("toml", "json")
def test_data_parses(page: Path) -> None:
    for block in blocks_of(page, "toml"):
        tomllib.loads(block.text)
    for block in blocks_of(page, "json"):
        json.loads(block.text)


# Links

_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def _prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code forges make them."""
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        repeated = sum(known == anchor or known.startswith(f"{anchor}-") for known in anchors)
        anchors.add(f"{anchor}-{repeated}" if anchor in anchors else anchor)
    return anchors


@_pages()
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_prose(page)):
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link} does not exist"
        assert path.is_relative_to(ROOT), f"{link} is outside"
        if anchor and path.suffix == ".md":
            assert anchor in _anchors(path), f"{link}: {path.name} has no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in seen:
            continue
        seen.add(page)
        for link in _LINK.findall(_prose(page)):
            path = (page.parent / link.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.exists():
                ahead.append(path)
    pages = {path for path in PAGES if path.parent == ROOT / "docs"}
    assert not {path.name for path in pages - seen}


# What must be said


@pytest.mark.parametrize("interface", plugins.interfaces())
def test_every_plugin_is_on_its_page_and_in_the_readme(interface: str) -> None:
    page = (ROOT / "docs" / f"{interface}.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| \[{interface}\].*$", readme, re.MULTILINE)
    for name in plugins._TABLE[interface]:
        assert f"`{name}`" in page, f"{name} is not on docs/{interface}.md"
        assert f"`{name}`" in row, f"{name} is not in the README's table"


@pytest.mark.parametrize("name", shoal.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    word = re.compile(rf"`(?:@?shoal\.)?{name}\b|shoal\.{name}\b")
    pages = [path for path in PAGES if path.parent == ROOT / "docs"]
    assert any(word.search(page.read_text(encoding="utf-8")) for page in pages)
