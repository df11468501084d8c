"""The protobuf messages of the interop tests, made at run time."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

_FOLDER = Path(__file__).parent.parent / "interop" / "proto"


@functools.cache
def message(name: str) -> Any:
    """Return the class of a message in greeter.proto."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"greeter.{name}"))


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set"
        code = protoc.main(
            ["", f"-I{_FOLDER}", f"--descriptor_set_out={target}", str(_FOLDER / "greeter.proto")]
        )
        assert code == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


def full_request() -> Any:
    """Return a HelloRequest with all its fields set."""
    return message("HelloRequest")(
        name="John",
        big_number=2**53 + 1,
        blob=b"\x00\xff",
        tags=["a", "b"],
        place={"city": "Lund", "country_code": "SE"},
        counts={"x": -1},
        loud=True,
        ratio=0.5,
        mood=1,
        visited=[{"city": "Oslo"}],
    )
