"""The rules that CONTRIBUTING.md states, held to by the files themselves."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal import plugins

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "shoal"
SOURCES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "__pycache__"
)
CORE = ["asyncio", "httptools", "msgspec", "uvloop"]

MODULE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 8
ROOT_NAMES = 25

# Public modules of an interface's folder that are no implementation.
BESIDE = {"shoal.selector.filters"}
# Who may ask for the time of day: what people and Go's tools read are dates.
DATED = {"shoal.server._debug", "shoal.server.rpc"}
# Threads beside the event loop, whose clock stands still when they need one, and who bounds a turn.
BESIDE_THE_LOOP = {
    "shoal.service._health_port",
    "shoal.service._watchdog",
    "shoal.service._workers_health",
    "shoal.transport.memory",
}
# Metrics are of real time, and finer than the milliseconds of uvloop's clock.
MEASURING = {"shoal.telemetry._otel", "shoal.telemetry._prometheus"}


def name_of(path: Path) -> str:
    """Return the name a module is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def table() -> dict[str, dict[str, str]]:
    """Return interface, name and `module:Class` of every plugin the package brings."""
    return plugins._TABLE


IMPLEMENTATIONS = [
    pytest.param(interface, name, target, id=f"{interface}-{name}")
    for interface, known in table().items()
    for name, target in known.items()
]
every_module = pytest.mark.parametrize(
    "path", [pytest.param(path, id=name_of(path)) for path in SOURCES]
)


# The table of plugins


def test_the_table_is_alphabetical() -> None:
    assert list(table()) == sorted(table())
    for known in table().values():
        assert list(known) == sorted(known)


@pytest.mark.parametrize(("interface", "name", "target"), IMPLEMENTATIONS)
def test_a_plugin_is_a_file_named_as_it_is_typed(interface: str, name: str, target: str) -> None:
    module, _, attribute = target.partition(":")
    assert module == f"shoal.{interface}.{name.replace('-', '_')}"
    contract = getattr(importlib.import_module(f"shoal.{interface}"), interface.capitalize())
    kind = getattr(importlib.import_module(module), attribute)
    assert contract in kind.__mro__, f"{attribute} must name {contract.__name__} as its base"


@pytest.mark.parametrize("interface", table())
def test_every_file_of_an_interface_is_in_the_table(interface: str) -> None:
    files = {
        name_of(path)
        for path in (PACKAGE / interface).iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.name[0] != "_"
    }
    assert files - BESIDE == {target.partition(":")[0] for target in table()[interface].values()}


@pytest.mark.parametrize(("interface", "name", "target"), IMPLEMENTATIONS)
def test_every_plugin_passes_the_suite_of_its_interface(
    interface: str, name: str, target: str
) -> None:
    suite = PACKAGE / "testing" / "conformance" / f"{interface}.py"
    suites = {
        node.name
        for node in tree_of(suite).body
        if isinstance(node, ast.ClassDef) and node.name.endswith("Conformance")
    }
    assert suites, f"{suite} holds no suite"
    stem = target.partition(":")[0].rpartition(".")[2]
    tests = ROOT / "tests" / interface / f"test_{stem}.py"
    bases = {
        ast.unparse(base).rpartition(".")[2]
        for node in tree_of(tests).body
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test")
        for base in node.bases
    }
    assert bases & suites, f"no class in {tests.relative_to(ROOT)} derives from {suites}"


# What the root package is


def test_the_root_exports_few_names_and_lists_all_of_them() -> None:
    assert len(shoal.__all__) <= ROOT_NAMES
    assert shoal.__all__ == sorted(shoal.__all__)
    public = {
        name
        for name, value in vars(shoal).items()
        if name[0] != "_" and not inspect.ismodule(value)
    }
    assert public == set(shoal.__all__)


def test_no_module_is_called_like_an_export() -> None:
    modules = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not modules & set(shoal.__all__)


def _run(code: str, **environment: str) -> Any:
    """Return what a new interpreter prints, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment},
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_importing_shoal_loads_core_dependencies_only() -> None:
    loaded = _run(
        f"import sys, json, {', '.join(CORE)}; before = set(sys.modules); import shoal; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    tops = {name.partition(".")[0] for name in loaded}
    assert {name for name in tops if name not in sys.stdlib_module_names} == {"shoal"}
    targets = {target.partition(":")[0] for known in table().values() for target in known.values()}
    assert not targets & set(loaded), "an implementation is imported before it is asked for"
    assert not {"shoal.testing", "shoal.cli"} & set(loaded)


def test_importing_shoal_costs_about_what_its_dependencies_cost(tmp_path: Path) -> None:
    # All is compiled by the first run, whether or not this machine keeps compiled files.
    compiled = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    code = "import time; begun = time.perf_counter(); import {}; print(time.perf_counter() - begun)"
    best = {"shoal": 60.0, ", ".join(CORE): 60.0}
    for _ in range(10):
        for names in best:
            best[names] = min(best[names], _run(code.format(names), **compiled))
    own, core = best.values()
    assert own <= 2 * core, f"{own * 1000:.0f} ms, {core * 1000:.0f} ms of its dependencies"


# What a module is


@every_module
def test_a_module_opens_with_its_name_and_what_it_is_for(path: Path) -> None:
    first, _, rest = (ast.get_docstring(tree_of(path)) or "").partition("\n")
    name = name_of(path).rpartition(".")[2]
    if path.parent == PACKAGE and path.stem == "__init__":
        assert first.startswith("Shoal ")
    else:
        assert first.startswith((f"Package {name} ", f"Module {name} "))
    assert first.endswith((".", ":"))
    assert not rest or rest.startswith("\n"), "the first line must be the whole sentence"


@every_module
def test_modules_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= MODULE_LINES, f"{len(lines)} lines"
    for function in functions(ast.parse(text)):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= FUNCTION_LINES, f"{function.name} has {length} lines"
        arguments = function.args
        names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        count = sum(argument.arg not in {"self", "cls"} for argument in names)
        signature = "\n".join(lines[function.lineno - 1 : function.body[0].lineno])
        assert count <= PARAMETERS or "#" in signature, (
            f"{function.name} has {count} parameters, and no comment in its signature says why"
        )


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=name_of(path))
        for path in SOURCES
        if not any(part[0] == "_" for part in name_of(path).split("."))
    ],
)
def test_what_is_public_has_a_docstring(path: Path) -> None:
    """A method that a contract describes need not repeat it."""
    module = importlib.import_module(name_of(path))
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
            assert ast.get_docstring(node), f"{node.name} has no docstring"
        if not isinstance(node, ast.ClassDef) or node.name[0] == "_":
            continue
        assert ast.get_docstring(node), f"{node.name} has no docstring"
        for method in node.body:
            if (
                isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                and method.name[0] != "_"
                and not method.name.startswith("test_")
            ):
                found = getattr(getattr(module, node.name), method.name)
                assert inspect.getdoc(found), f"{node.name}.{method.name} has no docstring"


@every_module
def test_the_library_neither_prints_nor_keeps_its_own_time(path: Path) -> None:
    tree = tree_of(path)
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    if not name_of(path).startswith("shoal.cli"):
        assert "print" not in called
    clocks = {"time.monotonic", "time.perf_counter", "time.sleep"}
    if name_of(path) not in DATED:
        clocks.add("time.time")
    if name_of(path) in BESIDE_THE_LOOP:
        clocks.discard("time.monotonic")
    if name_of(path) in MEASURING:
        clocks.discard("time.perf_counter")
    assert not used & clocks, "time is the event loop's: loop.time()"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.ImportFrom) or node.module != "time", "write time.name"


# What the repository is


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # a release unpacked without its history
        every = [(path, path.relative_to(ROOT).parts) for path in ROOT.rglob("*")]
        found = [path for path, parts in every if parts[0][0] != "." and "__pycache__" not in parts]
    return [path for path in found if path.is_file()]


def _texts() -> Iterator[tuple[str, str]]:
    for path in _tracked():
        try:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_nothing_speaks_of_the_machine_it_was_written_on() -> None:
    homes = "|".join(["home", "Users", "root", "work", "workspace"])
    local = re.compile(rf"(?<![\w.$}})/-])/(?:{homes})/\w+")
    found = [f"{name}: {hit[0]}" for name, text in _texts() for hit in local.finditer(text)]
    assert not found


def test_an_ignore_carries_its_code_and_a_reason() -> None:
    ignore = re.compile(r"#\s*(?:type|pyright): *ignore(.*)")
    found = [
        f"{name}: {hit[0]}"
        for name, text in _texts()
        if name.endswith(".py") and name != "tests/test_rules.py"
        for hit in ignore.finditer(text)
        if not re.match(r"\[[\w, -]+\]\s+# \w", hit[1])
    ]
    assert not found


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == {
        path.relative_to(ROOT).as_posix() for path in _tracked() if path.is_relative_to(PACKAGE)
    }
    assert "shoal/py.typed" in packed
    assert not [name for name in packed if "_pb2" in name or "__pycache__" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)
