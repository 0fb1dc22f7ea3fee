"""Dashboards, rules and provisioning hold what they promise, read as files; `test_monitoring.py` sees them at work."""

import json
import re
import subprocess
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy import dashboards
from resolver.observe.metrics import METRICS
from tests.support.server import ROOT

GRAFANA, PROMETHEUS = ROOT / "deploy" / "grafana", ROOT / "deploy" / "prometheus"
FILES = sorted(path.name for path in GRAFANA.glob("*.json"))
RULES = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "interdict.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
LABELS = {metric.name: {*metric.labels, "job", "instance"} for metric in METRICS}


def dashboard(file: str) -> dict[str, Any]:
    """A dashboard as it is shipped."""
    return dict(json.loads((GRAFANA / file).read_text()))


def panels() -> list[Any]:
    """Each panel of each dashboard."""
    found = [(file, panel) for file in FILES for panel in dashboard(file)["panels"]]
    return [pytest.param(panel, id=f"{file}: {panel['title']}") for file, panel in found]


# ---- dashboards -----------------------------------------------------------------------------------------------------


def test_the_dashboards_are_what_the_code_makes() -> None:
    """Where this fails: python deploy/dashboards.py."""
    assert {file: (GRAFANA / file).read_text() for file in FILES} == dashboards.dashboards()


@pytest.mark.parametrize("file", FILES)
def test_grafanas_own_model_reads_a_dashboard(file: str) -> None:
    """And writes it again as it was: no key is misspelt, none of another type."""
    register_default_plugins()
    read = dashboard(file)

    assert json.loads(JSONEncoder().encode(Dashboard.from_json(read))) == read


@pytest.mark.parametrize("file", FILES)
def test_a_dashboard_is_found_and_leads_to_the_others(file: str) -> None:
    """By its own address, with a link to all that bear the tag, and picks for source and node."""
    read = dashboard(file)

    assert read["uid"] == f"interdict-{file.removesuffix('.json')}"
    assert [(link["type"], link["tags"]) for link in read["links"]] == [("dashboards", read["tags"])]
    assert [variable["name"] for variable in read["templating"]["list"]][:2] == ["datasource", "instance"]


@pytest.mark.parametrize("file", FILES)
def test_no_panel_lies_on_another(file: str) -> None:
    """And each has a number of its own, within the grid's 24 columns."""
    read = dashboard(file)["panels"]
    cells = [
        {(place["x"] + column, place["y"] + row) for column in range(place["w"]) for row in range(place["h"])}
        for place in (panel["gridPos"] for panel in read)
    ]

    assert len({panel["id"] for panel in read}) == len(read)
    assert max(column for area in cells for column, _ in area) < 24
    assert not any(one & other for one, other in combinations(cells, 2))


@pytest.mark.parametrize("panel", panels())
def test_a_panel_is_a_question_with_its_unit(panel: dict[str, Any]) -> None:
    """With a sentence on what it means; numbers have a unit, states a threshold."""
    assert panel["title"].endswith("?")
    assert panel["description"].endswith(".")
    assert panel["datasource"]["uid"] == "${datasource}"
    if panel["type"] != "table":
        assert panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] in ("stat", "bargauge"):
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]


@pytest.mark.parametrize("panel", panels())
def test_a_panel_looks_back_as_far_as_grafana_says(panel: dict[str, Any]) -> None:
    """No window of its own: it would be too short for some scrape interval, or too long for some screen."""
    windows = {window for target in panel["targets"] for window in re.findall(r"\[([^]]+)\]", target["expr"])}

    assert windows <= {"$__rate_interval", "$__range"}


@pytest.mark.parametrize("panel", panels())
def test_a_panel_asks_for_labels_that_there_are(panel: dict[str, Any]) -> None:
    """A label that no metric of the expression has would make an empty line or one line of all."""
    for target in panel["targets"]:
        assert_labels(target["expr"])


def assert_labels(expr: str) -> None:
    """Matchers of a metric name its labels; what is grouped by is a label of some metric in the expression."""
    of_all = {"le", "alertname", "alertstate"}
    for metric, matchers in re.findall(r"(\binterdict_\w+)(?:{([^}]*)})?", expr):
        labels = LABELS[metric.removesuffix("_bucket")]
        assert set(re.findall(r"(\w+)\s*=", matchers)) <= labels, metric
        of_all |= labels
    for grouped in re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", expr):
        assert set(re.findall(r"\w+", grouped)) <= of_all | {"job", "instance"}, expr


# ---- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("check", "file"),
    [
        ("check rules", "interdict.rules.yml"),
        ("check config", "prometheus.yml"),
        ("test rules", "interdict.rules.test.yml"),
    ],
)
def test_promtool_finds_nothing_wrong(check: str, file: str, peer: Callable[[str], str]) -> None:
    """Neither with the rules and the scrape configuration, nor with the stories told of each alert."""
    done = subprocess.run([peer("promtool"), *check.split(), str(PROMETHEUS / file)], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_its_story() -> None:
    """In which it is silent, fires, and is silent again."""
    stories = yaml.safe_load((PROMETHEUS / "interdict.rules.test.yml").read_text())["tests"]
    told = {
        re.findall(r'alertname="(\w+)"', story["promql_expr_test"][0]["expr"])[0]: [
            len(at["exp_samples"]) for at in story["promql_expr_test"]
        ]
        for story in stories
    }

    assert told == {rule["alert"]: [0, 1, 0] for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_what_where_and_what_to_do(rule: dict[str, Any]) -> None:
    """How bad it is, a line, a sentence, and a runbook that is named after it."""
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"deploy/README.md#{rule['alert'].lower()}"
    assert_labels(rule["expr"])


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_looks_back_over_several_scrapes(rule: dict[str, Any]) -> None:
    """Five minutes at least: with a scrape a minute four are left when one fails."""
    windows = re.findall(r"\[(\d+)([mhd])\]", rule["expr"])

    assert len(windows) == rule["expr"].count("[")
    assert all(int(number) >= 5 or unit != "m" for number, unit in windows)


# ---- provisioning ---------------------------------------------------------------------------------------------------


def test_grafana_is_shown_the_folder_of_the_dashboards() -> None:
    """The provider's path is the checkout's, where the guide has it."""
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "interdict.yaml").read_text())["providers"]

    assert provider["type"] == "file"
    assert provider["options"]["path"] == f"/opt/interdict/{GRAFANA.relative_to(ROOT)}"


def test_grafana_is_told_of_a_prometheus() -> None:
    """Of the kind that the dashboards pick from, with the scrape interval of the example."""
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "interdict.yaml").read_text())["datasources"]
    scraping = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    kinds = {variable["query"] for file in FILES for variable in dashboard(file)["templating"]["list"][:1]}

    assert {source["type"]} == kinds
    assert source["jsonData"]["timeInterval"] == scraping


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_has_its_runbook(rule: dict[str, Any]) -> None:
    """A section of the guide with its name, and something in it."""
    guide = (ROOT / "deploy" / "README.md").read_text()

    assert re.search(rf"^#+ {rule['alert']}\n\n\w.+", guide, re.MULTILINE)
