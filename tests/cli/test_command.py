"""Flags of services on every command, unknown words, failures as a sentence, a light start."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from shoal._settings import SETTINGS
from shoal.cli import _exits
from shoal.errors import (
    BadRequest,
    Conflict,
    Error,
    NotFound,
    ServiceNotFound,
    Timeout,
    Unavailable,
)

from .conftest import Greeter, Invoke, environment, shoal_process


def test_help_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys, json\nsys.argv = ['shoal', '--help']\nfrom shoal.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"rich", "uvloop", "google", "pydantic", "grpc"}


@pytest.mark.parametrize("module", ["shoal", "shoal.cli"])
def test_the_command_is_a_module_too(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        env=environment(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("Usage: shoal [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    "flags",
    [
        ["--registry", "static", "--registry_address", "a=1.2.3.4:5", "services"],
        ["services", "--registry=static", "--registry-address=a=1.2.3.4:5"],
        ["--registry", "mdns", "services", "--registry", "static://a=1.2.3.4:5"],
        ["--registry", "static://a=1.2.3.4:5", "list", "services"],
    ],
)
def test_flags_of_services_before_or_after_the_command(invoke: Invoke, flags: list[str]) -> None:
    result = invoke(*flags)
    assert (result.exit_code, result.stdout) == (0, "a\n")


def test_the_environment_is_read(invoke: Invoke) -> None:
    assert invoke("services", MICRO_REGISTRY="static://b=1.2.3.4:5").stdout == "b\n"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_flag_of_a_service_is_known(invoke: Invoke, setting: object) -> None:
    name = getattr(setting, "name", "")
    kind = getattr(setting, "kind", None)
    text = {"duration": "1s", "number": "1", "size": "1MiB", "boolean": "false"}.get(
        getattr(kind, "name", ""), ""
    )
    for flag in (f"--{name}", f"--{name.replace('_', '-')}"):
        result = invoke("--registry=static", "services", f"{flag}={text}")
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(("flag", "code"), [("--tls", 3), ("--tls=true", 3), ("--tls=false", 4)])
def test_a_switch_may_have_a_value(invoke: Invoke, greeter: Greeter, flag: str, code: int) -> None:
    assert invoke(*greeter.flags, flag, "call", greeter.name, "Greeter.Hello").exit_code == code


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["servces"], "there is no command 'servces': did you mean 'services'?"),
        (["list", "x"], "there is no command 'x': see --help"),
        (["services", "--nope"], "No such option"),
        (["services", "--register_ttl", "soon"], "--register_ttl: 'soon' is no duration"),
        (["services", "--registry", "mdsn"], "there is no registry 'mdsn': did you mean 'mdns'?"),
        (["services", "--registry", "static", "--registry-address", "x=y"], "'y' must be host:p"),
        (["services", "--profile", "x"], "--profile: 'x' is not known"),
    ],
)
def test_what_cannot_be_understood_is_a_sentence_and_code_2(
    invoke: Invoke, arguments: list[str], sentence: str
) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not result.stdout


def test_no_traceback_unless_it_is_asked_for() -> None:
    flags = ["--registry", "static", "describe", "nobody"]
    quiet, debug = shoal_process(*flags), shoal_process("--debug", *flags)
    assert quiet.stderr == (
        "shoal: there is no service 'nobody' in the registry static: nothing is registered there\n"
    )
    assert quiet.returncode == debug.returncode == 3
    assert "Traceback" in debug.stderr
    assert debug.stderr.endswith(quiet.stderr)


@pytest.mark.parametrize(
    ("error", "code", "source"),
    [
        (ServiceNotFound("a", id="shoal.client"), 3, "503 Service Unavailable from shoal.client"),
        (Unavailable("a", id="shoal.broker"), 3, "503 Service Unavailable from shoal.broker"),
        (Unavailable("a", id="greeter"), 4, "503 Service Unavailable from greeter"),
        (NotFound("rpc: can't find method X", id="greeter"), 3, "404 Not Found from greeter"),
        (NotFound("a", id="greeter"), 4, "404 Not Found from greeter"),
        (Conflict("a", id="x"), 4, "409 Conflict from x"),
        (Error("a"), 4, ""),
        (Error("a", id="x", code=799), 4, "799 from x"),
        (Timeout("a", id="greeter"), 5, "408 Request Timeout from greeter"),
        (BadRequest("a", id="shoal.transport"), 2, "400 Bad Request from shoal.transport"),
        (BadRequest("a", id="greeter"), 4, "400 Bad Request from greeter"),
    ],
)
def test_what_errors_end_with(error: Error, code: int, source: str) -> None:
    failure = _exits.failure(error)
    assert failure.code == code
    assert failure.message == (f"{error.detail} ({source})" if source else error.detail)
