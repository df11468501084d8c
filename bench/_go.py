"""go: builds the peers written in Go, and says which versions they are made of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench._process import Unavailable

SOURCE = Path(__file__).parent / "go"
CACHE = Path(__file__).parent.parent / ".cache" / "bench"
DEADLINE = 600.0  # seconds: the first build downloads modules


def build(name: str) -> Path:
    """Builds one command of the module and returns its path; raises `Unavailable`."""
    go = shutil.which("go")
    if go is None:
        raise Unavailable("Go is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    # Checksums are resolved next to a copy of go.mod, so a build leaves the sources as they are.
    module = CACHE / "go.mod"
    module.write_text((SOURCE / "go.mod").read_text())
    binary = CACHE / name
    command = [go, "build", "-mod=mod", f"-modfile={module}", "-o", str(binary), f"./{name}"]
    try:
        subprocess.run(
            command, cwd=SOURCE, check=True, capture_output=True, text=True, timeout=DEADLINE
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"go build took more than {DEADLINE:.0f} s") from error
    except subprocess.CalledProcessError as error:
        lines = [
            line for line in error.stderr.splitlines() if not line.startswith(("go: down", "#"))
        ]
        raise Unavailable(f"go build: {lines[0] if lines else 'failed'}") from error
    return binary


def versions(binary: Path) -> dict[str, str]:
    """Returns the Go release and the direct modules a binary was built with."""
    output = subprocess.run(
        ["go", "version", "-m", str(binary)], capture_output=True, text=True, check=True
    ).stdout
    first, *lines = output.splitlines()
    found = {"go": first.split()[-1].removeprefix("go")}
    for line in lines:
        match line.split():
            case ["dep", "go-micro.dev/v5", version, *_]:
                found["go-micro.dev/v5"] = version
    return found
