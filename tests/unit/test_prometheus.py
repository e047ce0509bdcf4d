"""What stands beside the metrics: their page of documentation, rules, alerts, dashboard and drop-ins, held to the code.

Where promtool is installed, it tests the rules as well; in a guest it always is, see tests/e2e/test_metrics.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from unitmem.cli import VERBS
from unitmem.tell.openmetrics import FAMILIES, MetricType

CHECKOUT = Path(__file__).parents[2]
FOLDER = CHECKOUT / "prometheus"
RULES = {name: yaml.safe_load((FOLDER / f"{name}.yml").read_text()) for name in ("recording", "alerts")}
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

RECORDED = {rule["record"] for group in RULES["recording"]["groups"] for rule in group["rules"]}
ALERTS = {rule["alert"]: rule for group in RULES["alerts"]["groups"] for rule in group["rules"]}
METRICS = {
    family.metric + suffix: family
    for family in FAMILIES
    for suffix in (("_bucket", "_count", "_sum") if family.kind is MetricType.HISTOGRAM else ("",))
}


def expressions():
    """(where, PromQL) of every rule, alert and panel."""
    for name, document in RULES.items():
        for group in document["groups"]:
            for rule in group["rules"]:
                yield f"{name}: {rule.get('record') or rule.get('alert')}", rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"dashboard: {panel['title']} {target['refId']}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield f"dashboard: ${variable['name']}", variable["definition"]


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_metric_asked_for_exists_and_has_the_labels_asked_for(where, expression):
    words = set(re.findall(r"[a-z_]*:?unitmem_[a-z0-9_:]+|\bup\b", expression))
    assert words
    assert words - METRICS.keys() - RECORDED - {"up"} == set()
    for metric, matchers in re.findall(r"([a-z0-9_:]+)\{([^}]*)\}", expression):
        if metric in METRICS:
            asked = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers))
            assert asked <= {*METRICS[metric].labels, "instance", "job", "le"}


def test_every_rule_and_alert_is_tested():
    tested = (FOLDER / "recording_test.yml").read_text()
    assert {name for name in RECORDED if name not in tested} == set()
    tested = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tested for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == ALERTS.keys()


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_says_how_urgent_and_what_to_do(name):
    alert = ALERTS[name]
    assert name.startswith("Unitmem")
    assert alert["labels"]["severity"] in ("info", "warning", "critical")
    assert alert["annotations"].keys() == {"summary", "description"}


def test_names_of_recording_rules_say_level_metric_and_operation():
    """https://prometheus.io/docs/practices/rules/"""
    for name in RECORDED:
        assert re.fullmatch(r"[a-z_]+:unitmem_[a-z_]+:[a-z0-9]+", name)


def test_a_command_named_in_an_alert_is_one():
    said = json.dumps([alert["annotations"] for alert in ALERTS.values()])
    commands = set(re.findall(r"unitmem ([a-z]+) [{/]", said))
    assert commands
    assert commands <= VERBS.keys()


# --- the dashboard -----------------------------------------------------------------------------


def test_panels_have_ids_of_their_own_and_don_t_overlap():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])


def test_panels_know_only_variables_that_there_are_and_no_data_source_of_ours():
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    assert set(re.findall(r"\$\{?([a-z]+)\b", text)) == variables
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}


# --- promtool ----------------------------------------------------------------------------------

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here (Debian: prometheus); a guest has it"
)


def promtool(*arguments, cwd=FOLDER):
    done = subprocess.run(
        ["promtool", *arguments], cwd=cwd, check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_is_content_with_the_rules():
    promtool("check", "rules", "recording.yml", "alerts.yml")
    promtool("test", "rules", "recording_test.yml", "alerts_test.yml")


@needs_promtool
def test_panels_ask_in_promql(tmp_path):
    rules = [
        {"record": f"panel:{number}:x", "expr": re.sub(r"\$__\w+", "5m", expression)}
        for number, (where, expression) in enumerate(EXPRESSIONS)
        if where.startswith("dashboard") and not expression.startswith("label_values")
    ]
    path = tmp_path / "panels.yml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(path))


# --- documentation -----------------------------------------------------------------------------


def test_the_documentation_has_every_metric_as_it_is():
    """Each row: name, type, labels but `watch`, which all have, and meaning."""
    page = (CHECKOUT / "docs/metrics.md").read_text()
    shown = re.findall(r"^\| `unitmem_.*$", page, re.MULTILINE)
    expected = [
        f"| `{family.metric}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels[1:])} | {family.meaning} |"
        for family in FAMILIES
    ]
    assert sorted(shown) == sorted(expected)


@pytest.mark.parametrize("name", ["textfile", "http"])
def test_the_service_manual_shows_the_drop_ins(name):
    text = (FOLDER / f"unitmem@.service.d/{name}.conf").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    manual = (CHECKOUT / "man/unitmem@.service.8.md").read_text()
    assert textwrap.indent("\n".join(lines), "    ") in manual


def test_links_of_the_folder_and_of_the_page_lead_somewhere():
    for page in (FOLDER / "README.md", CHECKOUT / "docs/metrics.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), target
    for name in re.findall(r"^\| (.*) \|", (FOLDER / "README.md").read_text(), re.MULTILINE):
        for file in re.findall(r"`([^`\s]+\.(?:yml|json)|[^`\s]+/)`", name.partition(" | ")[0]):
            assert (FOLDER / file).exists(), file
