"""The program one is writing: begun, run, and run again when its files change."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import time
from pathlib import Path

import pytest

from .conftest import Invoke, running

# Says what it is, stops in order, and counts its starts.
PROGRAM = textwrap.dedent(
    """
    import os, signal, sys, time
    from helper import VERSION

    def stop(number, frame):
        time.sleep(0.2)
        print("stopped by", signal.Signals(number).name)
        raise SystemExit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    print("started", VERSION, sys.argv[1:], os.environ.get("MICRO_SERVER_NAME"))
    while True:
        time.sleep(60)
    """
)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "__main__.py").write_text("import app.main")
    write(folder / "main.py", PROGRAM.replace("from helper", "from app.helper"))
    write(folder / "helper.py", "VERSION = 1")
    (folder / ".venv").mkdir()
    return folder


def write(path: Path, text: str) -> None:
    """Change a file for sure: a clock of coarse ticks could give it the time it had."""
    path.write_text(text)
    later = time.time() + 10 + len(list(path.parent.iterdir()))
    os.utime(path, (later, later + path.stat().st_size))


def test_a_change_starts_it_again(app: Path) -> None:
    arguments = ["run", "app", "--server-name", "orders", "--", "--mine", "-x"]
    with running("-m", "shoal", *arguments, cwd=app.parent) as run:
        run.expect(r"^started 1 \['--mine', '-x'\] orders$")
        write(app / "notes.txt", "not a program")
        write(app / ".venv" / "hidden.py", "")
        write(app / "helper.py", "VERSION = 22")
        run.expect(r"^started 22 ")
        assert run.lines[1:3] == [
            f"shoal: {Path('app', 'helper.py')} changed: starting again",
            "stopped by SIGTERM",
        ]
        assert run.end(signal.SIGINT) == 0
    assert run.lines[4:] == ["stopped by SIGINT"]


def test_a_crash_waits_for_the_next_change(app: Path) -> None:
    with running("-m", "shoal", "run", "app/main.py", cwd=app.parent) as run:
        # Run as a file it finds no package `app`.
        run.expect(r"^shoal: the program ended \(exit code 1\): waiting for a change$")
        write(app / "main.py", PROGRAM)
        run.expect(r"^started 1 ")
        assert run.end(signal.SIGTERM) == 0
    assert run.lines[-1] == "stopped by SIGTERM"


def test_who_asks_twice_does_not_wait(app: Path) -> None:
    stubborn = "import signal, time\nsignal.signal(signal.SIGINT, lambda *_: print('no'))\n"
    write(app / "main.py", stubborn + "print('started')\nwhile True: time.sleep(60)\n")
    with running("-m", "shoal", "run", "app", cwd=app.parent) as run:
        run.expect("started")
        run.process.send_signal(signal.SIGINT)
        run.expect("^no$")
        assert run.end(signal.SIGINT) == 128 + signal.SIGKILL
    assert "shoal: asked twice: the program is killed" in run.lines


def test_without_reload_it_is_the_program_itself(app: Path) -> None:
    with running("-m", "shoal", "run", "--no-reload", "app.main", cwd=app.parent) as run:
        run.expect(r"^started 1 ")
        assert run.end(signal.SIGINT) == 0
    assert run.lines[1:] == ["stopped by SIGINT"]


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("nowhere.py", "nowhere.py does not exist: name a file, a folder with __main__.py or a"),
        ("nowhere", "there is neither a file nor a module 'nowhere' here"),
        (".", ". has no __main__.py: name a file"),
        ("no/where", "no/where does not exist"),
    ],
)
def test_what_cannot_be_run(invoke: Invoke, program: str, sentence: str) -> None:
    result = invoke("run", program)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_a_project_is_begun(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("new", "go.micro.srv.order-book")
    assert result.exit_code == 0
    assert "order-book/order_book/__main__.py" in result.stdout.splitlines()
    assert result.stdout.endswith("\nNext: cd order-book and read README.md\n")
    assert invoke("new", "greeter", "--directory", "deep/one").exit_code == 0
    assert (tmp_path / "deep" / "one" / "pyproject.toml").exists()
    again = invoke("new", "order-book")
    assert again.exit_code == 2
    assert again.stderr == ("shoal: order-book exists already: name an empty or a new directory\n")


def test_json_is_the_list_of_files(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = json.loads(invoke("new", "greeter", "--json").stdout)
    assert all((tmp_path / file).is_file() for file in files)
    assert "greeter/pyproject.toml" in files
