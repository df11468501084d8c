"""Calls and streams from the command line: what goes out, what is printed, how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Greeter, Invoke, environment, running, shoal_process

ODD = '{"big":12345678901234567890123,"dec":1.10,"exp":1e400,"twice":1,"twice":2,"s":"\\u00e9"}'


def test_a_reply_is_indented_json(greeter: Greeter) -> None:
    done = shoal_process("call", greeter.name, "Greeter.Hello", '{"name": "John"}')
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        '{\n  "greeting": "Hello John"\n}\n',
        "",
    )


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        ([ODD], ""),
        (["-"], ODD),
        (["@FILE"], ""),
        (['{"big":12345678901234567890123,"dec":1.10,', ODD.partition('1.10,')[2]], ""),
    ],
)  # fmt: skip
def test_json_passes_unchanged(
    call: Invoke, greeter: Greeter, tmp_path: Path, arguments: list[str], stdin: str
) -> None:
    (tmp_path / "request.json").write_text(ODD + "\n")
    words = [word.replace("FILE", str(tmp_path / "request.json")) for word in arguments]
    if words == ["-"]:
        assert (
            shoal_process(
                *greeter.flags, "call", greeter.name, "Greeter.Echo", "-", "--raw", stdin=stdin
            ).stdout
            == f"{ODD}\n"
        )
        return
    result = call("call", greeter.name, "Greeter.Echo", *words, "--raw")
    assert result.stdout.replace(" ", "") == f"{ODD}\n"
    assert '"dec": 1.10' in call("call", greeter.name, "Greeter.Echo", *words).stdout
    assert call("call", greeter.name, "Greeter.Echo", *words, "--json").stdout == f"{ODD}\n"


def test_a_request_is_an_empty_object_without_one(call: Invoke, greeter: Greeter) -> None:
    assert call("call", greeter.name, "Greeter.Echo").stdout == "{}\n"


def test_what_could_drive_a_terminal_is_escaped(call: Invoke, greeter: Greeter) -> None:
    result = call("call", greeter.name, "Greeter.Echo", '{"a":"\x9b31m\u2028\U000e0001é"}')
    assert result.stdout == '{\n  "a": "\\u009b31m\\u2028\\udb40\\udc01é"\n}\n'


def test_metadata(call: Invoke, greeter: Greeter) -> None:
    pairs = ["-m", "A=b=c", "--metadata", "b: x:y", "-H", "c:", "--header", "D=1"]
    reply = json.loads(call("call", greeter.name, "Greeter.Meta", *pairs).stdout)
    assert {name: reply[name] for name in "ABCD"} == {"A": "b=c", "B": "x:y", "C": "", "D": "1"}


def test_an_address_needs_no_registry(invoke: Invoke, greeter: Greeter) -> None:
    arguments = ["call", "anybody", "Greeter.Hello", '{"name":"J"}', "--registry", "static"]
    assert invoke(*arguments).exit_code == 3
    assert invoke(*arguments, "--address", greeter.address).exit_code == 0


def test_a_legacy_content_type(call: Invoke, greeter: Greeter) -> None:
    arguments = ["Greeter.Hello", '{"name":"J"}', "--content-type", "application/json-rpc"]
    assert json.loads(call("call", greeter.name, *arguments).stdout) == {"greeting": "Hello J"}


def test_what_is_no_json_is_sent_as_it_is(call: Invoke, greeter: Greeter) -> None:
    body = b"\x81\xa1a\x01"  # MessagePack: {"a": 1}
    result = call(
        "call", greeter.name, "Greeter.Echo", "--content-type", "application/msgpack",
        body.decode("utf-8", "surrogateescape"),
    )  # fmt: skip
    assert result.stdout_bytes == body


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["Greeter.Hello"], 4, "NAME Greeter.Hello: a name is needed (400 Bad Request from NAME)"),
        (["Greeter.Helo"], 3, "NAME has no endpoint 'Greeter.Helo': did you mean Greeter.Hello?"),
        (["Xyz.Abc"], 3, "NAME has no endpoint 'Xyz.Abc': it has Greeter.Count, Greeter.Echo, "),
        (["Greeter.Hello", '{"seconds":9}', "--timeout", "200ms"], 5, "408 Request Timeout from"),
        (["Greeter.Sum", "--timeout", "500ms"], 5, "it is a stream: use shoal stream NAME Greeter"),
        (["Greeter.Hello", "{"], 2, "{ is no JSON: Input data was truncated"),
        (["Greeter.Hello", "@/nowhere"], 2, "cannot read /nowhere: No such file or directory"),
        (["Greeter.Hello", "-m", "nothing"], 2, "'nothing' is no metadata: write name=value or"),
        (["Greeter.Hello", "-m", "a b=c"], 2, "'a b' cannot be a header name"),
        (["Greeter.Hello", "--timeout", "0"], 2, "'0' leaves no time"),
        (["Greeter.Hello", "--timeout", "soon"], 2, "'soon' is no duration"),
        (["Greeter.Hello", "--address", "x"], 2, "'x' is no address: write host:port"),
    ],
)  # fmt: skip
def test_failures_are_a_sentence_and_a_code(
    call: Invoke, greeter: Greeter, arguments: list[str], code: int, sentence: str
) -> None:
    result = call("call", greeter.name, *arguments)
    assert sentence.replace("NAME", greeter.name) in result.stderr
    assert (result.exit_code, result.stdout) == (code, "")


def test_nobody_there(invoke: Invoke, greeter: Greeter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = ["--registry", "static", "--registry-address", f"gone={address}"]
    result = invoke(*flags, "call", "gone", "Greeter.Hello")
    assert result.exit_code == 3
    assert address in result.stderr
    result = invoke(*flags, "call", "gon", "Greeter.Hello")
    assert result.exit_code == 3
    assert "there is no service 'gon' in the registry static: did you mean 'gone'?" in result.stderr


def test_an_interrupt_ends_a_call(greeter: Greeter) -> None:
    request = '{"name":"interrupted","seconds":60}'
    arguments = [*greeter.flags, "call", greeter.name, "Greeter.Hello", request]
    with running("-W", "default", "-m", "shoal", *arguments) as run:
        greeter.run.expect("asked by interrupted")
        assert run.end(signal.SIGINT) == 130
    assert run.lines == []


# Streams


def test_each_reply_is_a_line(greeter: Greeter) -> None:
    done = shoal_process("stream", greeter.name, "Greeter.Count", '{"n": 3}')
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"n":0}\n{"n":1}\n{"n":2}\n', "")


def test_several_items(call: Invoke, greeter: Greeter) -> None:
    result = call("stream", greeter.name, "Greeter.Sum", '{"n":1}', '{"n":2}', '{"n":4}')
    assert result.stdout == '{"n":1}\n{"n":3}\n{"n":7}\n'


def test_items_from_stdin_follow_those_given(greeter: Greeter) -> None:
    done = shoal_process(
        *greeter.flags, "stream", greeter.name, "Greeter.Sum", '{"n":1}', "-", '{"n":1}',
        stdin='{"n":2}\n\n {"n":4}',
    )  # fmt: skip
    assert done.stdout == '{"n":1}\n{"n":3}\n{"n":7}\n{"n":8}\n'
    assert done.returncode == 0


def test_items_are_sent_as_they_come_and_an_interrupt_ends_it(greeter: Greeter) -> None:
    command = ["-m", "shoal", *greeter.flags, "stream", greeter.name, "Greeter.Sum", "-"]
    with running(*command, stdin=subprocess.PIPE) as run:
        assert run.process.stdin is not None
        for number, total in ((1, 1), (2, 3)):
            run.process.stdin.write(f'{{"n":{number}}}\n')
            run.process.stdin.flush()
            run.expect(f'{{"n":{total}}}')
        assert run.end(signal.SIGINT) == 130
        run.process.stdin.close()
    assert run.lines == ['{"n":1}', '{"n":3}']


def test_an_end_by_count(call: Invoke, greeter: Greeter) -> None:
    result = call("stream", greeter.name, "Greeter.Count", '{"n": 1000}', "--count", "2")
    assert (result.exit_code, result.stdout) == (0, '{"n":0}\n{"n":1}\n')


def test_an_end_by_idleness(call: Invoke, greeter: Greeter) -> None:
    log = ["stream", greeter.name, "Debug.Log", '{"stream": true}', "--idle", "200ms"]
    result = call(*log)
    assert result.exit_code == 0
    assert all("message" in json.loads(line) for line in result.stdout.splitlines())
    assert call(*log[:-2], "--timeout", "300ms").exit_code == 5


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "sentence"),
    [
        (["Greeter.Sum", "-"], '{"n":1}\n{bad\n', 2, "a line of stdin is no JSON"),
        (["Greeter.Sum", "-"], "1" * 5_000_000, 2, "a line of stdin is longer than 4194304 bytes"),
        (["Greeter.Sum", '{"n":"x"}'], "", 4, "400 Bad Request from NAME"),
        (["Greeter.Hello"], "", 2, "Greeter.Hello is no stream: use shoal call NAME Greeter.Hello"),
        (["Greeter.Cont"], "", 3, "has no endpoint 'Greeter.Cont': did you mean Greeter.Count?"),
        (["Greeter.Sum", "--content-type", "text/plain"], "", 2, "items are lines of JSON"),
    ],
)
def test_failures_of_a_stream(
    greeter: Greeter, arguments: list[str], stdin: str, code: int, sentence: str
) -> None:
    done = shoal_process(*greeter.flags, "stream", greeter.name, *arguments, stdin=stdin)
    assert sentence.replace("NAME", greeter.name) in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_ends_the_stream(greeter: Greeter) -> None:
    arguments = [*greeter.flags, "stream", greeter.name, "Greeter.Count", '{"n": 1000000}']
    with subprocess.Popen(
        [sys.executable, "-m", "shoal", *arguments],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b'{"n":0}\n'
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1
