"""Module _unix listens at Unix sockets: files that belong to whoever listens at them."""

from __future__ import annotations

import errno
import os
import socket as tcp
import stat

PATIENCE = 1.0  # seconds for a listener with a full backlog to show that it lives


def bind(path: str, mode: int, backlog: int) -> tcp.socket:
    """Return a socket that listens at a path, where a file nobody listens at is replaced.

    Raises OSError, EADDRINUSE where somebody listens or what is there is no socket.
    """
    socket = tcp.socket(tcp.AF_UNIX, tcp.SOCK_STREAM)
    try:
        try:
            socket.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            os.unlink(path)
            socket.bind(path)
        # Before anybody can connect.
        os.chmod(path, mode)
        socket.listen(backlog)
        socket.setblocking(False)
    except BaseException:
        socket.close()
        raise
    return socket


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells the file at a path from all others, None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove(path: str, mine: tuple[int, int] | None) -> None:
    """Remove the file, unless another listener has put its own in its place."""
    if mine is not None and identity(path) == mine:
        os.unlink(path)


def _is_stale(path: str) -> bool:
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        return False
    with tcp.socket(tcp.AF_UNIX, tcp.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
