"""Installs what tests need and Debian packages: `python -m tests.servers`.

Servers that are Go modules are built by the first test that needs them.
"""

import importlib
import pkgutil

import tests.servers as servers


def kinds() -> list[type[servers.Server]]:
    """Return the server of every module of this package."""
    found: list[type[servers.Server]] = []
    for module in pkgutil.iter_modules(servers.__path__):
        if not module.name.startswith("_"):
            names = vars(importlib.import_module(f"tests.servers.{module.name}"))
            found += [
                value
                for value in names.values()
                if isinstance(value, type) and issubclass(value, servers.Server)
            ]
    return [kind for kind in dict.fromkeys(found) if kind is not servers.Server]


if __name__ == "__main__":
    servers.install(kinds())
