"""guarded: a service behind TLS and rules: `python -m bench.reliability._guarded KEY NAME [flags]`.

KEY is the file with the issuer's public key. Under SHOAL_PROOF_OFF=12 it has no rules, and keeps
the certificate it began with.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.reliability import is_off
from bench.reliability._service import Worker, main, make
from bench.reliability._soaked import Soak
from shoal import tls
from shoal.auth import PUBLIC, account, authorize
from shoal.auth.jwt import JwtVerifier

ISSUER = "https://issuer.example/"
AUDIENCE = "greeter"  # of the tokens that the tests issue
RULES = {"Worker.Work": "work", "Worker.Repeatable": "admin", "Guarded.*": "work", "Soak.*": PUBLIC}


class Guarded:
    """Tells who calls."""

    async def who(self, name: str) -> str:
        """Return the caller's id."""
        return account().id


if __name__ == "__main__":
    key, *words = sys.argv[1:]
    verify = JwtVerifier(Path(key).read_text(), issuer=ISSUER, audience=AUDIENCE)
    off = is_off(12)
    if off:
        tls.RENEWAL = 1e9
    made = make(words, middleware=[] if off else [authorize(verify, RULES)])
    soak = Soak()
    for handler in (Worker(made), Guarded(), soak):
        made.handle(handler)
    made.subscribe("guarded", Soak.take.__get__(soak))
    main(made)
