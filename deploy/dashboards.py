"""The Grafana dashboards, as code: `python deploy/dashboards.py` writes `deploy/grafana/*.json`.

For people on call: every title is a question and the panel its answer, a panel asks Prometheus one kind of thing, and
what is red is wrong. Rates are taken over `$__rate_interval`, which Grafana makes of the scrape interval, so the
dashboards hold for 15 seconds as for 60. Each expression is about the nodes picked at the top (`$instance`).
"""

from collections.abc import Iterable
from pathlib import Path
from string import ascii_uppercase
from typing import Final

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as choices
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.units import BytesIEC, DurationSeconds, PercentUnit, Seconds, Short

FOLDER: Final = Path(__file__).parent / "grafana"
TAG: Final = "interdict"
SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
PER_SECOND: Final = "cps"
PER_SECOND_ASKED: Final = "reqps"

# Colours by what they mean.
FINE, LOOK, WRONG = "green", "orange", "red"
Steps = tuple[tuple[float | None, str], ...]
ANY_IS_WRONG: Final[Steps] = ((None, FINE), (1, WRONG))
NO_JUDGEMENT: Final[Steps] = ((None, "blue"),)
YES_NO: Final = model.ValueMap(
    {
        "0": model.ValueMappingResult(text="no", color=WRONG, index=0),
        "1": model.ValueMappingResult(text="yes", color=FINE, index=1),
    }
)

Query = tuple[str, str]  # expression, legend


# ---- panels ---------------------------------------------------------------------------------------------------------


def number(
    title: str,
    about: str,
    expr: str,
    unit: str,
    steps: Steps,
    *,
    legend: str = "",
    width: int = 6,
    yes_no: bool = False,
) -> stat.Panel:
    """The state now: a number, or one for each legend, coloured by what it means."""
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    text = choices.BigValueTextMode.VALUE_AND_NAME if legend else choices.BigValueTextMode.VALUE
    panel = stat.Panel().title(title).description(about).datasource(SOURCE).unit(unit).span(width).height(4)
    panel = panel.thresholds(_thresholds(steps)).reduce_options(reduced).text_mode(text)
    panel = panel.color_mode(choices.BigValueColorMode.BACKGROUND).graph_mode(choices.BigValueGraphMode.NONE)
    if yes_no:
        panel = panel.mappings([YES_NO])
    return panel.with_target(_now(expr, legend))


def graph(
    title: str,
    about: str,
    queries: Iterable[Query],
    unit: str,
    *,
    width: int = 12,
    stacked: choices.StackingMode = choices.StackingMode.NONE,
    limit: float | None = None,
) -> timeseries.Panel:
    """How it went: a line for each legend, and another where it becomes wrong."""
    panel = timeseries.Panel().title(title).description(about).datasource(SOURCE).unit(unit).span(width).height(8)
    panel = panel.min(0).stacking(common.StackingConfig().mode(stacked)).line_width(1)
    panel = panel.fill_opacity(8 if stacked is choices.StackingMode.NONE else 40)
    panel = panel.legend(
        common.VizLegendOptions()
        .display_mode(choices.LegendDisplayMode.TABLE)
        .placement(choices.LegendPlacement.RIGHT)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    panel = panel.tooltip(common.VizTooltipOptions().mode(choices.TooltipDisplayMode.MULTI))
    if limit is not None:
        panel = panel.thresholds(_thresholds(((None, FINE), (limit, WRONG))))
        line = common.GraphThresholdsStyleConfig().mode(choices.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(line)
    for letter, (expr, legend) in zip(ascii_uppercase, queries, strict=False):
        query = prometheus.Dataquery().datasource(SOURCE).expr(expr).range().legend_format(legend)
        panel = panel.with_target(query.ref_id(letter))
    return panel


def ranking(
    title: str, about: str, expr: str, legend: str, unit: str, steps: Steps, *, width: int = 12
) -> bargauge.Panel:
    """Which of them: a bar for each legend, as things are now or over the time shown."""
    panel = bargauge.Panel().title(title).description(about).datasource(SOURCE).unit(unit).span(width).height(8)
    panel = panel.orientation(choices.VizOrientation.HORIZONTAL).thresholds(_thresholds(steps)).min(0)
    panel = panel.display_mode(choices.BarGaugeDisplayMode.BASIC)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.with_target(_now(expr, legend))


def listing(title: str, about: str, exprs: Iterable[str], columns: dict[str, str], *, width: int = 24) -> table.Panel:
    """What there is: a row for each set of labels, a column for each label and each expression.

    Args:
        title: The question.
        about: What it means.
        exprs: The values of the first go to the column `Value #A`, and so on.
        columns: What the columns are called; those without a name here are hidden.
    """
    panel = table.Panel().title(title).description(about).datasource(SOURCE).span(width).height(8)
    for letter, expr in zip(ascii_uppercase, exprs, strict=False):
        panel = panel.with_target(_now(expr, "").format(PromQueryFormat.TABLE).ref_id(letter))
    panel = panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    shown = model.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(columns)}})
    named = model.DataTransformerConfig(id_val="organize", options={"renameByName": columns})
    return panel.with_transformation(shown).with_transformation(named)


def _now(expr: str, legend: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().datasource(SOURCE).expr(expr).instant().legend_format(legend).ref_id("A")


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    held = [model.Threshold(value, colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(held)


# ---- dashboards -----------------------------------------------------------------------------------------------------


def _variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    everything = model.VariableOption(selected=True, text=["All"], value=["$__all"])
    variable = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(query).current(everything)
    variable = variable.multi(True).include_all(True).all_value(".*")
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)


def _dashboard(name: str, about: str) -> dashboard.Dashboard:
    """A dashboard without panels: its picks at the top, and links to the others."""
    links = dashboard.DashboardLink("Interdict").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return (
        dashboard.Dashboard(f"Interdict / {name}")
        .uid(f"interdict-{name.lower()}")
        .description(about)
        .tags([TAG])
        .readonly()
        .time("now-6h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(links.keep_time(True).include_vars(True))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("instance", "Node", "label_values(interdict_build_info, instance)"))
    )


def enforcement() -> dashboard.Dashboard:
    """Whether the orders act, and on whom."""
    hits = 'interdict_verdicts_total{instance=~"$instance", order=~"$order"}'
    exempt = 'interdict_verdicts_total{instance=~"$instance", order=~"$order", mode="exempt"}'
    orders = 'label_values({__name__=~"interdict_order_in_force|interdict_verdicts_total"}, order)'
    left = 'interdict_exemption_expires_timestamp_seconds{instance=~"$instance"} - time()'
    return (
        _dashboard("Enforcement", "Are the orders in force, what do they catch, and who is spared?")
        .with_variable(_variable("order", "Order, list or rule", orders))
        .with_panel(
            number(
                "Is each order in force on all nodes?",
                "No: at least one node does not act on it: announced, suspended, revoked, expired or not reloaded.",
                'min by (order) (interdict_order_in_force{instance=~"$instance", order=~"$order"})',
                Short, ((None, WRONG), (1, FINE)), legend="{{order}}", width=18, yes_no=True,
            )
        )
        .with_panel(
            number(
                "How many hits a second?",
                "Queries that met a rule, those that were only observed too.",
                f"sum(rate({hits}[$__rate_interval]))",
                PER_SECOND, NO_JUDGEMENT,
            )
        )
        .with_panel(
            graph(
                "Which orders are hit?",
                "Lists, policy zones and local rules stand beside the orders, by their ids.",
                [(f"sum by (order) (rate({hits}[$__rate_interval]))", "{{order}}")],
                PER_SECOND, stacked=choices.StackingMode.NORMAL,
            )
        )
        .with_panel(
            graph(
                "What was done about hits?",
                "By action and mode; observe answers as ever, and tells what enforcement would withhold.",
                [(f"sum by (action, mode) (rate({hits}[$__rate_interval]))", "{{action}}, {{mode}}")],
                PER_SECOND, stacked=choices.StackingMode.NORMAL,
            )
        )
        .with_panel(
            ranking(
                "Which apps are asked for most?",
                "Hits by app over the time shown; without an app: lists, zones and local rules.",
                f"sort_desc(topk(15, sum by (app) (increase({hits}[$__range]))))",
                "{{app}}", Short, NO_JUDGEMENT,
            )
        )
        .with_panel(
            graph(
                "Which groups of devices are hit?",
                "Hits by the group of the client.",
                [(f"sum by (group) (rate({hits}[$__rate_interval]))", "{{group}}")],
                PER_SECOND, stacked=choices.StackingMode.NORMAL,
            )
        )
        .with_panel(
            graph(
                "Which groups of devices ask?",
                "All queries, not only hits. A group that falls silent asks somebody else.",
                [
                    (
                        'sum by (group) (rate(interdict_queries_total{instance=~"$instance"}[$__rate_interval]))',
                        "{{group}}",
                    )
                ],
                PER_SECOND_ASKED,
            )
        )
        .with_panel(
            ranking(
                "How many devices still ask?",
                "Distinct devices that met rules within 24 hours; one that asks two nodes counts twice.",
                'sort_desc(sum by (order) (interdict_hit_devices{instance=~"$instance", order=~"$order"}))',
                "{{order}}", Short, NO_JUDGEMENT,
            )
        )
        .with_panel(
            graph(
                "What do exempt devices ask for?",
                "Hits that an exemption let pass, by app. An exemption that nobody uses can end.",
                [(f'sum by (app) (rate({exempt}[$__rate_interval]))', "{{app}}")],
                PER_SECOND,
            )
        )
        .with_panel(
            ranking(
                "Who is exempt, and for how long yet?",
                "Exemptions in force. Orange: a week or less, renew it or let it end.",
                f'min by (exemption) ({left} and interdict_exemption_in_force{{instance=~"$instance"}} == 1)',
                "{{exemption}}", DurationSeconds, ((None, LOOK), (7 * 86400, FINE)),
            )
        )
    )  # fmt: skip


def service() -> dashboard.Dashboard:
    """Whether answers come, and from where."""
    here = 'instance=~"$instance"'
    queries, answers = f"interdict_queries_total{{{here}}}", f"interdict_answers_total{{{here}}}"
    ready = f'sum(rate(interdict_answers_total{{{here}, source="ready"}}[$__rate_interval]))'
    failed = f'sum(rate(interdict_queries_total{{{here}, rcode="SERVFAIL"}}[$__rate_interval]))'
    asked = f"sum(rate({queries}[$__rate_interval]))"
    found, looked_for = (
        f'sum(rate(interdict_cache_events_total{{{here}, event=~"{events}"}}[$__rate_interval]))'
        for events in ("hit", "hit|miss")
    )
    buckets = f"sum by (upstream, le) (rate(interdict_upstream_latency_seconds_bucket{{{here}}}[$__rate_interval]))"
    answered = f"sum by (le) (rate(interdict_answer_seconds_bucket{{{here}}}[$__rate_interval]))"
    rates = [
        ("interdict_internal_errors_total", "errors in this program"),
        ("interdict_overloads_total", "overload"),
        ("interdict_store_errors_total", "evidence store"),
        ("interdict_dropped_total", "no query, dropped"),
        ("interdict_unknown_devices_total", "unknown devices"),
        ("interdict_upstream_replies_ignored_total", "forged or broken replies"),
    ]
    return (
        _dashboard("Service", "Do clients get answers, how fast, and from where?")
        .with_panel(
            number(
                "How many queries a second?", "Answered, over UDP and TCP.", asked, PER_SECOND_ASKED, NO_JUDGEMENT,
                width=5,
            )
        )
        .with_panel(
            number(
                "What share fails?",
                "SERVFAIL of all answers. The upstreams, or this server; the panels below tell which.",
                f"({failed} or vector(0)) / {asked}",
                PercentUnit, ((None, FINE), (0.01, LOOK), (0.05, WRONG)), width=5,
            )
        )
        .with_panel(
            number(
                "What share is answered hot?",
                "Finished packets: questions that came before octet by octet. Low after a restart or a reload.",
                f"{ready} / sum(rate({answers}[$__rate_interval]))",
                PercentUnit, NO_JUDGEMENT, width=5,
            )
        )
        .with_panel(
            number(
                "What share does the cache find?",
                "Of the questions that no finished packet answered and policy let pass.",
                f"{found} / {looked_for}",
                PercentUnit, NO_JUDGEMENT, width=5,
            )
        )
        .with_panel(
            number(
                "How many workers are missing?", "Without a sign of life for some seconds; their clients wait.",
                f"sum(interdict_workers{{{here}}}) - sum(interdict_workers_ready{{{here}}})",
                Short, ANY_IS_WRONG, width=4,
            )
        )
        .with_panel(
            graph(
                "Where do answers come from?",
                "policy: withheld; ready: finished packets; stale: upstreams fail; error: refused or malformed.",
                [(f"sum by (source) (rate({answers}[$__rate_interval]))", "{{source}}")],
                PER_SECOND_ASKED, stacked=choices.StackingMode.NORMAL,
            )
        )
        .with_panel(
            graph(
                "What do clients get?",
                "By RCODE of the answer.",
                [(f"sum by (rcode) (rate({queries}[$__rate_interval]))", "{{rcode}}")],
                PER_SECOND_ASKED, stacked=choices.StackingMode.NORMAL,
            )
        )
        .with_panel(
            graph(
                "How long do clients wait?",
                "Half of the answers, 95 and 99 of 100 were given within; above 4 s nothing is told apart.",
                [
                    (f"histogram_quantile({share}, {answered})", f"{int(share * 100)} %")
                    for share in (0.5, 0.95, 0.99)
                ],
                Seconds, limit=0.5,
            )
        )
        .with_panel(
            graph(
                "Which transports do clients use?",
                "Queries by transport.",
                [(f"sum by (transport) (rate({queries}[$__rate_interval]))", "{{transport}}")],
                PER_SECOND_ASKED, stacked=choices.StackingMode.NORMAL,
            )
        )
        .with_panel(
            number(
                "Is each upstream up?",
                "No: a node rests it after three failures in a row.",
                f"min by (upstream) (interdict_upstream_up{{{here}}})",
                Short, ((None, WRONG), (1, FINE)), legend="{{upstream}}", width=24, yes_no=True,
            )
        )
        .with_panel(
            graph(
                "How fast do upstreams answer?",
                "Half of the answers, and 95 of 100, came within; above 4 s nothing is told apart.",
                [
                    (f"histogram_quantile(0.5, {buckets})", "{{upstream}} 50 %"),
                    (f"histogram_quantile(0.95, {buckets})", "{{upstream}} 95 %"),
                ],
                Seconds, limit=0.5,
            )
        )
        .with_panel(
            graph(
                "Do upstreams answer?",
                "Queries sent to them by what came of it.",
                [
                    (
                        "sum by (upstream, outcome) "
                        f"(rate(interdict_upstream_queries_total{{{here}}}[$__rate_interval]))",
                        "{{upstream}} {{outcome}}",
                    )
                ],
                PER_SECOND,
            )
        )
        .with_panel(
            graph(
                "Is every hit stored?",
                "Hits handed to the spool, stored by sink, and lost. All lines but lost lie on one another.",
                [
                    (f"sum(rate(interdict_hits_spooled_total{{{here}}}[$__rate_interval]))", "spooled"),
                    (
                        f"sum by (sink) (rate(interdict_hits_stored_total{{{here}}}[$__rate_interval]))",
                        "stored in {{sink}}",
                    ),
                    (f"sum(rate(interdict_hits_lost_total{{{here}}}[$__rate_interval]))", "lost"),
                ],
                PER_SECOND,
            )
        )
        .with_panel(
            graph(
                "How much evidence waits in the spool?",
                "It grows while a store is down; past hits.spool_limit hits are lost.",
                [
                    (f"sum by (instance) (interdict_spool_octets{{{here}}})", "{{instance}}"),
                    (f"sum by (instance) (interdict_spool_limit_octets{{{here}}})", "{{instance}}: limit"),
                ],
                BytesIEC,
            )
        )
        .with_panel(
            graph(
                "What goes wrong?",
                "Errors a second; the log of the node names them.",
                [
                    (f"sum(rate({name}{{{here}}}[$__rate_interval])) or vector(0)", legend)
                    for name, legend in rates
                ],
                PER_SECOND,
            )
        )
        .with_panel(
            graph(
                "Do processes die?",
                "Started again because they had died, over the last scrapes.",
                [
                    (
                        "sum by (instance, process) "
                        f"(increase(interdict_process_restarts_total{{{here}}}[$__rate_interval]))",
                        "{{instance}} {{process}}",
                    )
                ],
                Short,
            )
        )
        .with_panel(
            graph(
                "How much memory do caches hold?",
                "Upstreams' answers, all workers of a node.",
                [(f"sum by (instance) (interdict_cache_octets{{{here}}})", "{{instance}}")],
                BytesIEC,
            )
        )
        .with_panel(
            graph(
                "How many connections are open?",
                "Of clients, by transport; past the configured number a worker closes idle ones.",
                [
                    (f"sum(interdict_tcp_connections{{{here}}})", "tcp"),
                    (f"sum by (transport) (interdict_encrypted_connections{{{here}}})", "{{transport}}"),
                ],
                Short,
            )
        )
    )  # fmt: skip


def fleet() -> dashboard.Dashboard:
    """Whether all nodes do the same, with lists of today."""
    here = 'instance=~"$instance"'
    firing = 'count(ALERTS{alertname=~"Interdict.+", alertstate="firing"}) or vector(0)'
    return (
        _dashboard("Fleet", "Do all nodes hold the same policy, and is it fresh?")
        .with_panel(
            number("How many alerts fire?", "Of deploy/prometheus/interdict.rules.yml.", firing, Short, ANY_IS_WRONG)
        )
        .with_panel(
            number(
                "How many policies are in force?",
                "1: all nodes answer from the same one. More: a node was not reloaded, or fetched its lists later.",
                f"count(count by (digest) (interdict_generation_info{{{here}}}))",
                Short, ((None, FINE), (2, LOOK)),
            )
        )
        .with_panel(
            number(
                "Is each node up?", "Whether Prometheus reaches its metrics.",
                f'min by (instance) (up{{job="interdict", {here}}})',
                Short, ((None, WRONG), (1, FINE)), legend="{{instance}}", width=12, yes_no=True,
            )
        )
        .with_panel(
            listing(
                "What runs where?",
                "Equal digests: the same policy. Serials count on each node for itself.",
                [
                    f"max by (instance, version, hot, python) (interdict_build_info{{{here}}})",
                    f"max by (instance, digest) (interdict_generation_info{{{here}}})",
                    f"max by (instance) (interdict_generation_serial{{{here}}})",
                    f"max by (instance) (interdict_workers{{{here}}})",
                ],
                {
                    "instance": "Node", "version": "Version", "hot": "Hot path", "python": "Python",
                    "digest": "Digest", "Value #C": "Generation", "Value #D": "Workers",
                },
            )
        )
        .with_panel(
            ranking(
                "Which orders are missing on how many nodes?",
                "0: in force on all that are picked.",
                f"scalar(count(interdict_build_info{{{here}}}))"
                f" - sum by (order) (max by (instance, order) (interdict_order_in_force{{{here}}}))",
                "{{order}}", Short, ANY_IS_WRONG,
            )
        )
        .with_panel(
            ranking(
                "How long ago was the policy loaded?",
                "Long is fine while nothing changes; compare with the lists.",
                f"time() - max by (instance) (interdict_generation_loaded_timestamp_seconds{{{here}}})",
                "{{instance}}", DurationSeconds, NO_JUDGEMENT,
            )
        )
        .with_panel(
            number(
                "Did the last reload work?",
                "No: what ran before runs on. interdict check on the node names the mistake.",
                f"min by (instance) (interdict_last_reload_successful{{{here}}})",
                Short, ((None, WRONG), (1, FINE)), legend="{{instance}}", width=24, yes_no=True,
            )
        )
        .with_panel(
            ranking(
                "When was each list last confirmed by its source?",
                "The node that is furthest behind. Red: a day or more.",
                f"time() - min by (zone) (interdict_zone_checked_timestamp_seconds{{{here}}})",
                "{{zone}}", DurationSeconds, ((None, FINE), (12 * 3600, LOOK), (86400, WRONG)),
            )
        )
        .with_panel(
            ranking(
                "Which lists are behind their schedule?",
                "How often a list should have been looked at since it was, at the node that is furthest behind.",
                f"max by (zone) ((time() - interdict_zone_checked_timestamp_seconds{{{here}}})"
                f" / on (job, instance, zone) interdict_zone_refresh_seconds{{{here}}})",
                "{{zone}}", Short, ((None, FINE), (2, LOOK), (4, WRONG)),
            )
        )
        .with_panel(
            ranking(
                "Which lists can not be fetched?",
                "Attempts that failed since the last that went well; the last good copy stays in force.",
                f"max by (zone) (interdict_zone_failures{{{here}}})",
                "{{zone}}", Short, ((None, FINE), (1, LOOK), (3, WRONG)),
            )
        )
        .with_panel(
            graph(
                "Do lists shrink?",
                "Names and patterns in force, on the node that has fewest.",
                [(f"min by (zone) (interdict_zone_entries{{{here}}})", "{{zone}}")],
                Short,
            )
        )
        .with_panel(
            graph(
                "Which lists have lines that can not be taken?",
                "interdict check names them.",
                [(f"max by (zone) (interdict_zone_refused_entries{{{here}}})", "{{zone}}")],
                Short,
            )
        )
        .with_panel(
            ranking(
                "Which documents have not changed for longest?",
                "Files of apps and orders in force.",
                f"sort_desc(topk(15, max by (list) (interdict_list_age_seconds{{{here}}})))",
                "{{list}}", DurationSeconds, NO_JUDGEMENT,
            )
        )
        .with_panel(
            ranking(
                "When do certificates end?",
                "Of each node that speaks encrypted DNS. Orange: two weeks or less, see what renews it.",
                f"min by (instance) (interdict_certificate_expiry_timestamp_seconds{{{here}}} - time())",
                "{{instance}}", DurationSeconds, ((None, WRONG), (3 * 86400, LOOK), (14 * 86400, FINE)),
                width=24,
            )
        )
    )  # fmt: skip


def dashboards() -> dict[str, str]:
    """Every file of the folder by its name, with its text; the same each time."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    made = {}
    for make in (enforcement, service, fleet):
        one = make().build()
        for number_, panel in enumerate(one.panels or (), start=1):
            panel.id_val = number_
        made[f"{make.__name__}.json"] = encoder.encode(one) + "\n"
    return made


def main() -> None:
    """Write them all."""
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
