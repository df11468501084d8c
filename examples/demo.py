"""Starts the greeter, calls it by name from another process, and stops it: `make demo`."""

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent / "greeter"


def run(*words: str) -> int:
    """Run a command, showing it as a person would type it."""
    print(f"$ {' '.join(Path(word).name if word == sys.executable else word for word in words)}")
    return subprocess.run(words, cwd=HERE, timeout=30, check=False).returncode


def main() -> int:
    print("$ python server.py &")
    server = subprocess.Popen([sys.executable, "server.py"], cwd=HERE, stderr=subprocess.PIPE)
    assert server.stderr is not None
    try:
        for line in server.stderr:
            print(f"  {line.decode().rstrip()}")
            if b"Others reach it" in line:
                break
        time.sleep(0.1)
        failed = run(sys.executable, "client.py")
        failed += run(sys.executable, "-m", "shoal", "services")
        failed += run(
            sys.executable, "-m", "shoal", "call", "greeter", "Greeter.Hello", '{"name": "John"}'
        )
    finally:
        server.terminate()
        for line in server.stderr:
            print(f"  {line.decode().rstrip()}")
        server.wait(timeout=30)
    print("It works." if not failed else "It does not work.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
