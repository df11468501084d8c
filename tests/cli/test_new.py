"""A new project passes its own checks, and what cannot become one is refused with a sentence."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shoal import Request, connect
from shoal.cli.new import NewError, create

ROOT = Path(__file__).parents[2]
LONGEST = "a" * 30 + "." + "b" * 32


def test_the_files_are_named_after_the_service(tmp_path: Path) -> None:
    written = create("go.micro.srv.order-book", tmp_path / "deep" / "project")
    names = {str(path.relative_to(tmp_path / "deep" / "project")) for path in written}
    assert names == {
        ".gitignore",
        "Makefile",
        "README.md",
        "order_book/__init__.py",
        "order_book/__main__.py",
        "order_book/handler.py",
        "order_book/messages.py",
        "pyproject.toml",
        "tests/test_order_book.py",
    }
    texts = "".join(path.read_text() for path in written)
    assert "{{" not in texts
    assert "shoal call go.micro.srv.order-book OrderBook.Hello" in texts


@pytest.mark.parametrize("name", ["greeter", "go.micro.srv.order-book", LONGEST])
def test_a_new_project_passes_its_own_checks(name: str, tmp_path: Path) -> None:
    create(name, tmp_path)
    for command in (
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy", "--follow-imports=silent", "--cache-dir", str(tmp_path / ".mypy_cache")],
        ["pytest", "-q"],
    ):
        done = _run(command, tmp_path)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_a_new_service_tells_its_version_and_flags(tmp_path: Path) -> None:
    create("greeter", tmp_path)
    assert _run(["greeter", "--version"], tmp_path).stdout == "greeter latest\n"
    assert "--server_address" in _run(["greeter", "--help"], tmp_path).stdout


async def test_a_new_service_answers_until_it_is_told_to_stop(tmp_path: Path) -> None:
    create("greeter", tmp_path)
    flags = ["--registry=memory", "--broker=memory", "--server_address=127.0.0.1:0"]
    async with asyncio.timeout(120):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "greeter", *flags),
            cwd=tmp_path,
            env=_environment(),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            while b" listening on " not in (line := await process.stderr.readline()):
                assert line, "it ended before it listened"
            address = line.split()[-1].decode()
            async with connect(registry="memory", broker="memory") as client:
                request = Request("greeter", "Greeter.Hello", {"name": "John"}, dict[str, str])
                assert await client.call(request, address=address) == {"greeting": "Hello John"}
            process.terminate()
            await process.stderr.read()
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Greeter", "lower-case words joined by dashes or dots, such as greeter"),
        ("OrderBook", "such as order-book"),
        ("order book!", "such as order-book"),
        ("9lives", "such as lives"),
        ("a--b", "such as a-b"),
        ("../up", "such as up"),
        ("", "such as greeter"),
        ("json", "json is taken in Python"),
        ("go.micro.email", "email is taken in Python"),
        ("shoal", "shoal is taken in Python"),
        ("none", "none is taken in Python"),
        ("while", "while is taken in Python"),
        ("hello-reply", "its message is called HelloReply"),
        ("b" * 33, "is too long: 63 characters, 32 after the last dot"),
        ("a." * 31 + "bb", "is too long: 63 characters, 32 after the last dot"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(name: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(NewError) as caught:
        create(name, tmp_path)
    assert sentence in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(NewError, match="exists already: name an empty or a new directory"):
            create("greeter", taken)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NewError, match=r"cannot write .*file.*: Not a directory"):
        create("greeter", tmp_path / "file" / "project")
