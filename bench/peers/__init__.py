"""peers: the programs that are compared, and the packages each of them is made of."""

PYTHON: dict[str, tuple[str, ...]] = {
    "grpc_aio": ("grpcio",),
    "shoal-http": ("shoal",),
    "shoal-native": ("shoal",),
    "aiohttp_both": ("aiohttp",),
    "grpclib": ("grpclib",),
    "fastapi_httpx": ("fastapi", "uvicorn", "httptools", "httpx"),
    "thriftpy2_threads": ("thriftpy2",),
    "probe_tcp": (),
    "probe_mux": (),
    "probe_http": ("httptools",),
}
"""Modules of this package (with `_` for `-`), and the distributions each needs beside `COMMON`."""

COMMON = ("msgspec", "uvloop")
"""What the loops of `bench.load` need."""

GO: tuple[str, ...] = ("gomicro", "nethttp")
"""Commands of the Go module in `bench/go`."""

BASELINE = "grpc_aio"
"""The peer all others are divided by."""

BODY = 10
"""Characters of the name that is sent and comes back, unless others are asked for."""
