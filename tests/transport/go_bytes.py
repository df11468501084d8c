"""What Go Micro v6.10 puts on the wire over its http transport, captured and frozen."""

from __future__ import annotations

_CHAT = (
    b"Accept: application/json\r\n"
    b"Content-Type: application/json\r\n"
    b"Foo-Bar: baz\r\n"
    b"Micro-Endpoint: Greeter.Chat\r\n"
    b"Micro-Id: 6\r\n"
    b"Micro-Method: Greeter.Chat\r\n"
    b"Micro-Service: helloworld\r\n"
    b"Micro-Stream: 6\r\n"
)
_TO_SERVER = b"POST / HTTP/1.1\r\nHost: 127.0.0.1:18081\r\nUser-Agent: Go-http-client/1.1\r\n"

UNARY_REQUEST = (
    _TO_SERVER + b"Content-Length: 16\r\n"
    b"Accept: application/json\r\n"
    b"Content-Type: application/json\r\n"
    b"Foo-Bar: baz\r\n"
    b"Micro-Endpoint: Greeter.Hello\r\n"
    b"Micro-Id: 0\r\n"
    b"Micro-Method: Greeter.Hello\r\n"
    b"Micro-Service: helloworld\r\n"
    b"Timeout: 5000000000\r\n"
    b"\r\n"
    b'{"name":"John"}\n'
)

UNARY_RESPONSE = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Length: 21\r\n"
    b"Accept: application/json\r\n"
    b"Content-Type: application/json\r\n"
    b"Foo-Bar: baz\r\n"
    b"Micro-Endpoint: Greeter.Hello\r\n"
    b"Micro-Id: 0\r\n"
    b"Micro-Method: Greeter.Hello\r\n"
    b"Micro-Service: helloworld\r\n"
    b"Timeout: 5000000000\r\n"
    b"User-Agent: Go-http-client/1.1\r\n"
    b"\r\n"
    b'{"msg":"Hello John"}\n'
)

PROTO_REQUEST = (
    _TO_SERVER + b"Content-Length: 3\r\n"
    b"Accept: application/protobuf\r\n"
    b"Content-Type: application/protobuf\r\n"
    b"Micro-Endpoint: Debug.Health\r\n"
    b"Micro-Id: 2\r\n"
    b"Micro-Method: Debug.Health\r\n"
    b"Micro-Service: helloworld\r\n"
    b"Timeout: 5000000000\r\n"
    b"\r\n"
    b"\x0a\x01\x78"
)

# Go sends an empty body chunked.
EMPTY_PROTO_REQUEST = (
    _TO_SERVER + b"Transfer-Encoding: chunked\r\n"
    b"Accept: application/protobuf\r\n"
    b"Content-Type: application/protobuf\r\n"
    b"Micro-Endpoint: Debug.Health\r\n"
    b"Micro-Id: 3\r\n"
    b"Micro-Method: Debug.Health\r\n"
    b"Micro-Service: helloworld\r\n"
    b"Timeout: 5000000000\r\n"
    b"\r\n"
    b"0\r\n\r\n"
)

ERROR_TEXT = '{"id":"x","code":403,"detail":"no","status":"Forbidden"}'
ERROR_RESPONSE = (
    b"HTTP/1.1 200 OK\r\n"
    b"Accept: application/json\r\n"
    b"Content-Type: application/json\r\n"
    b"Micro-Endpoint: Greeter.Hello\r\n"
    b"Micro-Error: " + ERROR_TEXT.encode() + b"\r\n"
    b"Micro-Id: 1\r\n"
    b"Micro-Method: Greeter.Hello\r\n"
    b"Micro-Service: helloworld\r\n"
    b"User-Agent: Go-http-client/1.1\r\n"
    b"X-Micro-Error: " + ERROR_TEXT.encode() + b"\r\n"
    b"Content-Length: 0\r\n"
    b"\r\n"
)

STREAM_REQUESTS = (
    _TO_SERVER + b"Content-Length: 12\r\n" + _CHAT + b'\r\n{"name":""}\n',
    _TO_SERVER + b"Content-Length: 13\r\n" + _CHAT + b'\r\n{"name":"a"}\n',
    _TO_SERVER + b"Content-Length: 13\r\n" + _CHAT + b'\r\n{"name":"b"}\n',
    _TO_SERVER + b"Transfer-Encoding: chunked\r\n"
    b"Accept: application/json\r\n"
    b"Content-Type: application/json\r\n"
    b"Foo-Bar: baz\r\n"
    b"Micro-Endpoint: Greeter.Chat\r\n"
    b"Micro-Error: EOS\r\n"
    b"Micro-Id: 6\r\n"
    b"Micro-Method: Greeter.Chat\r\n"
    b"Micro-Service: helloworld\r\n"
    b"Micro-Stream: 6\r\n"
    b"\r\n"
    b"0\r\n\r\n",
)

_ECHO = (
    b"User-Agent: Go-http-client/1.1\r\n"
    b"X-Micro-Endpoint: Greeter.Chat\r\n"
    b"X-Micro-Method: Greeter.Chat\r\n"
    b"X-Micro-Service: helloworld\r\n"
)
STREAM_RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n" + _CHAT + _ECHO + b'\r\n{"msg":"got a"}\n',
    b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n" + _CHAT + _ECHO + b'\r\n{"msg":"got b"}\n',
    b"HTTP/1.1 200 OK\r\n"
    b"Accept: application/json\r\n"
    b"Content-Type: application/json\r\n"
    b"Micro-Endpoint: Greeter.Chat\r\n"
    b"Micro-Error: EOS\r\n"
    b"Micro-Id: 6\r\n"
    b"Micro-Method: Greeter.Chat\r\n"
    b"Micro-Service: helloworld\r\n"
    b"Micro-Stream: 6\r\n"
    b"User-Agent: Go-http-client/1.1\r\n"
    b"X-Micro-Error: EOS\r\n"
    b"Content-Length: 0\r\n"
    b"\r\n",
)
