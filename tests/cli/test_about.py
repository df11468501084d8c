"""What is installed, and what a shell completes."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from shoal import plugins
from shoal.cli import about

from .conftest import Greeter, Invoke, shoal_process

ROOT = Path(__file__).parents[2]


def test_plugins(invoke: Invoke) -> None:
    found = json.loads(invoke("plugins", "--json").stdout)
    assert {(one["interface"], one["name"]) for one in found} == {
        (interface, name) for interface in plugins.interfaces() for name in plugins.names(interface)
    }
    mdns = next(one for one in found if one["name"] == "mdns")
    assert mdns == {
        "interface": "registry",
        "name": "mdns",
        "from": "built in",
        "installed": True,
        "problem": "",
    }
    memory = next(one for one in found if (one["interface"], one["name"]) == ("broker", "memory"))
    assert memory["guarantees"]["delivery"] == "at most once"
    assert memory["guarantees"]["groups"]
    lines = invoke("plugins", "registry").stdout.splitlines()
    assert lines[0].split() == ["INTERFACE", "NAME", "FROM", "STATE"]
    assert all(line.startswith("registry ") for line in lines[1:])


def test_what_brokers_promise_is_shown_and_on_their_page(invoke: Invoke) -> None:
    text = invoke("plugins", "broker").stdout
    table = text.partition("\n\n")[2]
    assert table.startswith("BROKER         DELIVERY       GROUPS")
    assert "\nmemory         at most once   yes" in table
    names = [line.split()[0] for line in table.splitlines()[1:]]
    assert names == sorted(plugins.names("broker"))
    assert table in (ROOT / "docs" / "broker.md").read_text()


def test_plugins_of_others_and_those_that_lack_something(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [
        EntryPoint("zebra", "json:JSONDecoder", "shoal.registry"),
        EntryPoint("broken", "no_such_library:Thing", "shoal.registry"),
    ]
    for module in (importlib.metadata, about):
        monkeypatch.setattr(module, "entry_points", lambda group: points)
    found = {one["name"]: one for one in json.loads(invoke("plugins", "registry", "--json").stdout)}
    assert found["zebra"]["installed"]
    assert found["zebra"]["from"] == "an outside package"
    assert not found["broken"]["installed"]
    assert "pip install 'shoal[broken]'" in found["broken"]["problem"]


def test_version(invoke: Invoke) -> None:
    found = json.loads(invoke("version", "--json").stdout)
    assert found["python"] == platform.python_version()
    assert {"shoal", "platform", "msgspec", "httptools", "uvloop", "click", "rich"} <= set(found)
    assert invoke("version").stdout.startswith(f"shoal      {found['shoal']}\n")
    assert invoke("--version").stdout == f"shoal {found['shoal']}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_of_each_shell(invoke: Invoke, shell: str) -> None:
    script = invoke("completion", shell).stdout
    assert script.startswith("# ")
    assert f"_SHOAL_COMPLETE={shell}_complete" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True, timeout=60)


def completed(*words: str, **more: str) -> list[str]:
    """Return what bash is told the last word can become."""
    done = shoal_process(
        COMP_WORDS=" ".join(("shoal", *words)),
        COMP_CWORD=str(len(words)),
        _SHOAL_COMPLETE="bash_complete",
        **more,
    )
    assert done.stderr == ""
    return [line.removeprefix("plain,") for line in done.stdout.split()]


def test_names_are_completed(greeter: Greeter) -> None:
    begin = greeter.name[:-3]
    assert completed("call", begin) == [greeter.name]
    assert completed("get", "service", begin) == [greeter.name]
    endpoints = ["Greeter.Count", "Greeter.Echo", "Greeter.Hello", "Greeter.Meta", "Greeter.Sum"]
    assert completed(*greeter.flags, "call", greeter.name, "G") == endpoints
    assert completed(*greeter.flags, "subscribe", "c") == ["counts"]
    assert completed("des") == ["describe"]


def test_flags_are_completed() -> None:
    assert completed("services", "--registry-a") == ["--registry-address"]
    assert completed("services", "--registry", "m") == ["mdns", "memory", "multi"]


def test_what_goes_wrong_completes_to_nothing() -> None:
    for registry in ("nonsense", "static:///nowhere", "static://x"):
        assert completed("call", "gr", MICRO_REGISTRY=registry) == []
    assert completed("call", "gr", MICRO_REGISTER_TTL="soon") == []
    assert completed("call", "nobody-has-this-name", "G") == []
