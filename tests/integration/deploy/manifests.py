"""The Kubernetes objects of `deploy/kubernetes`, from the files and as Kustomize builds them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.deploy.compose import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
Object = dict[str, Any]

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which includes Kustomize, is not installed"
)


def written(folder: Path = FOLDER / "base") -> list[Object]:
    """The objects in the files of the base."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    return [
        each
        for name in kustomization["resources"]
        for each in yaml.safe_load_all((folder / name).read_text("utf-8"))
    ]


def built(folder: Path) -> list[Object]:
    """The objects that `kubectl apply -k` would send."""
    made = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    return [each for each in yaml.safe_load_all(made.stdout) if each]


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def pod_of(workload: Object) -> Object:
    pod: Object = workload["spec"]["template"]["spec"]
    return pod


def variables(container: Object) -> dict[str, str]:
    """The container's variables that have a literal value."""
    return {each["name"]: each["value"] for each in container.get("env", []) if "value" in each}
