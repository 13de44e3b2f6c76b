"""The Kubernetes objects are valid for the API, restricted, and consistent with each other."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from bridge.metrics.health import ALIVE, READY
from bridge.runtime.config import load_config
from bridge.runtime.share import Share
from tests.integration.deploy.compose import ROOT
from tests.integration.deploy.manifests import (
    FOLDER,
    Object,
    built,
    needs_kubectl,
    of_kind,
    pod_of,
    variables,
    written,
)

SCHEMA = json.loads(Path(__file__).with_name("kubernetes.schema.json").read_text("utf-8"))
WORKLOADS = of_kind(written(), "StatefulSet", "Deployment")
OF_OTHERS = ("ScaledObject",)  # defined by KEDA


def flaws(thing: Object) -> list[str]:
    """The errors that the API would report for this object, each with its path."""
    definition = {"$ref": f"#/definitions/V1{thing['kind']}"}
    checker = Draft7Validator({**definition, "definitions": SCHEMA["definitions"]})
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(thing)]


def named(objects: Sequence[Object]) -> list[str]:
    return [f"{each['kind']}/{each['metadata']['name']}" for each in objects]


@pytest.mark.parametrize("thing", written(), ids=named(written()))
def test_each_object_fits_the_api_of_kubernetes(thing: Object) -> None:
    assert flaws(thing) == []


def test_a_field_that_the_api_does_not_know_would_be_found() -> None:
    [bridge] = of_kind(written(), "StatefulSet")
    pod_of(bridge)["terminationGraceSeconds"] = 30
    pod_of(bridge)["containers"][0]["ports"][0]["containerPort"] = "9464"
    del bridge["spec"]["selector"]

    assert len(flaws(bridge)) == 3


@needs_kubectl
@pytest.mark.parametrize("name", ["base", "overlay"])
def test_kustomize_output_is_valid_and_its_references_exist(name: str) -> None:
    objects = built(FOLDER / name)
    configs = {each["metadata"]["name"] for each in of_kind(objects, "ConfigMap")}

    for thing in objects:
        assert thing["kind"] in OF_OTHERS or flaws(thing) == []
    for workload in of_kind(objects, "StatefulSet", "Deployment"):
        volumes = pod_of(workload)["volumes"]
        assert {each["configMap"]["name"] for each in volumes if "configMap" in each} == configs
    [config] = of_kind(objects, "ConfigMap")
    assert list(config["data"]) == ["config.yaml"]


@needs_kubectl
def test_the_overlay_gives_the_account_to_the_bridge_alone_and_the_workers_to_keda() -> None:
    objects = built(FOLDER / "overlay")
    secrets = {
        workload["metadata"]["name"]: {
            volume["secret"]["secretName"]
            for volume in pod_of(workload)["volumes"]
            if "secret" in volume
        }
        for workload in of_kind(objects, "StatefulSet", "Deployment")
    }
    [scaled] = of_kind(objects, "ScaledObject")
    [candles] = [each for each in objects if named([each]) == ["Deployment/candles"]]

    assert secrets == {
        "bridge": {"backpack-redis", "backpack-account"},
        "candles": {"backpack-redis"},
        "exporter": {"backpack-redis"},
    }
    assert scaled["spec"]["scaleTargetRef"]["name"] == "candles"
    assert "replicas" not in candles["spec"]


@needs_kubectl
def test_a_fleet_has_as_many_bridges_as_share_the_streams(tmp_path: Path) -> None:
    kustomization = {
        "resources": [os.path.relpath(FOLDER / "base", tmp_path)],
        "components": [os.path.relpath(FOLDER / "components" / "fleet", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    [bridge] = of_kind(built(tmp_path), "StatefulSet")
    [container] = pod_of(bridge)["containers"]
    given = variables(container) | {"BRIDGE_SHARE__INDEX": "2"}  # of the third pod
    shares = {name: value for name, value in given.items() if "SHARE" in name}

    assert flaws(bridge) == []
    assert str(bridge["spec"]["replicas"]) == given["BRIDGE_SHARE__OF"]
    assert load_config(None, None, shares).share.value == Share(("0", "1", "2"), "2")
    assert "BRIDGE_SHARE__INDEX" in {each["name"] for each in container["env"]}


@pytest.mark.parametrize("workload", WORKLOADS, ids=named(WORKLOADS))
def test_pods_are_of_the_restricted_standard(workload: Object) -> None:
    pod = pod_of(workload)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("workload", WORKLOADS, ids=named(WORKLOADS))
def test_kubernetes_adds_no_variables_to_containers(workload: Object) -> None:
    """A service called `bridge` would set BRIDGE_SERVICE_HOST, which is not a setting of the
    bridge.
    """
    assert pod_of(workload)["enableServiceLinks"] is False


@pytest.mark.parametrize("workload", WORKLOADS, ids=named(WORKLOADS))
def test_probes_request_existing_pages_at_the_listening_port(workload: Object) -> None:
    [container] = pod_of(workload)["containers"]
    [port] = container["ports"]
    listening = [*variables(container).values(), *container["args"]]

    assert f"0.0.0.0:{port['containerPort']}" in listening
    assert container["livenessProbe"]["httpGet"] == {"path": ALIVE, "port": port["name"]}
    assert container["readinessProbe"]["httpGet"] == {"path": READY, "port": port["name"]}


@pytest.mark.parametrize("workload", WORKLOADS, ids=named(WORKLOADS))
def test_labels_volumes_and_files_agree(workload: Object) -> None:
    spec, pod = workload["spec"], pod_of(workload)
    claims = {each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", [])}
    volumes = {each["name"] for each in pod["volumes"]} | claims
    [container] = pod["containers"]
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}

    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert set(mounted) == volumes
    for name, value in variables(container).items():
        if name.endswith("_FILE"):
            assert any(Path(value).parent == Path(path) for path in mounted.values()), name


def test_journal_volume_is_larger_than_the_journals_limit() -> None:
    [bridge] = of_kind(written(), "StatefulSet")
    [claim] = bridge["spec"]["volumeClaimTemplates"]
    size = claim["spec"]["resources"]["requests"]["storage"]
    config = load_config(FOLDER / "base" / "config.yaml", None, {})

    assert size.endswith("Gi")
    assert int(size[:-2]) * 1024**3 >= 2 * config.journal.max_bytes
    [container] = pod_of(bridge)["containers"]
    mounted = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    journal = Path("/app") / config.journal.dir  # the image's working directory
    assert journal.is_relative_to(mounted[claim["metadata"]["name"]])
    assert "WORKDIR /app\n" in (ROOT / "Dockerfile").read_text("utf-8")


def test_services_and_the_disruption_budget_choose_pods_that_there_are() -> None:
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in WORKLOADS]
    objects = written()
    for service in of_kind(objects, "Service"):
        assert service["spec"]["selector"] in labels
    [budget] = of_kind(objects, "PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"] in labels
    [bridge] = of_kind(objects, "StatefulSet")
    assert budget["spec"]["maxUnavailable"] < bridge["spec"]["replicas"]
    assert bridge["spec"]["serviceName"] in [
        each["metadata"]["name"] for each in of_kind(objects, "Service")
    ]


@pytest.mark.parametrize("name", ["base", "overlay"])
def test_configuration_in_kubernetes_is_valid(name: str) -> None:
    assert load_config(FOLDER / name / "config.yaml", None, {}).stream_names


def test_image_has_the_commands_of_the_pods() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    user = {pod_of(each)["securityContext"]["runAsUser"] for each in WORKLOADS}

    assert 'ENTRYPOINT ["python", "-m"]' in dockerfile
    assert f"USER {user.pop()}\n" in dockerfile
    assert {pod_of(each)["containers"][0]["args"][0] for each in WORKLOADS} <= {
        "bridge",
        "consumers",
    }


def test_files_named_in_kustomizations_exist() -> None:
    for file in FOLDER.rglob("kustomization.yaml"):
        kustomization: Any = yaml.safe_load(file.read_text("utf-8"))
        names = [*kustomization.get("resources", []), *kustomization.get("components", [])]
        names += [each["path"] for each in kustomization.get("patches", []) if "path" in each]
        names += [
            name for each in kustomization.get("configMapGenerator", []) for name in each["files"]
        ]
        assert names
        for name in names:
            assert (file.parent / name).exists(), f"{file}: {name}"
