"""Code, then environment, then flag; and what the user is told when one of them is wrong."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal import _settings
from shoal._settings import IGNORED, SETTINGS, duration, redact, show_duration, show_size, size
from shoal.options import Asked, Options, OptionsError, Settings, parse_or_exit, shown, split
from shoal.tls import Tls

ROOT = Path(__file__).parent.parent


def read(*flags: str, code: Options | None = None, **environ: str) -> Options:
    return (code or Options()).read(["program", *flags], environ)


def refused(*flags: str, **environ: str) -> str:
    with pytest.raises(OptionsError) as caught:
        Options().read(["program", *flags], environ)
    return str(caught.value)


# Who wins


def test_a_flag_overrides_the_environment_which_overrides_the_code() -> None:
    code = Options(name="code", version="code", id="code")
    options = read(
        "--server_name=flag",
        code=code,
        MICRO_SERVER_NAME="environment",
        MICRO_SERVER_VERSION="environment",
    )
    assert (options.name, options.version, options.id) == ("flag", "environment", "code")
    assert code.name == "code"


def test_nothing_given_changes_nothing() -> None:
    code = Options(name="greeter", registry="consul://10.0.0.1:8500", metadata={"zone": "b"})
    assert read(code=code) == code


def test_an_empty_value_counts_as_not_given() -> None:
    code = Options(name="code")
    assert read(code=code, MICRO_SERVER_NAME=" ").name == "code"
    assert read("--server_name=", code=code, MICRO_SERVER_NAME="environment").name == "code"


def test_a_flag_makes_a_bad_variable_harmless() -> None:
    assert read("--register_ttl", "5s", MICRO_REGISTER_TTL="soon").register_ttl == 5


def test_the_last_of_a_flag_given_twice_wins() -> None:
    assert read("--server_id=1", "--server_id=2").id == "2"


def test_options_keep_their_own_copy_of_metadata() -> None:
    mine = {"zone": "a"}
    options = Options(metadata=mine)
    mine["zone"] = "b"
    assert options.metadata == {"zone": "a"}


# How a flag is written


@pytest.mark.parametrize(
    "flags",
    [
        ["--server_name", "greeter"],
        ["--server_name=greeter"],
        ["--server-name", "greeter"],
        ["--server-name=greeter"],
        ["-server_name", "greeter"],
        ["-server_name=greeter"],
    ],
)
def test_forms_of_a_flag(flags: list[str]) -> None:
    assert read(*flags).name == "greeter"
    assert Options().read(flags, {}).name == "greeter", "without the program's path"


def test_a_value_may_hold_an_equals_sign_or_begin_with_a_dash() -> None:
    assert read("--server_id=a=b").id == "a=b"
    assert read("--server_id", "-1").id == "-1"


def test_a_switch_takes_a_value_only_with_an_equals_sign() -> None:
    assert read("--tls", "--server_id=1").tls == Tls()
    assert read("--tls=false", code=Options(tls=Tls())).tls is None


def test_what_follows_two_dashes_is_for_the_program() -> None:
    options = read("--server_id", "1", "--", "--registry", "x", "--", "y")
    assert options.rest == ("--registry", "x", "--", "y")
    assert options.registry == ""


def test_a_stray_argument_is_refused() -> None:
    sentence = "'stray' is no flag: put arguments of yours after --"
    assert refused("--server_id", "1", "stray") == sentence
    assert refused("-") == "'-' is no flag: put arguments of yours after --"


def test_a_flag_needs_its_value() -> None:
    for flags in (["--server_id"], ["--server_id", "--tls"]):
        assert refused(*flags) == "--server_id needs a value: --server_id text"


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--registri=mdns", "there is no flag --registri: did you mean --registry?"),
        ("--server-adress", "there is no flag --server_adress: did you mean --server_address?"),
        ("-xyzzy", "there is no flag --xyzzy: --help lists the flags"),
    ],
)
def test_an_unknown_flag_names_the_nearest(flag: str, hint: str) -> None:
    assert refused(flag) == hint


def test_an_unknown_variable_is_no_error() -> None:
    assert read(MICRO_SOMETHING_NEW="x", MICRO_PLUGIN="a.so") == Options()


def test_flags_of_go_micro_without_a_use_here_are_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flags = [f"--{setting.name}=hunter2" for setting in SETTINGS if setting.kind is IGNORED]
    with caplog.at_level(logging.DEBUG, "shoal.options"):
        assert read(*flags, "--debug-profile", "pprof") == Options()
    assert len(caplog.records) == 1
    assert "--auth_secret, " in caplog.text
    assert "hunter2" not in caplog.text
    assert read(MICRO_STORE="file", MICRO_AUTH="jwt", MICRO_RUNTIME="local") == Options()


# Kinds of values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("500ms", 0.5), ("1m30s", 90), ("5s", 5), ("1.5h", 5400), ("250us", 25e-5), ("60", 60)),
        *(("0", 0), ("0s", 0), (".5s", 0.5), ("2.5", 2.5), ("7µs", 7e-6), ("90ns", 9e-8)),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "5 s", "-5s", "5x", "1m30", "inf", "nan", "1e3", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        duration(text)


@given(st.integers(0, 10**9))
def test_durations_are_shown_as_they_are_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert duration(show_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4MiB", 4 << 20), ("512kib", 512 << 10), ("1GB", 10**9), ("64 kB", 64000), ("1000", 1000)],
)
def test_sizes(text: str, value: int) -> None:
    assert size(text) == value


@pytest.mark.parametrize("text", ["", "4M", "4.5MiB", "-1", "0", "0MiB", "many"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        size(text)


@given(st.integers(1, 2**40))
def test_sizes_are_shown_as_they_are_read(value: int) -> None:
    assert size(show_size(value)) == value


def test_metadata_is_comma_separated_and_repeatable() -> None:
    assert read(
        "--server_metadata", "zone=b,rack=7", "--server_metadata=url=http://a/?b=c", "--tls"
    ).metadata == {"zone": "b", "rack": "7", "url": "http://a/?b=c"}
    assert read(MICRO_SERVER_METADATA="zone=b, canary").metadata == {"zone": "b", "canary": ""}


def test_metadata_from_outside_replaces_that_of_the_code() -> None:
    code = Options(metadata={"type": "helloworld"})
    assert read("--server_metadata=zone=b", code=code).metadata == {"zone": "b"}


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("register_ttl=soon", "'soon' is no duration, write one such as 500ms, 5s or 1m30s"),
        (
            "client_request_timeout=0s",
            "'0s' leaves no time, write a duration such as 500ms, 5s or 1m30s",
        ),
        ("client_retries=-1", "'-1' is no whole number from 0 up"),
        ("client_pool_size=0", "'0' is no whole number from 1 up"),
        (
            "max_message_size=4M",
            "'4M' is no size, write one such as 4MiB, 512KiB or a number of bytes",
        ),
        ("tls_insecure=maybe", "'maybe' is neither true nor false"),
        ("server_metadata==b", "'=b' has a value without a name, write name=value,name=value"),
        ("profile=nast", "'nast' is not known, did you mean nats?"),
        ("profile=zzz", "'zzz' is not known, known are local, nats, http, pprof"),
        ("log_level=inof", "'inof' is not known, did you mean info?"),
    ],
)
def test_a_bad_value_is_told_with_where_it_came_from(flag: str, sentence: str) -> None:
    name, _, value = flag.partition("=")
    variable = f"MICRO_{name.upper()}"
    assert refused(f"--{flag}") == f"--{name}: {sentence}"
    assert refused(**{variable: value}) == f"{variable}: {sentence}"


def test_levels_are_pythons_whatever_they_were_called() -> None:
    for text, level in (("TRACE", "debug"), ("warn", "warning"), ("fatal", "critical")):
        options = read(MICRO_LOG_LEVEL=text)
        assert options.log_level == level
        assert isinstance(logging.getLevelNamesMapping()[level.upper()], int)
    assert Options(log_level="WARN").log_level == "warning"
    with pytest.raises(OptionsError, match="log_level: 'lout' is not known"):
        Options(log_level="lout")


def test_every_setting_reaches_its_field() -> None:
    texts = {
        "boolean": "true",
        "duration": "7s",
        "format": "json",
        "level": "error",
        "name": "nats",
        "names": "otel",
        "name=value": "a=7",
        "number": "7",
        "size": "7KiB",
        "text": "seven",
    }
    for setting in SETTINGS:
        text = "false" if setting.name == "tls_check_hostname" else texts[setting.kind.name]
        code = Options()
        if setting.target.startswith("tls."):
            code = Options(tls=Tls(cert_file="node.pem", ca_file="ca.pem"))
        options = read(f"--{setting.name}={text}", code=code)
        changed = {name for name, value in shown(options).items() if value != shown(code)[name]}
        if setting.kind is IGNORED:
            assert options == code
        elif setting.name == "profile":
            assert changed == {"profile", "registry", "broker", "transport"}
        else:
            assert changed == {setting.name}


# Plugins and their addresses


def test_names_and_addresses_are_split() -> None:
    assert split("etcd") == ("etcd", "")
    assert split("etcd://10.0.0.1:2379") == ("etcd", "10.0.0.1:2379")
    assert split("etcd://a:1,etcd://b:2") == ("etcd", "a:1,b:2")
    assert split("nats://user:secret@a:4222,b:4222") == ("nats", "user:secret@a:4222,b:4222")
    assert split("") == ("", "")


def test_the_defaults_need_nothing_installed_or_started() -> None:
    options = Options()
    assert options.plugin("registry") == ("mdns", "")
    assert options.plugin("transport") == ("http", "")
    assert options.plugin("broker") == ("http", "")
    assert options.plugin("selector") == ("p2c", "")
    assert options.plugin("client") == options.plugin("server") == ("rpc", "")


@pytest.mark.parametrize(
    ("code", "environ", "flags", "expected"),
    [
        # registry and registry_address of each layer
        ("", "", "etcd://f:1", ("etcd", "f:1")),
        ("", " e:1", "etcd", ("etcd", "e:1")),
        ("", " e:1", "etcd://f:1", ("etcd", "f:1")),
        ("", "consul e:1", " f:1", ("consul", "f:1")),
        ("", "consul://e:1", " f:1", ("consul", "f:1")),
        ("", "consul://e:1", "etcd", ("etcd", "")),
        ("", "consul://e:1 e:2", "", ("consul", "e:2")),
        ("consul://c:1", "", "", ("consul", "c:1")),
        ("consul://c:1", " e:1", "", ("consul", "e:1")),
        ("consul://c:1", "consul", "", ("consul", "c:1")),
        ("consul c:1", "consul", "", ("consul", "c:1")),
        ("consul c:1", "consul://e:1", "", ("consul", "e:1")),
        ("consul c:1", "etcd", "", ("etcd", "")),
        ("consul c:1", "etcd e:1", "", ("etcd", "e:1")),
        ("consul c:1", "", "etcd://f:1", ("etcd", "f:1")),
        (" c:1", "", "etcd", ("etcd", "c:1")),
        (" c:1", "", "etcd://f:1", ("etcd", "f:1")),
        ("nats://c:1", " e:1", "nats://f:1", ("nats", "f:1")),
    ],
)
def test_an_address_goes_with_the_plugin_it_was_meant_for(
    code: str, environ: str, flags: str, expected: tuple[str, str]
) -> None:
    name, _, address = code.partition(" ")
    given = Options(registry=name, registry_address=address)
    texts = environ.partition(" "), flags.partition(" ")
    variables = {"MICRO_REGISTRY": texts[0][0], "MICRO_REGISTRY_ADDRESS": texts[0][2]}
    words = [f"--registry={texts[1][0]}"] * bool(texts[1][0])
    words += [f"--registry_address={texts[1][2]}"] * bool(texts[1][2])
    assert read(*words, code=given, **variables).plugin("registry") == expected


def test_an_instance_stays_until_another_plugin_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Mine:
        pass

    mine: Any = Mine()
    code = Options(registry=mine)
    assert read(code=code).registry is mine
    assert read(code=code, MICRO_REGISTRY_ADDRESS="e:1").registry is mine
    assert "registry_address has no effect on the Mine of the code" in caplog.text
    assert code.plugin("registry") == ("Mine", "")
    options = read(code=code, MICRO_REGISTRY="etcd", MICRO_REGISTRY_ADDRESS="e:1")
    assert options.plugin("registry") == ("etcd", "e:1")


# Profiles


def test_the_profile_nats_moves_three_plugins_to_one_address() -> None:
    for options in (
        Options(profile="nats", nats_address="nats://n:4222"),
        read("--profile=nats", MICRO_NATS_ADDRESS="nats://n:4222"),
        read(code=Options(profile="nats"), MICRO_NATS_ADDRESS="nats://n:4222"),
        read("--profile=nats", "--nats_address=nats://n:4222", code=Options(registry="etcd://c")),
    ):
        for interface in ("registry", "broker", "transport"):
            assert options.plugin(interface) == ("nats", "nats://n:4222")


def test_a_plugin_named_outside_wins_over_the_profile() -> None:
    options = read("--profile=nats", MICRO_REGISTRY="etcd", MICRO_BROKER_ADDRESS="b:4222")
    assert options.plugin("registry") == ("etcd", "")
    assert options.plugin("broker") == ("nats", "b:4222")
    assert Options(profile="nats", registry="etcd").plugin("registry") == ("etcd", "")


def test_the_profile_local_goes_back_to_the_defaults() -> None:
    code = Options(registry="etcd://c:1", broker="nats://c:1")
    options = read(code=code, MICRO_PROFILE="local")
    assert options.plugin("registry") == ("mdns", "")
    assert options.plugin("broker") == options.plugin("transport") == ("http", "")


def test_profilers_of_old_deployments_change_nothing() -> None:
    code = Options(profile="nats")
    assert read("--profile=pprof", code=code) == code


# Routes


@pytest.mark.parametrize(
    ("environ", "route"),
    [
        ({}, ("", "")),
        ({"MICRO_PROXY": "service"}, ("go.micro.proxy", "")),
        ({"MICRO_PROXY": "my.proxy"}, ("my.proxy", "")),
        ({"MICRO_PROXY": "10.0.0.1:8081"}, ("", "10.0.0.1:8081")),
        ({"MICRO_PROXY": "p", "MICRO_PROXY_ADDRESS": "10.0.0.1:8081"}, ("p", "10.0.0.1:8081")),
        ({"MICRO_NETWORK": "service"}, ("go.micro.network", "")),
        ({"MICRO_NETWORK_ADDRESS": "10.0.0.1:8085"}, ("", "10.0.0.1:8085")),
        ({"MICRO_PROXY": "p", "MICRO_NETWORK_ADDRESS": "10.0.0.1:8085"}, ("p", "")),
    ],
)
def test_calls_can_be_routed_through_one_service(
    environ: dict[str, str], route: tuple[str, str]
) -> None:
    assert Options().read([], environ).route() == route


# TLS


def test_tls_is_off_until_it_is_asked_for() -> None:
    assert read().tls is None
    assert read(MICRO_TLS_INSECURE="true").tls is None, "Go Micro turns nothing on by it"
    assert read("--tls").tls == Tls()
    assert read("--tls", MICRO_TLS_INSECURE="true").tls == Tls(verify=False)
    assert read(MICRO_TLS_CA_FILE="ca.pem").tls == Tls(ca_file="ca.pem")


def test_tls_of_the_code_is_overlaid_field_by_field() -> None:
    code = Options(tls=Tls(cert_file="node.pem", key_file="node.key"))
    options = read("--tls_key_file=other.key", "--tls_key_password=sesame", code=code)
    assert options.tls == Tls(cert_file="node.pem", key_file="other.key", key_password="sesame")


def test_tls_settings_that_contradict_each_other_are_refused() -> None:
    sentence = "the TLS key 'node.key' has no certificate: set tls_cert_file"
    assert refused("--tls_key_file=node.key") == sentence


# Secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nats://user:secret@a:4222", "nats://***@a:4222"),
        ("user:secret@a:4222", "***@a:4222"),
        ("nats://secret@a,nats://u:secret@b", "nats://***@b"),
        ("nats://u:se,cr//et@a", "nats://***@a"),
        ("redis://a:6379?db=1&password=secret", "redis://a:6379?db=1&password=***"),
        ("10.0.0.1:8500", "10.0.0.1:8500"),
    ],
)
def test_redacting(text: str, expected: str) -> None:
    assert redact(text) == expected


@given(st.text(), st.sampled_from(["nats://", "", "amqp+tls://", "'redis://"]))
def test_no_password_survives_redacting(password: str, scheme: str) -> None:
    assert "hunter2" not in redact(f"{scheme}user:hunter2{password}@host:4222/")


def test_secrets_are_in_no_text() -> None:
    address = "nats://user:hunter2@a:4222"
    options = read(
        "--tls_cert_file=node.pem",
        MICRO_BROKER=address,
        MICRO_REGISTRY_ADDRESS=address,
        MICRO_NATS_ADDRESS=address,
        MICRO_TLS_KEY_PASSWORD="hunter2",
    )
    assert "hunter2" not in repr(options)
    assert "broker='nats://***@a:4222'" in repr(options)
    assert "hunter2" not in "".join(shown(options).values())
    with pytest.raises(Asked) as asked:
        read("--help", code=options)
    assert "hunter2" not in str(asked.value)
    for flag in (address, f"--brokr={address}", f"--client_retries={address}", f"--{address}"):
        assert "hunter2" not in refused(flag)


def test_the_repr_shows_what_was_said() -> None:
    assert repr(Options()) == "Options()"
    options = Options(name="greeter", metadata={"mail": "a@b"}, register_ttl=5)
    assert repr(options) == "Options(name='greeter', metadata={'mail': 'a@b'}, register_ttl=5)"


# Help, version, exits


def test_help_names_every_flag_with_variable_and_default() -> None:
    code = Options(name="greeter", registry="consul://10.0.0.1:8500")
    for flag in ("--help", "-h"):
        with pytest.raises(Asked) as asked:
            read(flag, code=code, MICRO_REGISTER_TTL="not even readable")
        text = str(asked.value)
        assert text.startswith("Usage: greeter ")
        assert "--register_ttl duration  (MICRO_REGISTER_TTL)" in text
        assert "its last registration [90s]" in text
        assert "name://address [consul]" in text
        assert all(f"  --{setting.name}" in text for setting in SETTINGS)
        assert max(map(len, text.splitlines())) <= 100


def test_version_is_that_of_the_service() -> None:
    for flag in ("--version", "-v"):
        with pytest.raises(Asked) as asked:
            read(flag, code=Options(name="greeter", version="1.2.3"))
        assert str(asked.value) == "greeter 1.2.3\n"


def test_exits(capsys: pytest.CaptureFixture[str]) -> None:
    code = Options(name="greeter")
    assert parse_or_exit(code, ["program", "--server_id=1"], {}).id == "1"
    with pytest.raises(SystemExit) as ended:
        parse_or_exit(code, ["program", "--registri=x"], {})
    assert ended.value.code == 2
    sentence = "greeter: there is no flag --registri: did you mean --registry?\n"
    assert capsys.readouterr().err == sentence
    with pytest.raises(SystemExit) as ended:
        parse_or_exit(code, ["program", "--version"], {})
    assert ended.value.code == 0
    assert capsys.readouterr().out == "greeter latest\n"


def test_a_plugin_that_is_not_there_ends_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_or_exit(Options(name="greeter"), ["--registry=mdsn://user:hunter2@a"], {})
    assert ended.value.code == 2
    sentence = "greeter: there is no registry 'mdsn': did you mean 'mdns'?\n"
    assert capsys.readouterr().err == sentence
    mine: Any = object()
    assert parse_or_exit(Options(registry=mine), [], {}).registry is mine


def test_the_keyword_arguments_are_the_fields() -> None:
    known = get_type_hints(Settings)
    assert known == {
        name: hint for name, hint in get_type_hints(Options).items() if name not in {"name", "rest"}
    }


def test_a_process_reads_its_own_command_line_and_environment() -> None:
    program = (
        "from shoal.options import Options, parse_or_exit;"
        "print(parse_or_exit(Options(name='greeter')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--server_id=1", "--", "more"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MICRO_SERVER_VERSION": "7"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "Options(name='greeter', version='7', id='1', rest=('more',))\n"


# The table


def test_the_documentation_has_the_table() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    table = "\n".join(_settings.markdown(shown(Options())))
    assert table in page, "docs/configuration.md must hold what shoal._settings.markdown yields"


def test_names_are_unique_and_in_go_micros_style() -> None:
    names = [setting.name for setting in SETTINGS]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalpha() and name.islower() for name in names)
