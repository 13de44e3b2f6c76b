"""`python -m bridge contract`: the contract as JSON documents."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from bridge.contract.schema import asyncapi_document, entries_document
from bridge.runtime.terminal import echo_json
from bridge.view.document import status_schema


class Form(StrEnum):
    """The formats of the contract."""

    JSON_SCHEMA = "json-schema"
    ASYNCAPI = "asyncapi"
    STATUS = "status"


DOCUMENTS: Mapping[Form, Callable[[], Mapping[str, Any]]] = {
    Form.JSON_SCHEMA: entries_document,
    Form.ASYNCAPI: asyncapi_document,
    Form.STATUS: status_schema,
}


def command(
    form: Annotated[
        Form,
        typer.Argument(
            help="json-schema: every entry; asyncapi: every stream, too; "
            "status: what `status --json` prints."
        ),
    ] = Form.JSON_SCHEMA,
) -> None:
    """Print the contract of this version: the entries of the streams.

    The same documents as in `docs/contract/`. Needs neither configuration nor Redis.

    Examples:

        python -m bridge contract > entries.schema.json

        python -m bridge contract asyncapi > asyncapi.json
    """
    echo_json(DOCUMENTS[form](), indent=2)
