"""Makes the JSON Schema of the Kubernetes objects that `deploy/kubernetes` uses from the official
Python client, whose classes are generated from the API's own description:

    pip install kubernetes==33.1.0
    python -m tests.support.kubernetes_schema > tests/integration/deploy/kubernetes.schema.json

The client is no dependency of the project, since these objects rarely change. Unknown fields are
refused, as by `kubectl --validate=strict`.
"""

import inspect
import json
import re
import sys
from typing import Any

KINDS = (
    "V1StatefulSet",
    "V1Deployment",
    "V1Service",
    "V1ConfigMap",
    "V1PodDisruptionBudget",
    "V1NetworkPolicy",
)
_PLAIN: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string"},
    "object": {},  # a number or a string, such as a port
}


def schema(models: Any, version: str) -> dict[str, Any]:
    """The schema of all KINDS; an object must match one of them."""
    definitions: dict[str, Any] = {}
    for kind in KINDS:
        _define(kind, models, definitions)
    return {
        "$comment": f"made by python -m tests.support.kubernetes_schema from kubernetes {version}",
        "oneOf": [{"$ref": f"#/definitions/{kind}"} for kind in KINDS],
        "definitions": definitions,
    }


def _define(name: str, models: Any, definitions: dict[str, Any]) -> None:
    if name in definitions:
        return
    model = getattr(models, name)
    definitions[name] = {}  # a definition may refer to itself
    properties = {
        model.attribute_map[attribute]: _of(kind, models, definitions)
        for attribute, kind in sorted(model.openapi_types.items())
    }
    if name in KINDS:
        properties["kind"] = {"const": name.removeprefix("V1")}
        properties["apiVersion"] = {"type": "string"}
    definitions[name] = {
        "type": "object",
        "properties": properties,
        "required": sorted(
            {model.attribute_map[attribute] for attribute in _required(model)}
            | ({"kind", "apiVersion"} if name in KINDS else set())
        ),
        "additionalProperties": False,
    }


def _of(kind: str, models: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if found := re.fullmatch(r"list\[(.+)\]", kind):
        return {"type": "array", "items": _of(found[1], models, definitions)}
    if found := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return {"type": "object", "additionalProperties": _of(found[1], models, definitions)}
    if kind in _PLAIN:
        return _PLAIN[kind]
    _define(kind, models, definitions)
    return {"$ref": f"#/definitions/{kind}"}


def _required(model: Any) -> set[str]:
    """The fields that the constructor always sets: they are required, since it refuses None."""
    lines = inspect.getsource(model.__init__).splitlines()
    always = {
        found[1] for line in lines if (found := re.match(r" {8}self\.([a-z]\w*) = \1$", line))
    }
    return always & set(model.openapi_types)


if __name__ == "__main__":
    import kubernetes  # type: ignore[import-not-found]

    made = schema(kubernetes.client.models, kubernetes.__version__)
    lines = [
        f" {json.dumps(name)}: {json.dumps(one)}" for name, one in made.pop("definitions").items()
    ]
    head = json.dumps(made)[:-1]
    sys.stdout.write(head + ', "definitions": {\n' + ",\n".join(lines) + "\n}}\n")
