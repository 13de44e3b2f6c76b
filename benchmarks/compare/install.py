"""Creates the peers' environment: `python -m benchmarks.compare.install .venv-compare LOCK`.

Installs everything locked, with hashes; where that fails, each package by itself, so that an
unavailable one affects only the peers that need it.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def main() -> None:
    venv, lock = sys.argv[1:]
    python = Path(venv) / "bin/python"
    if not python.exists():
        print(f"Creating {venv}")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    print("Installing the other tools (two minutes, the first time)", flush=True)
    if _installs(python, lock):
        return
    for requirement in requirements(Path(lock).read_text("utf-8")):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(requirement)
            file.flush()
            if not _installs(python, file.name, "--no-deps"):
                print(f"not installed: {requirement.split()[0]}", file=sys.stderr)


def requirements(lock: str) -> Iterator[str]:
    """Each package of a lock file with its hashes."""
    lines: list[str] = []
    for line in lock.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            lines.append(line)
            if not line.endswith("\\"):
                yield "\n".join(lines) + "\n"
                lines = []


def _installs(python: Path, lock: str, *options: str) -> bool:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--require-hashes", *options, "-r", lock]
    return not subprocess.run(command).returncode


if __name__ == "__main__":
    main()
