"""What Prometheus reads: the table is kept, the sums are right, promtool finds nothing to say."""

import re
import subprocess
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from resolver.observe.metrics import METRICS, Exposition, Kind, Status, ZoneGauges

CELLS = {
    ("query", "udp", "mobile", "A", "NXDOMAIN", "policy", "order-1", "chat", "NXDOMAIN", "enforce"): 3,
    ("query", "udp", "mobile", "A", "NXDOMAIN", "ready", "order-1", "chat", "NXDOMAIN", "enforce"): 4,
    ("query", "tcp", "staff", "AAAA", "NOERROR", "cache", "", "", "", ""): 5,
    ("dropped", "udp", "rate"): 1,
    ("upstream", "192.0.2.53", "ok"): 6,
    ("upstream_seconds_bucket", "192.0.2.53", "0.01"): 2,
    ("upstream_seconds_bucket", "192.0.2.53", "0.1"): 3,
    ("upstream_seconds_bucket", "192.0.2.53", "+Inf"): 1,
    ("upstream_seconds_bucket", "192.0.2.54", "0.1"): 1,
    ("upstream_seconds_sum_us", "192.0.2.53"): 2_500_000,
    ("cache", "hit"): 7,
    ("hits_spooled",): 8,
    ("hits_lost",): 9,
    ("=cache_octets",): 10,
    ("=cache_entries",): 11,
    ("=generation",): 12,
    ("=generation_loaded_at",): 1_700_000_000,
    ("=tcp_connections",): 13,
    ("=upstream_up", "192.0.2.53"): 1,
    ("internal_errors",): 21,
    ("overloads",): 22,
    ("tcp_evicted",): 23,
    ("replies_ignored", "192.0.2.53"): 24,
    ("answer_seconds_bucket", "udp", "0.0002"): 90,
    ("answer_seconds_bucket", "udp", "0.05"): 9,
    ("answer_seconds_sum_us", "udp"): 500_000,
    ("answer_seconds_bucket", "dot", "+Inf"): 1,
    ("=workers_ready",): 2,
    ("=certificate_expires",): 1_900_000_001,
    ("=connections", "dot"): 29,
    ("evicted", "quic"): 30,
    ("unknown_devices", "token"): 31,
}
STATUS = Status(
    generation=14, digest="abc",
    orders_in_force={("order-1", "all", "enforce"): True, ("order-2", "all", "observe"): False},
    list_ages={"apps/chat.yaml": 60.5}, stored={"sqlite": 15, "jsonl": 16}, store_errors=17, spool_octets=18,
    spool_damage={"torn": 19}, workers=2, restarts={"worker": 20}, reload_ok=False, reload_at=1_700_000_001.0,
    version="1.0", hot="plain", python="3.11.0",
    zones={"list:ads": ZoneGauges(21, 22, 23, fetched_at=24.0, checked_at=25.0, refresh=26.0)},
    exemptions={"lab": (True, 1_900_000_000.0)}, spool_limit=27, devices={"order-1": 28},
)  # fmt: skip


def expose(cells: dict[tuple[str, ...], int], status: Status) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Exposition(lambda: cells, lambda: status))
    return generate_latest(registry).decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("interdict_zone_entries", {"zone": "list:ads"}, 21),
        ("interdict_zone_refused_entries", {"zone": "list:ads"}, 22),
        ("interdict_zone_failures", {"zone": "list:ads"}, 23),
        ("interdict_zone_refresh_seconds", {"zone": "list:ads"}, 26),
        ("interdict_spool_limit_octets", {}, 27),
        ("interdict_hit_devices", {"order": "order-1"}, 28),
        ("interdict_certificate_expiry_timestamp_seconds", {}, 1_900_000_001),
        ("interdict_encrypted_connections", {"transport": "dot"}, 29),
        ("interdict_encrypted_evictions_total", {"transport": "quic"}, 30),
        ("interdict_answer_seconds_bucket", {"transport": "udp", "le": "0.0002"}, 90),
        ("interdict_answer_seconds_bucket", {"transport": "udp", "le": "0.05"}, 99),
        ("interdict_answer_seconds_count", {"transport": "udp"}, 99),
        ("interdict_answer_seconds_sum", {"transport": "udp"}, 0.5),
        ("interdict_answer_seconds_count", {"transport": "dot"}, 1),
        ("interdict_workers_ready", {}, 2),
        ("interdict_unknown_devices_total", {"means": "token"}, 31),
        ("interdict_zone_fetched_timestamp_seconds", {"zone": "list:ads"}, 24),
        ("interdict_zone_checked_timestamp_seconds", {"zone": "list:ads"}, 25),
        ("interdict_exemption_in_force", {"exemption": "lab"}, 1),
        ("interdict_exemption_expires_timestamp_seconds", {"exemption": "lab"}, 1_900_000_000),
        ("interdict_queries_total", {"transport": "udp", "group": "mobile", "qtype": "A", "rcode": "NXDOMAIN"}, 7),
        ("interdict_answers_total", {"source": "policy"}, 3),
        ("interdict_answers_total", {"source": "cache"}, 5),
        (
            "interdict_verdicts_total",
            {"order": "order-1", "app": "chat", "group": "mobile", "action": "NXDOMAIN", "mode": "enforce"},
            7,
        ),
        ("interdict_dropped_total", {"transport": "udp", "reason": "rate"}, 1),
        ("interdict_cache_events_total", {"event": "hit"}, 7),
        ("interdict_cache_octets", {}, 10),
        ("interdict_internal_errors_total", {}, 21),
        ("interdict_overloads_total", {}, 22),
        ("interdict_tcp_evictions_total", {}, 23),
        ("interdict_upstream_replies_ignored_total", {"upstream": "192.0.2.53"}, 24),
        ("interdict_last_reload_successful", {}, 0),
        ("interdict_last_reload_timestamp_seconds", {}, 1_700_000_001),
        ("interdict_cache_entries", {}, 11),
        ("interdict_tcp_connections", {}, 13),
        ("interdict_upstream_queries_total", {"upstream": "192.0.2.53", "outcome": "ok"}, 6),
        ("interdict_upstream_latency_seconds_bucket", {"upstream": "192.0.2.53", "le": "0.01"}, 2),
        ("interdict_upstream_latency_seconds_bucket", {"upstream": "192.0.2.53", "le": "0.1"}, 5),
        ("interdict_upstream_latency_seconds_bucket", {"upstream": "192.0.2.53", "le": "+Inf"}, 6),
        ("interdict_upstream_latency_seconds_bucket", {"upstream": "192.0.2.54", "le": "+Inf"}, 1),
        ("interdict_upstream_latency_seconds_count", {"upstream": "192.0.2.53"}, 6),
        ("interdict_upstream_latency_seconds_sum", {"upstream": "192.0.2.53"}, 2.5),
        ("interdict_upstream_up", {"upstream": "192.0.2.53"}, 1),
        ("interdict_generation_serial", {}, 12),
        ("interdict_generation_info", {"digest": "abc"}, 1),
        ("interdict_generation_loaded_timestamp_seconds", {}, 1_700_000_000),
        ("interdict_list_age_seconds", {"list": "apps/chat.yaml"}, 60.5),
        ("interdict_order_in_force", {"order": "order-1", "group": "all", "mode": "enforce"}, 1),
        ("interdict_order_in_force", {"order": "order-2", "group": "all", "mode": "observe"}, 0),
        ("interdict_hits_spooled_total", {}, 8),
        ("interdict_hits_lost_total", {}, 9),
        ("interdict_hits_stored_total", {"sink": "jsonl"}, 16),
        ("interdict_store_errors_total", {}, 17),
        ("interdict_spool_octets", {}, 18),
        ("interdict_spool_damage_total", {"kind": "torn"}, 19),
        ("interdict_process_restarts_total", {"process": "worker"}, 20),
        ("interdict_workers", {}, 2),
        ("interdict_build_info", {"version": "1.0", "hot": "plain", "python": "3.11.0"}, 1),
    ],
)
def test_a_value_is_exposed(name: str, labels: dict[str, str], value: float) -> None:
    """Each metric comes out with its labels and the sum of its cells."""
    assert samples(expose(CELLS, STATUS))[name, frozenset(labels.items())] == value


def test_the_table_is_what_is_exposed() -> None:
    """Names, types, help texts and labels of the exposition are those of METRICS, in its order, no more and no less."""
    text = expose(CELLS, STATUS)
    helps = re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert helps == [(metric.name, metric.help) for metric in METRICS]
    assert kinds == {metric.name: metric.kind.value for metric in METRICS}
    exposed = samples(text)
    for metric in METRICS:
        name = metric.name + ("_count" if metric.kind is Kind.HISTOGRAM else "")
        labels = {frozenset(key for key, _ in of) for sample, of in exposed if sample == name}
        assert labels == {frozenset(metric.labels)}, metric.name


def test_promtool_finds_nothing_to_say(peer: Callable[[str], str]) -> None:
    """The exposition follows the naming conventions that `promtool check metrics` knows."""
    check = subprocess.run(
        [peer("promtool"), "check", "metrics"], input=expose(CELLS, STATUS), capture_output=True, text=True, timeout=30
    )
    assert (check.returncode, check.stdout + check.stderr) == (0, "")


def test_nothing_known_yet_is_still_an_exposition() -> None:
    """Before the first worker and the first generation a scrape works."""
    exposed = samples(expose({}, Status()))
    assert exposed["interdict_generation_serial", frozenset()] == 0
    assert not any(name == "interdict_generation_info" for name, _ in exposed)


def test_a_bucket_without_a_cell_of_its_own_is_above_all_bounds() -> None:
    """Counts that overflowed into `other` keep the histogram's count right."""
    cells: dict[tuple[str, ...], int] = {
        ("upstream_seconds_bucket", "other", "0.1"): 1,
        ("upstream_seconds_bucket", "other", "other"): 2,
    }
    exposed = samples(expose(cells, Status()))
    assert exposed["interdict_upstream_latency_seconds_count", frozenset({("upstream", "other")})] == 3
