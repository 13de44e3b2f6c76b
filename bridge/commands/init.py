"""`python -m bridge init`: writes the starter files."""

from pathlib import Path
from typing import Annotated

import typer

from bridge.runtime.starter_files import write_starter_files
from bridge.runtime.terminal import echo


def command(
    folder: Annotated[
        Path, typer.Argument(help="Where to write; made where it is missing.")
    ] = Path("."),
) -> None:
    """Write config.yaml, with every setting and its default, and .env.example for keys.

    Overwrites nothing: where one of the two exists already, it writes neither and reports it.

    Exit status: 0 written, 1 not.

    Examples:

        python -m bridge init

        python -m bridge init my-bridge
    """
    for path in write_starter_files(folder):
        echo(f"wrote {path}")
    echo(
        "Next: which streams and which Redis, in config.yaml; then `check`, then `run`, from there."
    )
    echo("Keys are needed for private streams only: copy .env.example to .env and put them in.")
