"""streams: the programs whose streams are compared, and what each of them streams."""

SMALL = ("down", "up", "both")
LARGE = "large"
CELLS = (*SMALL, LARGE)
"""Small items from the server, to it, and both ways at once; large ones from the server."""

LARGE_SIZE = 64 * 1024  # bytes

BARE = "probe_socket"
"""What large items are compared with beside the baseline."""

PEERS: dict[str, tuple[str, ...]] = {
    "grpc_aio": ("grpcio",),
    "shoal-http": ("shoal",),
    "shoal-native": ("shoal",),
    BARE: (),
}
"""Modules of this package (with `_` for `-`), and what each needs beside `bench.peers.COMMON`."""


def cells(peer: str) -> tuple[str, ...]:
    """Returns what a peer streams."""
    return (LARGE,) if peer == BARE else CELLS
