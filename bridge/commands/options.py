"""Options that several commands share, each with one meaning and one help text."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option(help="Configuration file; config.yaml where it exists.")
]
JournalPath = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="A journal's folder or file; journal.dir by default."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]
