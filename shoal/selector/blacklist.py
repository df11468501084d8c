"""Module blacklist is the selector that leaves nodes out which keep failing."""

from __future__ import annotations

from typing import Unpack

from shoal.registry import Registry
from shoal.selector._cached import Settings
from shoal.selector._health import Policy
from shoal.selector.random import RandomSelector


class BlacklistSelector(RandomSelector):
    """Gives any node but those whose last `errors` calls failed, for `seconds` after the last.

    Every error counts, those of handlers too, unless it blames the request (codes 400 to 499
    other than 408, Timeout). When all nodes are left out a call fails with Unavailable. The
    numbers are those of Go Micro's plugin of this name.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        errors: int = 3,
        seconds: float = 30.0,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(registry, **settings)
        self.policy = Policy(
            counts=blames_node, errors=errors, pause=seconds, longest=seconds, strict=True
        )


def blames_node(error: Exception) -> bool:
    """Whether an error may be the node's fault; what the caller did wrong is not."""
    code = getattr(error, "code", 500)
    return not 400 <= code < 500 or code == 408
