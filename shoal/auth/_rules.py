"""Module _rules finds the scopes that an endpoint or topic asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DENIED: frozenset[str] = frozenset()


class Rules:
    """Scopes by the name of an endpoint or topic; the closest name counts.

    `Greeter.Hello` is closer than `Greeter.*`, which is closer than `*`. Raises ValueError for a
    name with a wildcard elsewhere, and TypeError for what is no scope.
    """

    def __init__(self, rules: Mapping[str, str | Sequence[str]]) -> None:
        self._exact: dict[str, frozenset[str]] = {}
        self._prefixes: list[tuple[str, frozenset[str]]] = []
        for name, scopes in rules.items():
            allowed = _scopes(name, scopes)
            if "*" not in name:
                self._exact[name] = allowed
            elif name.count("*") == 1 and (name == "*" or name.endswith(".*")):
                self._prefixes.append((name[:-1], allowed))
            else:
                raise ValueError(f"{name!r} is no name: write Type.Method, Type.* or *")
        self._prefixes.sort(key=lambda one: len(one[0]), reverse=True)

    def __repr__(self) -> str:
        names = [*self._exact, *(f"{prefix}*" for prefix, _ in self._prefixes)]
        return f"Rules({', '.join(names)})"

    def of(self, name: str) -> frozenset[str]:
        """Return the scopes of which one is enough; empty if nobody may."""
        found = self._exact.get(name)
        if found is not None:
            return found
        for prefix, allowed in self._prefixes:
            if name.startswith(prefix):
                return allowed
        return DENIED


def _scopes(name: str, scopes: str | Sequence[str]) -> frozenset[str]:
    several = (scopes,) if isinstance(scopes, str) else tuple(scopes)
    for scope in several:
        if not isinstance(scope, str):
            raise TypeError(f"the rule for {name!r} has {scope!r}, which is no scope")
    return frozenset(several)
