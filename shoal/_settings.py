"""Module _settings is the table of all that environment and command line can set, and its texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})"
_DURATION = re.compile(_NUMBER + "(ns|us|µs|ms|s|m|h)")
_SIZES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_TRUE = frozenset({"1", "t", "true", "yes", "on"})
_FALSE = frozenset({"0", "f", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: its name in the help, and how to read and to show one.

    `parse` raises ValueError with the end of a sentence that begins with the text.
    """

    name: str
    parse: Callable[[str], Any] = str
    show: Callable[[Any], str] = str
    switch: bool = False
    """Whether the flag alone means true."""


def duration(text: str) -> float:
    """Return the seconds of a duration as Go writes it (`1m30s`), or of a bare number."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    if re.fullmatch(_NUMBER, text):
        return float(text)
    raise ValueError("is no duration, write one such as 500ms, 5s or 1m30s")


def show_duration(seconds: float) -> str:
    """Return a duration the way `duration` reads it."""
    unit = "ms" if 0 < seconds < 1 else "s"
    for longer in ("m", "h"):
        if seconds and seconds % _UNITS[longer] == 0:
            unit = longer
    return f"{seconds / _UNITS[unit]:.9f}".rstrip("0").rstrip(".") + unit


def _time_limit(text: str) -> float:
    seconds = duration(text)
    if not seconds:
        raise ValueError("leaves no time, write a duration such as 500ms, 5s or 1m30s")
    return seconds


def size(text: str) -> int:
    """Return the bytes of a size such as `4MiB`, `64kB` or a plain number."""
    match = re.fullmatch(r"([0-9]{1,15}) ?([kmg]i?b|)", text.lower())
    if not match or not int(match[1]):
        raise ValueError("is no size, write one such as 4MiB, 512KiB or a number of bytes")
    return int(match[1]) * _SIZES[match[2]]


def show_size(value: int) -> str:
    """Return a size the way `size` reads it."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value % unit == 0:
            return f"{value // unit}{name}"
    return str(value)


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) < least:
            raise ValueError(f"is no whole number from {least} up")
        return int(text)

    return parse


def boolean(text: str) -> bool:
    """Return what a word such as `true`, `0` or `off` says."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError("is neither true nor false")


def pairs(text: str) -> dict[str, str]:
    """Return the names and values of `zone=b,rack=7`; a name alone has an empty value."""
    split = (part.strip().partition("=") for part in text.split(",") if part.strip())
    result = {name: value for name, _, value in split}
    if "" in result:
        raise ValueError("has a value without a name, write name=value,name=value")
    return result


def choice(values: Mapping[str, str]) -> Callable[[str], str]:
    """Return a parser for the words of a mapping, which gives what they stand for."""

    def parse(text: str) -> str:
        if text.lower() in values:
            return values[text.lower()]
        close = get_close_matches(text.lower(), list(values), n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(values)}"
        raise ValueError(f"is not known, {hint}")

    return parse


def _several(known: tuple[str, ...]) -> Callable[[str], str]:
    one = choice({name: name for name in known})
    return lambda text: ",".join(one(part.strip()) for part in text.split(",") if part.strip())


def redact(text: str) -> str:
    """Return a text with the user and password of addresses in it blotted out."""
    text = re.sub(r"(?s)^(['\"]?(?:\w[\w+.-]*://)?).*@", r"\1***@", text)
    return re.sub(r"(?i)([?&][^=&]*(?:pass|secret|token|key)[^=&]*=)[^&\s'\"]*", r"\1***", text)


PROFILES: dict[str, dict[str, str]] = {
    "": {},
    "local": {"registry": "mdns", "broker": "http", "transport": "http"},
    "nats": {"registry": "nats", "broker": "nats", "transport": "nats"},
    # Before v5 the flag chose a profiler, which is nothing Shoal has.
    "http": {},
    "pprof": {},
}
_LEVELS = dict.fromkeys(("trace", "debug"), "debug") | {
    "info": "info",
    **dict.fromkeys(("warn", "warning"), "warning"),
    "error": "error",
    **dict.fromkeys(("fatal", "critical"), "critical"),
}

TEXT = Kind("text", str.strip)
SECRET = Kind("text", show=lambda value: "***" if value else "")
DURATION = Kind("duration", duration, show_duration)
TIME_LIMIT = Kind("duration", _time_limit, show_duration)
SIZE = Kind("size", size, show_size)
NUMBER = Kind("number", _whole(0))
COUNT = Kind("number", _whole(1))
PAIRS = Kind("name=value", pairs, lambda value: ",".join(f"{k}={v}" for k, v in value.items()))
SWITCH = Kind("boolean", boolean, lambda value: "true" if value else "false", switch=True)
NEGATED = Kind(
    "boolean", lambda text: not boolean(text), lambda value: SWITCH.show(not value), True
)
PROFILE = Kind("name", choice({name: name for name in PROFILES if name}))
LEVEL = Kind("level", choice(_LEVELS))
FORMAT = Kind("format", choice({"text": "text", "json": "json"}))
TELEMETRY = Kind("names", _several(("otel", "prometheus")))
IGNORED = Kind("text")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: the flag's name, what it takes, what it means and the field of Options it sets."""

    name: str
    kind: Kind
    help: str
    field: str = ""
    """Where the value goes, `tls.name` for a field of Tls; empty for one named like the flag."""

    @property
    def env(self) -> str:
        """The environment variable, made from the name as Go Micro makes all of its own."""
        return f"MICRO_{self.name.upper()}"

    @property
    def target(self) -> str:
        """The field it sets."""
        return self.field or self.name


SETTINGS = (
    Setting("server_name", TEXT, "name the service registers", "name"),
    Setting("server_version", TEXT, "version the service registers", "version"),
    Setting("server_id", TEXT, "id of this node; made up without one", "id"),
    Setting("server_address", TEXT, "where to listen: host:port, :port, host:5000-5010", "address"),
    Setting("server_advertise", TEXT, "address to register instead of the one bound", "advertise"),
    Setting("server_metadata", PAIRS, "metadata of this node; can be repeated", "metadata"),
    Setting("register_ttl", DURATION, "a node vanishes so long after its last registration"),
    Setting("register_interval", DURATION, "time between two registrations"),
    Setting("registry", TEXT, "where nodes are found: a name, or name://address"),
    Setting("registry_address", TEXT, "addresses of the registry, comma-separated"),
    Setting("transport", TEXT, "how messages travel: a name, or name://address"),
    Setting("transport_address", TEXT, "addresses the transport needs, comma-separated"),
    Setting("broker", TEXT, "how events travel: a name, or name://address"),
    Setting("broker_address", TEXT, "addresses of the broker, comma-separated"),
    Setting("selector", TEXT, "how a node is chosen for a call"),
    Setting("client", TEXT, "protocol calls are made with"),
    Setting("server", TEXT, "protocol calls are served with"),
    Setting("profile", PROFILE, "plugins as a group: local, or nats for all three"),
    Setting("nats_address", TEXT, "where the profile nats finds its servers"),
    Setting("client_request_timeout", TIME_LIMIT, "limit of a call, retries included"),
    Setting("client_retries", NUMBER, "further attempts of a call that may be repeated"),
    Setting("client_pool_size", COUNT, "idle connections kept per node"),
    Setting("client_pool_ttl", DURATION, "time an idle connection is kept"),
    Setting("proxy", TEXT, "service or host:port that all calls go to; service: go.micro.proxy"),
    Setting("proxy_address", TEXT, "host:port of the proxy"),
    Setting("network", TEXT, "as proxy; service: go.micro.network"),
    Setting("network_address", TEXT, "host:port of the network's node"),
    Setting("server_concurrency", COUNT, "requests that may run at once; more are refused"),
    Setting("server_connections", COUNT, "connections that may be open; more are turned away"),
    Setting("server_threads", COUNT, "threads for handlers that are no coroutines"),
    Setting("server_linger", DURATION, "time calls are still taken after deregistration"),
    Setting("server_grace", DURATION, "time running requests get at the end"),
    Setting("workers", COUNT, "processes that serve, each a node of its own"),
    Setting("max_message_size", SIZE, "largest message taken from a network"),
    Setting("tls", SWITCH, "use TLS, with the system's authorities if no file is set"),
    Setting("tls_cert_file", TEXT, "certificate, PEM", "tls.cert_file"),
    Setting("tls_key_file", TEXT, "private key, PEM; empty if in the same file", "tls.key_file"),
    Setting("tls_key_password", SECRET, "password of the private key", "tls.key_password"),
    Setting("tls_ca_file", TEXT, "authorities to trust instead of the system's", "tls.ca_file"),
    Setting("tls_client_auth", SWITCH, "clients need a certificate too", "tls.client_auth"),
    Setting("tls_check_hostname", SWITCH, "certificates name the host", "tls.check_hostname"),
    Setting("tls_insecure", NEGATED, "do not verify servers", "tls.verify"),
    Setting("health_address", TEXT, "where probes ask: host:port, or :port here only", "health"),
    Setting("health_limit", TIME_LIMIT, "a loop blocked for longer is told to be dead"),
    Setting("watchdog", DURATION, "a loop blocked for longer is logged, with the line; 0: never"),
    Setting("telemetry", TELEMETRY, "otel for OpenTelemetry, prometheus for /metrics, or both"),
    Setting("log_level", LEVEL, "trace, debug, info, warn, error or fatal"),
    Setting("log_format", FORMAT, "text, or json: a line for each record, with the trace's id"),
    *(
        Setting(name, IGNORED, "Go Micro's; accepted and ignored")
        for name in """auth auth_id auth_namespace auth_private_key auth_provider
        auth_provider_client_id auth_provider_client_secret auth_provider_endpoint
        auth_provider_redirect auth_provider_scope auth_public_key auth_secret config debug_profile
        runtime runtime_source store store_address store_database store_table tracer
        tracer_address""".split()
    ),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}


def help_text(name: str, values: Mapping[str, str]) -> str:
    """Return what `--help` prints; `values` are the defaults by the setting's name."""
    lines = [f"Usage: {name} [--flag value | --flag=value]... [-- arguments]", ""]
    for setting in SETTINGS:
        if setting.kind is not IGNORED:
            default = f" [{values[setting.name]}]" if values[setting.name] else ""
            lines.append(f"  --{setting.name} {setting.kind.name}  ({setting.env})")
            lines.append(f"        {setting.help}{default}")
    ignored = [f"--{setting.name}" for setting in SETTINGS if setting.kind is IGNORED]
    lines += ["  --help, --version", "", "Go Micro's flags that are accepted and ignored:"]
    return "\n".join([*lines, *(f"  {name}" for name in ignored)]) + "\n"


def markdown(values: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of the table in docs/configuration.md."""
    yield "| Flag | Environment | Takes | Default | Meaning |"
    yield "|---|---|---|---|---|"
    for setting in SETTINGS:
        takes = "ignored" if setting.kind is IGNORED else setting.kind.name
        default = f"`{values[setting.name]}`" if values[setting.name] else ""
        cells = (f"`--{setting.name}`", f"`{setting.env}`", takes, default, setting.help)
        yield f"| {' | '.join(cells)} |"
