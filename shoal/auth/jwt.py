"""Module jwt verifies tokens that are signed: JSON Web Tokens, as Go Micro's auth issues them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shoal.auth import ID, Account
from shoal.auth._jwks import KeySet, Loaded
from shoal.errors import Unauthorized
from shoal.plugins import PluginError
from shoal.tls import Tls

try:
    import jwt
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
except ModuleNotFoundError as error:
    raise PluginError(f"verifying tokens needs {error.name!r}: pip install 'shoal[jwt]'") from error

SIGNED = frozenset("RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA".split())
SHARED = {"HS256": 32, "HS384": 48, "HS512": 64}  # with the bytes a secret needs
LONGEST = 16 * 1024  # characters of a token
LEEWAY = 30.0  # seconds that the clocks of two machines may differ

_WHY = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet"),
    (jwt.InvalidAudienceError, "the token is for somebody else"),
    (jwt.InvalidIssuerError, "the token is from somebody else"),
    (jwt.InvalidSignatureError, "the token's signature is not that of its issuer"),
    (jwt.InvalidAlgorithmError, "the token is signed in a way that is not accepted"),
)


class JwtVerifier:
    """Tells whose a token is: signed by a key of the issuer, for this audience, and in its time.

    `keys` is the `https://` address of the issuer's keys (JWKS), which are fetched again when
    they are old and when a token names one that is new; or public keys in PEM form, one or
    several by their id; or, with the algorithms HS256 to HS512 alone, secrets. `issuer` and
    `audience` must be what the token says; None accepts any, as Go Micro's tokens have no
    audience. `tls` is for fetching keys. Raises ValueError for settings that would accept what
    they should not.
    """

    def __init__(
        self,
        keys: str | bytes | Mapping[str, str | bytes],
        *,
        issuer: str | None,
        audience: str | Sequence[str] | None,
        algorithms: Sequence[str] = ("RS256", "ES256", "EdDSA"),
        leeway: float = LEEWAY,
        tls: Tls | None = None,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._algorithms = _checked(algorithms)
        self._remote: KeySet | None = None
        self._own: Loaded = {}
        shared = self._algorithms[0] in SHARED
        if isinstance(keys, str) and "://" in keys:
            if shared:
                raise ValueError("secrets are not fetched: give them, or pin RS256 or the like")
            self._remote = KeySet(keys, tls, _loaded)
        else:
            named = keys if isinstance(keys, Mapping) else {"": keys}
            read = self._secret if shared else _public
            self._own = {id: read(key) for id, key in named.items()}
            if not self._own:
                raise ValueError("without a key nothing can be verified")

    def __repr__(self) -> str:
        keys = self._remote or f"{len(self._own)} keys"
        return (
            f"JwtVerifier({keys}, issuer={self._issuer!r}, audience={self._audience!r}, "
            f"algorithms={self._algorithms})"
        )

    async def __call__(self, token: str) -> Account:
        """Return whose a token is.

        Raises Unauthorized, saying what is wrong with it, and Unavailable if the issuer's keys
        cannot be fetched.
        """
        if len(token) > LONGEST:
            raise Unauthorized("the token is too long", id=ID)
        failure: Exception | None = None
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in self._algorithms:
                raise jwt.InvalidAlgorithmError
            for key in await self._candidates(header.get("kid")):
                try:
                    return _account(self._decode(token, key))
                except (jwt.InvalidSignatureError, jwt.InvalidKeyError, TypeError) as error:
                    failure = error  # of several keys another may be the one
        except jwt.PyJWTError as error:
            failure = error
        why = next((text for kind, text in _WHY if isinstance(failure, kind)), "")
        if not why:
            why = "the token is signed with an unknown key" if failure is None else "no valid token"
        # Not from the error: it may hold parts of the token.
        raise Unauthorized(why, id=ID) from None

    def _decode(self, token: str, key: Any) -> dict[str, Any]:
        required = ["exp", "sub"]
        required += ["iss"] if self._issuer is not None else []
        required += ["aud"] if self._audience is not None else []
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=self._algorithms,
            issuer=self._issuer,
            audience=self._audience,
            leeway=self._leeway,
            options={"require": required, "verify_aud": self._audience is not None},
        )
        return claims

    async def _candidates(self, id: object) -> list[Any]:
        keys = self._own if self._remote is None else await self._remote.current()
        if isinstance(id, str) and id not in keys and self._remote is not None:
            keys = await self._remote.newer()  # the issuer has begun to use another
        if isinstance(id, str) and id in keys:
            return [keys[id]]
        if isinstance(id, str) and "" not in keys:
            return []
        return list(keys.values())

    def _secret(self, key: str | bytes) -> bytes:
        secret = key.encode() if isinstance(key, str) else key
        needed = max(SHARED[name] for name in self._algorithms)
        if secret.lstrip().startswith(b"-----BEGIN"):
            raise ValueError("a public key is no secret: whoever has it could sign with it")
        if len(secret) < needed:
            raise ValueError(f"a secret for {', '.join(self._algorithms)} needs {needed} bytes")
        return secret


def _checked(algorithms: Sequence[str]) -> list[str]:
    names = [algorithms] if isinstance(algorithms, str) else list(algorithms)
    unknown = [name for name in names if name not in SIGNED and name not in SHARED]
    if unknown or not names:
        known = ", ".join((*sorted(SIGNED), *SHARED))
        raise ValueError(f"{', '.join(unknown) or 'none'} signs nothing: choose from {known}")
    if 0 < sum(name in SHARED for name in names) < len(names):
        raise ValueError("secrets and public keys do not mix: a public key is no secret")
    return names


def _public(key: str | bytes) -> Any:
    text = key.encode() if isinstance(key, str) else key
    try:
        return load_pem_public_key(text)
    except (ValueError, TypeError) as error:
        raise ValueError("a key must be a public key in PEM form") from error


def _loaded(data: bytes) -> Loaded:
    """Return the keys of a JWKS that can sign; raises ValueError if it is none."""
    try:
        keys = jwt.PyJWKSet.from_json(data.decode()).keys
    except jwt.PyJWTError as error:
        raise ValueError("no JWKS with a key that is known") from error
    return {
        key.key_id or "": key.key
        for key in keys
        if key.key_type != "oct" and key.public_key_use in (None, "sig")
    }


def _account(claims: Mapping[str, Any]) -> Account:
    """Return the account of verified claims: Go Micro's, or those that OAuth 2 has (RFC 9068)."""
    scopes: set[str] = set()
    for name in ("scopes", "scope", "scp"):
        said = claims.get(name)
        if isinstance(said, str):
            scopes.update(said.split())
        elif isinstance(said, list):
            scopes.update(one for one in said if isinstance(one, str))
    metadata = claims.get("metadata")
    kept = metadata.items() if isinstance(metadata, dict) else ()
    # These have a meaning of their own in rules, and belong to no token.
    return Account(
        id=str(claims["sub"]),
        issuer=str(claims.get("iss", "")),
        type=str(claims.get("type", "")),
        scopes=frozenset(scopes - {"", "*"}),
        metadata={str(name): str(value) for name, value in kept},
        claims=claims,
    )
