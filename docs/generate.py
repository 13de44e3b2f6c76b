"""Writes what in docs/ is made from the code: the schemas, and the tables of docs/contract.md.

    python -m docs.generate            write
    python -m docs.generate --check    write nothing; exit status 1 where something is out of date

Knows files and Markdown; what the contract says is `bridge.contract.schema`'s.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from bridge.contract.entry import OWN_MODELS, field_names
from bridge.contract.events import Event
from bridge.contract.meanings import TYPES, meaning
from bridge.contract.schema import (
    asyncapi_document,
    entries_document,
    entry_models,
    entry_types,
    may_be_empty,
    wire_name,
)

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: made by docs/generate.py -->", "<!-- end of tables -->"


def documents() -> Mapping[Path, str]:
    """Each generated file and what it must hold."""
    contract = HERE / "contract.md"
    before, _, rest = contract.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return {
        HERE / "contract" / "entries.schema.json": _json(entries_document()),
        HERE / "contract" / "asyncapi.json": _json(asyncapi_document()),
        contract: f"{before}{BEGIN}\n\n{tables()}\n{END}{after}",
    }


def tables() -> str:
    """A section for each kind of entry: what it is, and its fields in their order."""
    return "\n".join(line for model in entry_models() for line in _section(model))


def outdated() -> list[Path]:
    """Generated files that are not what they must be."""
    return [
        path
        for path, text in documents().items()
        if not path.exists() or path.read_text("utf-8") != text
    ]


def _section(model: type[Event]) -> Iterator[str]:
    yield "### " + ", ".join(f"`{name}`" for name in entry_types(model))
    yield ""
    yield TYPES[model]
    yield ""
    own = model in OWN_MODELS
    yield (
        "| field | may be empty | meaning |"
        if own
        else ("| field | on the wire | may be empty | meaning |")
    )
    yield "| --- | --- | --- |" if own else "| --- | --- | --- | --- |"
    attributes = [*model.model_fields, "extra"]
    for name, attribute in zip(field_names(model), attributes, strict=True):
        empty = "yes" if attribute == "extra" or may_be_empty(model, attribute) else ""
        wire = "" if attribute == "extra" else wire_name(model, attribute)
        cells = [f"`{name}`", f"`{wire}`" if wire else "", empty, meaning(model, name)]
        if own:
            del cells[1]
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """The command line."""
    stale = outdated()
    if "--check" in sys.argv[1:]:
        for path in stale:
            sys.stderr.write(f"{path} is out of date: run python -m docs.generate\n")
        return 1 if stale else 0
    (HERE / "contract").mkdir(exist_ok=True)
    for path, text in documents().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
