"""A program that runs as several processes."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.options import Options
from shoal.service._workers import VARIABLE, Worker

PROGRAM = """
import os
import subprocess
import sys
import time

import shoal


class Greeter:
    async def pid(self) -> int:
        return os.getpid()

    async def die(self) -> None:
        os._exit(7)

    async def hang(self) -> None:
        time.sleep(3600)

    def block(self) -> None:
        time.sleep(3600)

    async def offspring(self) -> str:
        code = "from shoal.service._workers import Worker; print(Worker.here())"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return done.stdout + done.stderr


if __name__ == "__main__":
    service = shoal.Service("greeter", registry="memory", broker="memory", server_linger=0.0)
    service.init()
    service.handle(Greeter())
    service.run()
    print("stopped")
"""


class Program:
    """The parent of some workers, and what it has written so far."""

    def __init__(self, process: subprocess.Popen[str], log: Path, port: int) -> None:
        self.process = process
        self.log = log
        self.port = port

    def serving(self) -> dict[int, int]:
        """Return the process of every worker by its number, as the last line on each says."""
        text = self.log.read_text()
        return {
            int(n): int(pid) for n, pid in re.findall(r"worker (\d+) \(pid (\d+)\) serves", text)
        }

    def until(self, what: str, times: int = 1, seconds: float = 30.0) -> str:
        """Wait until some text was written so often, and return all that was."""
        end = time.time() + seconds
        while (text := self.log.read_text()).count(what) < times:
            assert time.time() < end, f"no {what!r} in {text}"
            assert self.process.poll() is None or self.log.read_text().count(what) >= times, text
            time.sleep(0.02)
        return text

    def ask(self, number: int, endpoint: str, reply: Any = int, **options: Any) -> Any:
        """Call a worker."""

        async def call() -> Any:
            async with shoal.connect(registry="memory", broker="memory") as client:
                request = shoal.Request("greeter", f"Greeter.{endpoint}", {}, reply)
                address = f"127.0.0.1:{self.port + number}"
                return await client.call(request, address=address, **options)

        return asyncio.run(call())


def two_ports() -> int:
    """Return a port that is free, as is the next one."""
    for _ in range(100):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise AssertionError("no two ports")


@contextmanager
def running(
    folder: Path, *flags: str, workers: int = 2, command: tuple[str, ...] = ("program.py",)
) -> Iterator[Program]:
    (folder / "program.py").write_text(PROGRAM)
    port = two_ports()
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *command, f"--workers={workers}",
             f"--server_address=127.0.0.1:{port}", *flags],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True, cwd=folder,
        )  # fmt: skip
    program = Program(process, log, port)
    try:
        yield program
    finally:
        process.kill()
        process.wait()
        for pid in program.serving().values():
            wait_gone(pid)


def wait_gone(pid: int, seconds: float = 30.0) -> None:
    end = time.time() + seconds
    while alive(pid):
        assert time.time() < end, f"{pid} is still there"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("command", [("program.py",), ("-m", "program")])
def test_each_worker_is_a_node_and_one_signal_stops_all(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    with running(tmp_path, command=command) as program:
        program.until(") serves", 2)
        pids = program.serving()
        assert {program.ask(0, "Pid"), program.ask(1, "Pid")} == set(pids.values())
        assert program.process.pid not in pids.values()
        program.process.terminate()
        assert program.process.wait(30) == 0
        assert not any(map(alive, pids.values()))
        text = program.log.read_text()
    assert len(set(re.findall(r"registered node (\S+)", text))) == 2
    assert text.count("stopped\n") == 3
    assert "Traceback" not in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_for_the_whole_group_stops_in_order_too(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running(tmp_path) as program:
        program.until(") serves", 2)
        for pid in (*program.serving().values(), program.process.pid):
            os.kill(pid, number)
        assert program.process.wait(30) == 0
        assert program.log.read_text().count("stopped\n") == 3


def test_a_worker_that_crashes_is_started_again_at_its_port(tmp_path: Path) -> None:
    with running(tmp_path) as program:
        program.until(") serves", 2)
        before = program.serving()
        for count in (1, 2):
            with pytest.raises(shoal.Error):
                program.ask(1, "Die", None)
            text = program.until(") serves", 2 + count)
            assert "worker 1 (pid" in text
            assert "ended with code 7: started again in" in text
        after = program.serving()
        assert after[0] == before[0]
        assert program.ask(1, "Pid") == after[1] != before[1]
        program.process.terminate()
        assert program.process.wait(30) == 0


def test_workers_that_cannot_start_end_the_program_with_their_code(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        first.until(") serves", 2)
        folder = tmp_path / "second"
        folder.mkdir()
        with running(folder, f"--server_address=127.0.0.1:{first.port}") as second:
            assert second.process.wait(30) == 1
            text = second.log.read_text()
    assert "it is taken already" in text
    assert "ended with code 1 before it served" in text


def test_the_parents_death_stops_the_workers_in_order(tmp_path: Path) -> None:
    with running(tmp_path) as program:
        program.until(") serves", 2)
        program.process.kill()
        for pid in program.serving().values():
            wait_gone(pid)
        assert program.log.read_text().count("stopped\n") == 2


def test_a_second_signal_ends_all_at_once(tmp_path: Path) -> None:
    with running(tmp_path, "--server_grace=1h") as program:
        program.until(") serves", 2)
        with pytest.raises(shoal.Error):
            program.ask(0, "Hang", None, timeout=0.2)
        program.process.terminate()
        program.until("stopping all workers")
        program.process.terminate()
        assert program.process.wait(30) == 128 + signal.SIGTERM
        assert not any(map(alive, program.serving().values()))


def test_what_a_worker_starts_is_no_worker(tmp_path: Path) -> None:
    with running(tmp_path) as program:
        program.until(") serves", 2)
        assert program.ask(0, "Offspring", str, timeout=30.0) == "None\n"


def test_what_is_given_once_is_the_first_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    third = Worker(2, -1)
    given = Options(id="a", address=":5000", advertise="10.0.0.1:5000", broker="http://[::1]:6000")
    own = third.options(given)
    assert (own.id, own.address, own.advertise) == ("a-2", ":5002", "10.0.0.1:5002")
    assert own.plugin("broker") == ("http", "[::1]:6002")
    for address in (":0", "127.0.0.1:5000-5010", "10.0.0.1", "queue", ""):
        assert third.options(Options(address=address)).address == address
    assert third.options(Options()).id == ""
    assert third.options(Options(broker="nats://h:4222")).plugin("broker")[1] == "h:4222"
    assert third.options(Options(address="unix:///run/a.sock")).address == "unix:///run/a.sock.2"
    for text in ("", "1", "1:2", "1:0:0", "x:y:z", "0:9999:1"):
        monkeypatch.setenv(VARIABLE, text)
        assert Worker.here() is None
