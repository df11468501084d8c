"""servers: real servers for a benchmark, started by `python -m bench._servers nats redis`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from bench import _process
from bench.registries import ALL, address, name

START = 120.0  # seconds for all of them to be ready
STOP = 60.0


@contextmanager
def running(names: Sequence[str], core: int | None) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Runs servers pinned to a core; yields their addresses, and those that are missing.

    They run under a process of their own, which ends them when this one goes away.
    """
    if not names:
        yield {}, []
        return
    with _process.run([sys.executable, "-m", "bench._servers", *names], core) as program:
        try:
            addresses: dict[str, str] = json.loads(program.line(START))
            yield addresses, [name for name in names if name not in addresses]
        finally:
            assert program.process.stdin is not None
            program.process.stdin.close()
            program.process.wait(STOP)


async def _serve(names: Sequence[str]) -> None:
    """Starts what is there, prints the addresses, and stops all when the input ends."""
    # The tests know how: this is what they talk to as well, and so it needs pytest.
    from tests.servers import MissingServer, Server, find
    from tests.servers.consul import ConsulServer
    from tests.servers.dnsmasq import DnsmasqServer
    from tests.servers.etcd import EtcdServer
    from tests.servers.nats import NatsServer
    from tests.servers.rabbitmq import RabbitServer
    from tests.servers.redis import RedisServer

    kinds: dict[str, Callable[[], Server]] = {
        "consul": ConsulServer,
        "dns": lambda: DnsmasqServer(*records()),
        "etcd": EtcdServer,
        "nats": NatsServer,
        "rabbitmq": RabbitServer,
        "redis": RedisServer,
    }
    addresses = {}
    main = asyncio.current_task()
    assert main is not None
    # What ends this process must not leave the servers behind, which have sessions of their own.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    async with AsyncExitStack() as stack:
        for one in names:
            server = kinds[one]()
            try:
                find(server.binary)
            except MissingServer as error:
                print(error, file=sys.stderr)
                continue
            addresses[one] = (await stack.enter_async_context(server)).address
        print(json.dumps(addresses), flush=True)
        await asyncio.to_thread(sys.stdin.read)


def records() -> list[str]:
    """Returns the services of `bench.registries` as dnsmasq takes them: it cannot be told later."""
    flags = []
    for service in range(ALL[0]):
        for node in range(ALL[1]):
            host, _, port = address(service, node).rpartition(":")
            target = f"n{node}.{name(service)}.example"
            flags.append(f"--srv-host=_{name(service)}._tcp.example,{target},{port}")
            flags.append(f"--host-record={target},{host}")
    return flags


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
