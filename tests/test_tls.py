"""What a Tls refuses, and that its contexts do a handshake only with the right peer."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from shoal.tls import Tls, TlsError


class Authority:
    """Issues certificates for 127.0.0.1 into a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = str(folder / f"{name}.pem")
        certificate = self._builder(self._name, self._key, authority=True)
        Path(self.file).write_bytes(certificate.public_bytes(Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            # Python 3.13 and newer verify strictly: they want to see whose key signed.
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        if not authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, name: str, *, password: str = "") -> tuple[str, str]:
        """Write a certificate and its key, and return their paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._builder(subject, key, authority=False)
        paths = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        hidden = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
        return str(paths[0]), str(paths[1])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def _tls(authority: Authority, name: str = "node", **more: object) -> Tls:
    certificate, key = authority.issue(name)
    settings: dict[str, object] = {"ca_file": authority.file, **more}
    return Tls(cert_file=certificate, key_file=key, **settings)  # type: ignore[arg-type]  # a mix


@asynccontextmanager
async def _echo(tls: Tls) -> AsyncIterator[int]:
    """Serve one line per connection with a Tls, and yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await reader.readline())
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.server_context())
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _ask(port: int, tls: Tls, host: str = "127.0.0.1") -> tuple[bytes, ssl.SSLObject]:
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls.client_context(), server_hostname=host
        )
        try:
            writer.write(b"hello\n")
            answer = await reader.readline()
            return answer, writer.get_extra_info("ssl_object")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def test_a_client_and_a_server_of_one_authority_talk(authority: Authority) -> None:
    async with _echo(_tls(authority)) as port:
        answer, connection = await _ask(port, Tls(ca_file=authority.file))
    assert answer == b"hello\n"
    assert connection.selected_alpn_protocol() == "http/1.1"
    assert connection.version() in {"TLSv1.2", "TLSv1.3"}


async def test_a_server_of_a_stranger_is_refused(authority: Authority) -> None:
    async with _echo(_tls(authority)) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask(port, Tls())


async def test_a_client_that_does_not_verify_talks_to_strangers(authority: Authority) -> None:
    async with _echo(_tls(authority)) as port:
        answer, _ = await _ask(port, Tls(verify=False))
    assert answer == b"hello\n"


async def test_the_host_name_is_checked_unless_told_otherwise(authority: Authority) -> None:
    async with _echo(_tls(authority)) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask(port, Tls(ca_file=authority.file), "elsewhere")
        tls = Tls(ca_file=authority.file, check_hostname=False)
        assert (await _ask(port, tls, "elsewhere"))[0] == b"hello\n"


async def test_a_server_can_demand_certificates(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("unknown")
    async with _echo(_tls(authority, client_auth=True)) as port:
        answer, _ = await _ask(port, _tls(authority, "client"))
        assert answer == b"hello\n"
        for tls in (
            Tls(ca_file=authority.file),
            Tls(ca_file=authority.file, cert_file=stranger[0], key_file=stranger[1]),
        ):
            answer = b""
            with suppress(OSError):  # an alert, a reset or the end, as the race goes
                answer, _ = await _ask(port, tls)
            assert answer == b""


def test_certificate_and_key_may_share_a_file(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("node")
    both = tmp_path / "both.pem"
    both.write_text(Path(certificate).read_text() + Path(key).read_text())
    Tls(cert_file=str(both)).server_context()


def test_old_versions_are_not_spoken(authority: Authority) -> None:
    tls = _tls(authority)
    for context in (tls.client_context(), tls.server_context()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_an_encrypted_key_is_opened_by_its_password_and_never_asks(authority: Authority) -> None:
    certificate, key = authority.issue("node", password="open sesame")
    Tls(cert_file=certificate, key_file=key, key_password="open sesame").server_context()
    for wrong in ("", "sesame", "x" * 2000):
        tls = Tls(cert_file=certificate, key_file=key, key_password=wrong)
        with pytest.raises(TlsError, match=r"node\.key' is encrypted and tls_key_password"):
            tls.server_context()


def test_a_key_of_another_certificate_is_refused(authority: Authority) -> None:
    certificate, other = authority.issue("node")[0], authority.issue("other")[1]
    with pytest.raises(TlsError, match=r"other\.key' does not belong to the certificate"):
        Tls(cert_file=certificate, key_file=other).server_context()


def test_a_missing_file_is_named_with_the_reason(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("node")
    absent = str(tmp_path / "absent.pem")
    for tls, what in (
        (Tls(cert_file=absent, key_file=key), "certificate"),
        (Tls(cert_file=certificate, key_file=absent), "key"),
        (Tls(ca_file=absent), "authority"),
    ):
        sentence = rf"cannot read the TLS {what} '.*absent\.pem': No such file"
        with pytest.raises(TlsError, match=sentence):
            tls.client_context()


def test_files_that_hold_something_else_are_refused(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("node")
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for one, two in ((certificate, str(junk)), (str(junk), key)):
        with pytest.raises(TlsError, match="hold no PEM certificate and its key"):
            Tls(cert_file=one, key_file=two).server_context()
    with pytest.raises(TlsError, match="is no PEM certificate"):
        Tls(ca_file=str(junk)).client_context()


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(TlsError, match="set tls_cert_file"):
        Tls(key_file="node.key")
    with pytest.raises(TlsError, match="set tls_ca_file"):
        Tls(client_auth=True)
    with pytest.raises(TlsError, match="needs a certificate"):
        Tls().server_context()


def test_the_password_is_not_shown() -> None:
    assert "sesame" not in repr(Tls(cert_file="node.pem", key_password="sesame"))
