"""Names become classes: ours, those under other names, and those of other packages."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal import plugins
from shoal.plugins import PluginError, interfaces, load, names, plugin_name
from shoal.transport.memory import MemoryTransport

ROOT = Path(__file__).parents[1]


def test_every_name_loads() -> None:
    for interface in interfaces():
        for name in names(interface):
            kind = load(interface, name)
            assert callable(kind)
            assert plugins._TABLE[interface][name].endswith(f":{kind.__name__}")


def test_the_interfaces() -> None:
    assert interfaces() == ["broker", "client", "codec", "registry", "selector", "server",
                            "transport"]  # fmt: skip


def test_other_names_lead_to_plugins() -> None:
    for (interface, alias), name in plugins._ALIASES.items():
        assert alias not in plugins._TABLE[interface], "a name of its own would never be found"
        assert load(interface, alias) is load(interface, name)
    assert load("client", "mucp") is load("client", "rpc")
    assert load("selector", "registry") is load("selector", "p2c")


def test_the_name_of_a_plugin() -> None:
    assert plugin_name(MemoryTransport()) == "memory"


@pytest.mark.parametrize(
    ("interface", "name", "words"),
    [
        ("transport", "htp", "there is no transport 'htp': did you mean 'http'?"),
        ("registry", "mdsn", "did you mean 'mdns'?"),
        ("transport", "zebra", "known are http, memory"),
        ("transport", "", "known are http, memory"),
        ("selector", "P2C", "there is no selector 'P2C'"),
        ("transport", "os.path:join", "there is no transport"),
    ],
)
def test_an_unknown_name(interface: str, name: str, words: str) -> None:
    with pytest.raises(PluginError) as caught:
        load(interface, name)
    assert words in str(caught.value)


# Extras


def extras() -> dict[str, list[str]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: dict[str, list[str]] = settings["project"]["optional-dependencies"]
    return found


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let a test plugin import what is not installed."""
    monkeypatch.setitem(plugins._TABLE["transport"], "zebra", "tests.plugin_zebra:Zebra")
    yield monkeypatch
    sys.modules.pop("tests.plugin_zebra", None)


def test_a_missing_library_names_the_command(missing: pytest.MonkeyPatch) -> None:
    def absent(name: str, package: str | None = None) -> object:
        raise ModuleNotFoundError("No module named 'zebralib.core'", name="zebralib.core")

    missing.setattr(importlib, "import_module", absent)
    with pytest.raises(PluginError) as caught:
        load("transport", "zebra")
    assert str(caught.value) == (
        "the transport 'zebra' needs 'zebralib.core': pip install 'shoal[zebra]'"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_library_with_an_extra_of_another_name(missing: pytest.MonkeyPatch) -> None:
    def absent(name: str, package: str | None = None) -> object:
        raise ModuleNotFoundError("No module named 'google'", name="google.protobuf")

    missing.setattr(importlib, "import_module", absent)
    with pytest.raises(PluginError, match=r"pip install 'shoal\[proto\]'"):
        load("transport", "zebra")


@pytest.mark.parametrize("name", ["shoal.nothing", None])
def test_our_own_mistakes_stay_what_they_are(missing: pytest.MonkeyPatch, name: str | None) -> None:
    def broken(module: str, package: str | None = None) -> object:
        raise ModuleNotFoundError("No module named 'shoal.nothing'", name=name)

    missing.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError):
        load("transport", "zebra")


def test_extras_exist_and_all_of_them_are_in_all() -> None:
    known = extras()
    for extra in plugins._EXTRAS.values():
        assert extra in known
    (everything,) = known["all"]
    assert set(everything.removeprefix("shoal[").removesuffix("]").split(",")) == set(known) - {
        "all"
    }


@pytest.mark.parametrize(
    "name",
    [
        pytest.param((interface, name), id=f"{interface}-{name}")
        for interface, known in plugins._TABLE.items()
        for name in known
    ],
)
def test_a_plugin_needs_no_more_than_its_extra(name: tuple[str, str]) -> None:
    """With only the core installed it loads, or the error names an extra that exists."""
    program = """
import importlib.abc, sys
core = {"msgspec", "httptools", "uvloop", "click", "rich", "shoal", "_cython_3"}
class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top not in core and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Only())
from shoal.plugins import PluginError, load
try:
    load(*sys.argv[1:])
except PluginError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    if done.stdout:
        extra = done.stdout.rpartition("shoal[")[2].partition("]")[0]
        assert extra in extras(), done.stdout


# Plugins of other packages


@pytest.fixture
def outsider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package that brings a transport and a registry called like one of ours."""
    (tmp_path / "shoal_zebra.py").write_text("class Zebra:\n    pass\nclass Mine:\n    pass\n")
    information = tmp_path / "shoal_zebra-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: shoal-zebra\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        "[shoal.transport]\nzebra = shoal_zebra:Zebra\nmemory = shoal_zebra:Mine\n"
        "broken = shoal_absent:Thing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("shoal_zebra", None)


@pytest.mark.usefixtures("outsider")
def test_an_outsider_is_found_by_its_entry_point() -> None:
    assert "shoal_zebra" not in sys.modules
    assert "zebra" in names("transport")
    assert names("transport") == sorted(names("transport"))
    assert "shoal_zebra" not in sys.modules, "listing names imports nothing"
    assert load("transport", "zebra").__name__ == "Zebra"
    assert "zebra" not in names("registry")


@pytest.mark.usefixtures("outsider")
def test_an_outsider_does_not_take_our_names() -> None:
    assert load("transport", "memory") is MemoryTransport
    assert names("transport").count("memory") == 1


@pytest.mark.usefixtures("outsider")
def test_an_outsider_that_is_not_there() -> None:
    with pytest.raises(PluginError, match="needs 'shoal_absent'"):
        load("transport", "broken")


@pytest.mark.usefixtures("outsider")
def test_an_outsider_is_a_hint() -> None:
    with pytest.raises(PluginError, match="did you mean 'zebra'"):
        load("transport", "zebre")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    program = (
        "import sys, shoal.plugins as plugins\n"
        "before = set(sys.modules)\n"
        "plugins.names('transport'); plugins.interfaces()\n"
        "print([name for name in set(sys.modules) - before if name.startswith('shoal')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
