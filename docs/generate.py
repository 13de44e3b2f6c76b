"""Writes what in docs/ is made from the code: the schemas, and the tables of docs/contract.md and
docs/metrics.md.

    python -m docs.generate            write
    python -m docs.generate --check    write nothing; exit status 1 where something is out of date

Knows files and Markdown; what the contract says is `bridge.contract.schema`'s.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bridge.contract.causes import CAUSES
from bridge.contract.entry import OWN_MODELS, field_names
from bridge.contract.events import Event
from bridge.contract.schema import (
    MEANINGS,
    asyncapi_document,
    entries_document,
    entry_models,
    entry_types,
    may_be_empty,
    meaning,
    wire_name,
)
from bridge.metrics import bridge_metrics
from bridge.metrics.exposition import Metric
from bridge.view.document import status_schema
from consumers.exporter import group_metrics
from docs.drawing import flow_svg

HERE = Path(__file__).parent
TABLES = "<!-- tables: made by docs/generate.py -->", "<!-- end of tables -->"
METRICS = "<!-- metrics: made by docs/generate.py -->", "<!-- end of metrics -->"
METRICS_OF_GROUPS = "<!-- groups: made by docs/generate.py -->", "<!-- end of groups -->"
CAUSES_OF_GAPS = "<!-- causes: made by docs/generate.py -->", "<!-- end of causes -->"


def documents() -> Mapping[Path, str]:
    """Each generated file and what it must hold."""
    contract = HERE / "contract.md"
    text = _replaced(contract.read_text("utf-8"), CAUSES_OF_GAPS, causes())
    page = HERE / "metrics.md"
    of_bridges = _replaced(page.read_text("utf-8"), METRICS, metrics(bridge_metrics.CATALOGUE))
    return {
        HERE / "contract" / "entries.schema.json": _json(entries_document()),
        HERE / "contract" / "asyncapi.json": _json(asyncapi_document()),
        HERE / "contract" / "status.schema.json": _json(status_schema()),
        HERE / "pictures" / "flow.svg": flow_svg(),
        contract: _replaced(text, TABLES, tables()),
        page: _replaced(of_bridges, METRICS_OF_GROUPS, metrics(group_metrics.CATALOGUE)),
    }


def causes() -> str:
    """A row for each cause of gaps."""
    rows = [
        f"| `{cause}` | {'sequenced' if facts.sequenced_only else 'all'} | {facts.means} |"
        for cause, facts in CAUSES.items()
    ]
    return "\n".join(["| cause | in | what happened |", "| --- | --- | --- |", *rows, ""])


def metrics(catalogue: Sequence[Metric]) -> str:
    """A row for each metric."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {' '.join(f'`{each}`' for each in metric.labels)} | "
        f"{metric.help.removesuffix('.')} |"
        for metric in catalogue
    ]
    return "\n".join(["| name | kind | labels | what |", "| --- | --- | --- | --- |", *rows, ""])


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


def _replaced(text: str, marks: tuple[str, str], made: str) -> str:
    """The text with what stands between the marks made anew."""
    begin, end = marks
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{made}\n{end}{after}"


def _section(model: type[Event]) -> Iterator[str]:
    yield "### " + ", ".join(f"`{name}`" for name in entry_types(model))
    yield ""
    yield MEANINGS[model]
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
        cells = [f"`{name}`", f"`{wire}`" if wire else "", empty, meaning(model, attribute)]
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
    for path, text in documents().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
