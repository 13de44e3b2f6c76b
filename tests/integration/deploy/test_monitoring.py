"""Rules, dashboard and runbook agree with the catalogue, with each other, and with Prometheus."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.metrics import bridge_metrics
from bridge.metrics.exposition import Kind, Metric
from consumers.exporter import group_metrics
from deploy import dashboard
from tests.integration.deploy.compose import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
METRIC = re.compile(r"\bbackpack_\w+")
BY_NAME = {
    metric.full_name: metric for metric in (*bridge_metrics.CATALOGUE, *group_metrics.CATALOGUE)
}
LABELS = re.compile(r"\b(backpack_\w+)\{([^}]*)\}")
OF_A_TARGET = {"job", "instance"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def promtool(*arguments: str, folder: Path = PROMETHEUS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )


def rules(file: str = "rules.yml") -> list[dict[str, Any]]:
    written = yaml.safe_load((PROMETHEUS / file).read_text("utf-8"))
    return [rule for group in written["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules()}


def firing_in_tests() -> set[str]:
    """Alerts that fire in the rule tests."""
    written = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text("utf-8"))
    cases = [case for test in written["tests"] for case in test["alert_rule_test"]]
    return {case["alertname"] for case in cases if case["exp_alerts"]}


def expressions() -> list[str]:
    return [*dashboard.expressions(), *(rule["expr"] for rule in rules())]


def unknown_series(expression: str) -> list[str]:
    """The metrics and labels of the expression that no page has."""
    names = {name: _row(name) for name in METRIC.findall(expression)}
    wrong = [name for name, metric in names.items() if metric is None]
    for name, selectors in LABELS.findall(expression):
        if (metric := _row(name)) is not None:
            labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selectors))
            known = {*metric.labels, "le", *OF_A_TARGET}
            wrong += [f"{name}{{{label}}}" for label in labels - known]
    return wrong


def _row(name: str) -> Metric | None:
    base = re.sub("_(bucket|sum|count)$", "", name)
    histogram = BY_NAME.get(base)
    if histogram is not None and histogram.kind is Kind.HISTOGRAM:
        return histogram
    return BY_NAME.get(name)


@needs_promtool
@pytest.mark.parametrize("file", ["rules.yml", "without_us.yml"])
def test_prometheus_accepts_the_rules(file: str) -> None:
    checked = promtool("check", "rules", file)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_each_alert_fires_when_it_should_and_not_before() -> None:
    run = promtool("test", "rules", "rules_test.yml")

    assert run.returncode == 0, run.stdout + run.stderr


@needs_promtool
def test_prometheus_accepts_its_own_configuration() -> None:
    run = promtool("check", "config", "prometheus.yml")

    assert run.returncode == 0, run.stdout + run.stderr


@needs_promtool
def test_prometheus_can_parse_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    made = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(dashboard.expressions())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))

    checked = promtool("check", "rules", "panels.yml", folder=tmp_path)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(made)} rules found" in checked.stdout


def test_every_alert_has_a_rule_test_in_which_it_fires() -> None:
    assert firing_in_tests() == set(alerts())


def test_every_alert_has_a_severity_a_summary_and_its_page_in_the_runbook() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket", "none"), name
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_for_no_other() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")

    assert set(re.findall(r"^### (Backpack\w+)$", page, re.MULTILINE)) == set(alerts())


def test_expressions_name_only_metrics_and_labels_of_the_catalogue() -> None:
    assert unknown_series('backpack_made_up{reason="x"}') == ["backpack_made_up"]
    assert unknown_series('backpack_unhealthy{rason="x"}') == ["backpack_unhealthy{rason}"]
    assert [unknown_series(each) for each in expressions() if unknown_series(each)] == []


def test_reasons_in_expressions_exist() -> None:
    named = {reason for each in expressions() for reason in re.findall(r'reason="(\w+)"', each)}

    assert named
    assert named <= {reason.value for reason in bridge_metrics.Reason}


def test_dashboard_file_equals_the_scripts_output() -> None:
    assert dashboard.FILE.read_text("utf-8") == dashboard.text(), "python -m deploy.dashboard"


def test_panels_do_not_overlap_and_have_unique_numbers() -> None:
    panels = dashboard.dashboard()["panels"]
    taken = [
        (x, y)
        for panel in panels
        if (at := panel["gridPos"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < dashboard.WIDTH


def test_keda_example_scales_by_an_existing_metric() -> None:
    [trigger] = yaml.safe_load(
        (ROOT / "deploy/kubernetes/components/keda/scaledobject.yaml").read_text("utf-8")
    )["spec"]["triggers"]

    assert (trigger["type"], set(trigger["metadata"])) == (
        "prometheus", {"serverAddress", "query", "threshold"},
    )  # fmt: skip
    assert float(trigger["metadata"]["threshold"]) > 0
    assert unknown_series(trigger["metadata"]["query"]) == []
