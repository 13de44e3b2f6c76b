"""Options that several commands have: one name, one meaning, one sentence of help."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option(help="Configuration file; config.yaml where it is there.")
]
JournalPath = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="A journal's folder or file; journal.dir by default."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]
