"""The messages of greeter.proto, compiled when this is imported: no generated file lies here.

A project of yours has `greeter_pb2.py` made once and imports that:
python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. greeter.proto
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2, message, message_factory
from grpc_tools import protoc

if TYPE_CHECKING:  # what `greeter_pb2.pyi` says

    class HelloRequest(message.Message):
        name: str

        def __init__(self, *, name: str = ...) -> None: ...

    class HelloReply(message.Message):
        greeting: str

        def __init__(self, *, greeting: str = ...) -> None: ...

else:
    with tempfile.NamedTemporaryFile() as file:
        source = f"-I{Path(__file__).parent}"
        if protoc.main(["protoc", source, f"--descriptor_set_out={file.name}", "greeter.proto"]):
            raise SystemExit("greeter.proto cannot be compiled")
        compiled = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    classes = message_factory.GetMessages(compiled.file)
    HelloRequest = classes["greeter.HelloRequest"]
    HelloReply = classes["greeter.HelloReply"]
