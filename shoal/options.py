"""Package options is everything that can be set: by code, then environment, then flag."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, NoReturn, TypedDict

from shoal import _settings
from shoal._settings import BY_NAME, IGNORED, PROFILES, SETTINGS, Setting, redact
from shoal.broker import Broker
from shoal.client import Client
from shoal.middleware import Middleware
from shoal.plugins import PluginError, load
from shoal.registry import Registry
from shoal.selector import Selector
from shoal.server import Server
from shoal.tls import Tls, TlsError
from shoal.transport import Transport

logger = logging.getLogger(__name__)

_DEFAULTS = {
    "broker": "http",
    "client": "rpc",
    "registry": "mdns",
    "selector": "p2c",
    "server": "rpc",
    "transport": "http",
}
_ADDRESSED = ("broker", "registry", "transport")


class OptionsError(Exception):
    """A flag, variable or field has a value nobody can use; the sentence names both."""


class Asked(Exception):
    """`--help` or `--version` was given; the text is what to print, and nothing went wrong."""


class Settings(TypedDict, total=False):
    """The fields of Options as keyword arguments; a test holds the two together."""

    version: str
    id: str
    address: str
    advertise: str
    metadata: Mapping[str, str]
    register_ttl: float
    register_interval: float
    registry: str | Registry
    registry_address: str
    transport: str | Transport
    transport_address: str
    broker: str | Broker
    broker_address: str
    selector: str | Selector
    client: str | Client
    server: str | Server
    profile: str
    nats_address: str
    middleware: Sequence[Middleware]
    client_request_timeout: float
    client_retries: int
    client_pool_size: int
    client_pool_ttl: float
    proxy: str
    proxy_address: str
    network: str
    network_address: str
    server_concurrency: int
    server_connections: int
    server_threads: int
    server_linger: float
    server_grace: float
    workers: int
    max_message_size: int
    tls: Tls | None
    health: str
    health_limit: float
    watchdog: float
    telemetry: str
    log_level: str
    log_format: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Options:
    """What a service, or a client alone, is made from. Times are seconds, sizes bytes.

    Plugins are a name, `name://address` or an instance; empty means the profile's, or the
    default. Raises OptionsError for a profile, telemetry, log level or format that does not exist.
    """

    name: str = ""
    version: str = "latest"
    id: str = ""
    address: str = ":0"
    advertise: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    register_ttl: float = 90.0  # Go Micro's command line makes its own default of 90 a 60
    register_interval: float = 30.0

    registry: str | Registry = ""
    registry_address: str = ""
    transport: str | Transport = ""
    transport_address: str = ""
    broker: str | Broker = ""
    broker_address: str = ""
    selector: str | Selector = ""
    client: str | Client = ""
    server: str | Server = ""
    profile: str = ""
    nats_address: str = "nats://127.0.0.1:4222"
    middleware: Sequence[Middleware] = ()

    client_request_timeout: float = 30.0
    client_retries: int = 1
    client_pool_size: int = 100
    client_pool_ttl: float = 60.0
    proxy: str = ""
    proxy_address: str = ""
    network: str = ""
    network_address: str = ""

    server_concurrency: int = 10_000
    server_connections: int = 10_000
    server_threads: int = 32
    server_linger: float = 0.5
    server_grace: float = 10.0
    workers: int = 1
    max_message_size: int = 4 * 1024 * 1024
    tls: Tls | None = None
    health: str = ""
    health_limit: float = 10.0
    watchdog: float = 1.0
    telemetry: str = ""
    log_level: str = "info"
    log_format: str = "text"
    rest: tuple[str, ...] = ()
    """The arguments after `--`, for the program itself."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "metadata", dict(self.metadata))
        for name in ("profile", "telemetry", "log_level", "log_format"):
            if text := getattr(self, name):
                object.__setattr__(self, name, _parsed(BY_NAME[name], text, name))

    def __repr__(self) -> str:
        said = []
        for one in fields(self):
            value = getattr(self, one.name)
            if value != ({} if one.default is MISSING else one.default):
                text = repr(value) if one.name == "metadata" else redact(repr(value))
                said.append(f"{one.name}={text}")
        return f"Options({', '.join(said)})"

    def plugin(self, interface: str) -> tuple[str, str]:
        """Return the name and address of an interface's plugin; of an instance, its class's name.

        An address given apart wins over the one in `name://address`.
        """
        said = getattr(self, interface)
        if not isinstance(said, str):
            return type(said).__name__, ""
        name, address = split(said)
        if not name:
            chosen = PROFILES[self.profile].get(interface, "")
            name = chosen or _DEFAULTS[interface]
            address = self.nats_address if chosen == "nats" else ""
        return name, getattr(self, f"{interface}_address", "") or address

    def route(self) -> tuple[str, str]:
        """Return the service and the address all calls go to instead; empty leaves them as is.

        Go Micro v6, internal/util/net.Proxy, and MICRO_PROXY_ADDRESS of v1.
        """
        if self.proxy or self.proxy_address:
            if ":" in self.proxy:
                return "", self.proxy
            service = "go.micro.proxy" if self.proxy == "service" else self.proxy
            return service, self.proxy_address
        service = "go.micro.network" if self.network == "service" else self.network
        return service, self.network_address

    def read(self, argv: Sequence[str], environ: Mapping[str, str]) -> Options:
        """Return these options overlaid with the environment, then with the command line.

        `argv` may begin with the program's path; an empty value counts as not given. Raises
        OptionsError with a sentence for the user, and Asked for `--help` and `--version`.
        """
        flags, rest = self._flags(argv)
        variables = {
            setting.name: text
            for setting in SETTINGS
            if setting.name not in flags and (text := environ.get(setting.env, "").strip())
        }
        values = _values(variables, lambda setting: setting.env)
        for target, value in _values(flags, lambda setting: f"--{setting.name}").items():
            if target in _ADDRESSED and split(value)[1]:
                values.pop(f"{target}_address", None)
            values[target] = value
        self._choose_plugins(values)
        try:
            self._choose_tls(values)
        except TlsError as error:
            raise OptionsError(str(error)) from None
        return replace(self, **values, rest=rest)

    def _flags(self, argv: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
        given: dict[str, str] = {}
        words = list(reversed(argv[1:] if argv and not argv[0].startswith("-") else argv))
        while words:
            word = words.pop()
            if word == "--":
                break
            if not word.startswith("-") or not word.strip("-"):
                raise OptionsError(f"{redact(word)!r} is no flag: put arguments of yours after --")
            name, equals, text = word.lstrip("-").partition("=")
            name = name.replace("-", "_")
            if name in {"h", "help"}:
                raise Asked(_settings.help_text(self.name or "service", shown(self)))
            if name in {"v", "version"}:
                raise Asked(f"{self.name} {self.version}\n".lstrip())
            setting = BY_NAME.get(name) or _unknown(name)
            if not equals and setting.kind.switch:
                text = "true"
            elif not equals:
                if not words or words[-1].startswith("--"):
                    raise OptionsError(f"--{name} needs a value: --{name} {setting.kind.name}")
                text = words.pop()
            if setting.kind is _settings.PAIRS and name in given:
                text = f"{given[name]},{text}"
            given[name] = text
        return given, tuple(reversed(words))

    def _choose_plugins(self, values: dict[str, Any]) -> None:
        """Drop names and addresses of the code that others from outside make meaningless."""
        group = PROFILES[values.get("profile", "")]
        if not group:
            values.pop("profile", None)
        for interface in group:
            values.setdefault(interface, "")
        for interface in _ADDRESSED:
            said, address = getattr(self, interface), f"{interface}_address"
            if interface not in values:
                if address in values and not isinstance(said, str):
                    kind = type(said).__name__
                    logger.warning("%s has no effect on the %s of the code", address, kind)
                continue
            name, apart, _ = values[interface].partition("://")
            if isinstance(said, str) and not apart and name == split(said)[0] != "":
                del values[interface]  # the same plugin: the address of the code stays
            elif said != "" or apart:
                values.setdefault(address, "")

    def _choose_tls(self, values: dict[str, Any]) -> None:
        parts = {name: values.pop(name) for name in list(values) if name.startswith("tls.")}
        files = any(name.endswith("_file") for name in parts)
        if values.pop("tls", self.tls is not None or files):
            given = {name.removeprefix("tls."): value for name, value in parts.items()}
            values["tls"] = replace(self.tls or Tls(), **given)
        else:
            values["tls"] = None


def split(value: str) -> tuple[str, str]:
    """Return the name and the address of `name` or `name://address`.

    In a comma-separated list the name may be repeated: `etcd://a:2379,etcd://b:2379`.
    """
    name, mark, address = value.partition("://")
    return name, address.replace(f",{name}{mark}", ",") if mark else ""


def shown(options: Options) -> dict[str, str]:
    """Return the values of options by the flag's name, as the help and the docs show them."""
    result = {}
    for setting in SETTINGS:
        target = setting.target
        if setting.kind is IGNORED:
            text = ""
        elif target in _DEFAULTS:
            text = options.plugin(target)[0]
        elif target == "tls":
            text = setting.kind.show(options.tls is not None)
        elif target.startswith("tls."):
            text = setting.kind.show(getattr(options.tls or Tls(), target.removeprefix("tls.")))
        else:
            text = setting.kind.show(getattr(options, target))
        result[setting.name] = redact(text)
    return result


def parse_or_exit(
    options: Options, argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
) -> Options:
    """Return options overlaid with the environment and command line of this process.

    Exits with 2 and a sentence on stderr for a value nobody can use or a plugin that is not there,
    and with 0 after `--help` and `--version`.
    """
    if argv is None:
        argv = ["", *sys.argv[1:]]  # with `python -c` the first is `-c`, which is no flag
    try:
        result = options.read(argv, os.environ if environ is None else environ)
        for interface in _DEFAULTS:
            if isinstance(getattr(result, interface), str):
                load(interface, result.plugin(interface)[0])
        return result
    except Asked as asked:
        sys.stdout.write(str(asked))
        raise SystemExit(0) from None
    except (OptionsError, PluginError) as error:
        sys.stderr.write(f"{options.name or 'service'}: {error}\n")
        raise SystemExit(2) from None


def read_environment(options: Options) -> Options:
    """Return options overlaid with the environment of this process; raises OptionsError."""
    return options.read([], os.environ)


def _values(texts: Mapping[str, str], source: Callable[[Setting], str]) -> dict[str, Any]:
    """Return the parsed values by the field they set."""
    values: dict[str, Any] = {}
    ignored = []
    for name, text in texts.items():
        setting = BY_NAME[name]
        if setting.kind is IGNORED:
            ignored.append(source(setting))
        elif text:
            values[setting.target] = _parsed(setting, text, source(setting))
    if ignored:
        logger.debug("Go Micro's %s ignored: there is nothing they set here", ", ".join(ignored))
    return values


def _parsed(setting: Setting, text: str, source: str) -> Any:
    try:
        return setting.kind.parse(text)
    except ValueError as error:
        raise OptionsError(f"{source}: {redact(text)!r} {error}") from None


def _unknown(name: str) -> NoReturn:
    close = get_close_matches(name, list(BY_NAME), n=1)
    hint = f"did you mean --{close[0]}?" if close else "--help lists the flags"
    raise OptionsError(f"there is no flag --{redact(name)}: {hint}")
