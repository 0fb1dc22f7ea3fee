"""What Prometheus is told: `METRICS` names it, `Exposition` makes it of the workers' cells and of the product's
`Status`.

The table is plain facts, for documentation and tests as well. No label takes a value that a client of the resolver can
choose freely: QTYPEs are classes, groups, orders, apps and upstreams come out of the configuration, and `Cells` is
bounded besides. Counters are sums over the workers and survive a worker's death, because its cells do.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from resolver.observe.cells import ANSWER_BUCKETS, LATENCY_BUCKETS, OTHER, CellCounts


class Kind(StrEnum):
    """How Prometheus types a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as exposed: its full name (a counter's ends in `_total`), type, help text and label names."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """What is exposed besides cells; times are ages or Unix seconds, whoever fills it in reads the clock.

    Attributes:
        digest: The generation's; empty while there is none.
        orders_in_force: Whether each order is, by its id, a group that it binds, and the mode.
        list_ages: Seconds since each app or order document changed, by its name.
        devices: Distinct devices that met each order's rules within a day; see `evidence.devices`.
        stored: Hits stored, by sink.
        reload_ok: Whether the last reload put what it read in force; None before the first.
        reload_at: When that was.
        hot: `compiled` or `plain`.
    """

    generation: int = 0
    digest: str = ""
    loaded_at: float = 0.0
    orders_in_force: Mapping[tuple[str, str, str], bool] = field(default_factory=dict)
    list_ages: Mapping[str, float] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    stored: Mapping[str, int] = field(default_factory=dict)
    store_errors: int = 0
    spool_octets: int = 0
    spool_limit: int = 0
    spool_damage: Mapping[str, int] = field(default_factory=dict)
    workers: int = 0
    restarts: Mapping[str, int] = field(default_factory=dict)
    zones: Mapping[str, "ZoneGauges"] = field(default_factory=dict)
    exemptions: Mapping[str, tuple[bool, float]] = field(default_factory=dict)  # in force, until (Unix seconds)
    reload_ok: bool | None = None
    reload_at: float = 0.0
    version: str = ""
    hot: str = ""
    python: str = ""


@dataclass(frozen=True, slots=True)
class ZoneGauges:
    """What is told of a policy zone that somebody else keeps; times are Unix seconds, None where nothing is known."""

    entries: int = 0
    refused: int = 0
    failures: int = 0
    fetched_at: float | None = None
    checked_at: float | None = None
    refresh: float | None = None  # seconds between two looks at its source


METRICS: Final = (
    Metric(
        "interdict_queries_total",
        Kind.COUNTER,
        "Queries answered, by transport, client group, class of QTYPE and RCODE of the answer.",
        ("transport", "group", "qtype", "rcode"),
    ),
    Metric(
        "interdict_answers_total",
        Kind.COUNTER,
        "Answers by where they came from: policy, ready, cache, stale, upstream, special, local or error.",
        ("source",),
    ),
    Metric(
        "interdict_answer_seconds",
        Kind.HISTOGRAM,
        "Time from a query read to its answer handed over, by transport; those of a batch take as long as the batch.",
        ("transport",),
    ),
    Metric(
        "interdict_verdicts_total",
        Kind.COUNTER,
        "Queries that met a rule, by the order (or zone) and app of the rule, the client's group, action and mode.",
        ("order", "app", "group", "action", "mode"),
    ),
    Metric(
        "interdict_dropped_total",
        Kind.COUNTER,
        "Messages that got no answer, by transport and reason.",
        ("transport", "reason"),
    ),
    Metric(
        "interdict_unknown_devices_total",
        Kind.COUNTER,
        "Queries of devices that showed what the register does not know, by the means.",
        ("means",),
    ),
    Metric("interdict_cache_events_total", Kind.COUNTER, "What happened in the answer cache, by event.", ("event",)),
    Metric("interdict_cache_octets", Kind.GAUGE, "Memory the answer caches of all workers hold."),
    Metric("interdict_cache_entries", Kind.GAUGE, "Answers in the caches of all workers."),
    Metric("interdict_tcp_connections", Kind.GAUGE, "TCP connections of clients open at all workers."),
    Metric(
        "interdict_tcp_evictions_total",
        Kind.COUNTER,
        "Idle TCP connections closed to make room for others.",
    ),
    Metric(
        "interdict_encrypted_connections",
        Kind.GAUGE,
        "Encrypted connections of clients open at all workers, by transport: dot, doh or quic.",
        ("transport",),
    ),
    Metric(
        "interdict_encrypted_evictions_total",
        Kind.COUNTER,
        "Idle encrypted connections closed to make room for others.",
        ("transport",),
    ),
    Metric(
        "interdict_upstream_replies_ignored_total",
        Kind.COUNTER,
        "Datagrams from an upstream's address that were no reply to what was asked: forged, or badly broken.",
        ("upstream",),
    ),
    Metric(
        "interdict_upstream_queries_total",
        Kind.COUNTER,
        "Queries sent to an upstream, by what came of them.",
        ("upstream", "outcome"),
    ),
    Metric(
        "interdict_upstream_latency_seconds",
        Kind.HISTOGRAM,
        "Time from a query sent to an upstream to its answer.",
        ("upstream",),
    ),
    Metric(
        "interdict_upstream_up",
        Kind.GAUGE,
        "Whether any worker takes the upstream for reachable (1) or none does (0).",
        ("upstream",),
    ),
    Metric(
        "interdict_generation_serial",
        Kind.GAUGE,
        "Serial of the oldest policy generation that a worker still answers from.",
    ),
    Metric(
        "interdict_generation_info",
        Kind.GAUGE,
        "Always 1; the digest of the policy generation that was loaded last.",
        ("digest",),
    ),
    Metric(
        "interdict_generation_loaded_timestamp_seconds",
        Kind.GAUGE,
        "When the policy generation was loaded, in seconds since the Unix epoch.",
    ),
    Metric(
        "interdict_list_age_seconds",
        Kind.GAUGE,
        "Time since an app or order document of the loaded policy was last changed.",
        ("list",),
    ),
    Metric(
        "interdict_order_in_force",
        Kind.GAUGE,
        "Whether the order is in force for the group now (1) or announced, suspended, revoked or expired (0).",
        ("order", "group", "mode"),
    ),
    Metric("interdict_zone_entries", Kind.GAUGE, "Triggers of a list or policy zone in the loaded policy.", ("zone",)),
    Metric(
        "interdict_zone_refused_entries",
        Kind.GAUGE,
        "Lines or records of a list or policy zone that could not be taken.",
        ("zone",),
    ),
    Metric(
        "interdict_zone_fetched_timestamp_seconds",
        Kind.GAUGE,
        "When the copy of a list or policy zone last changed, in seconds since the Unix epoch.",
        ("zone",),
    ),
    Metric(
        "interdict_zone_checked_timestamp_seconds",
        Kind.GAUGE,
        "When the source of a list or policy zone was last asked with success, in seconds since the Unix epoch.",
        ("zone",),
    ),
    Metric(
        "interdict_zone_failures",
        Kind.GAUGE,
        "Attempts to fetch a list or policy zone that failed since the last that went well.",
        ("zone",),
    ),
    Metric(
        "interdict_zone_refresh_seconds",
        Kind.GAUGE,
        "How often the source of a list or policy zone is to be asked.",
        ("zone",),
    ),
    Metric(
        "interdict_exemption_in_force",
        Kind.GAUGE,
        "Whether the exemption spares its devices now (1) or not yet, or no longer (0).",
        ("exemption",),
    ),
    Metric(
        "interdict_exemption_expires_timestamp_seconds",
        Kind.GAUGE,
        "When the exemption ends, in seconds since the Unix epoch.",
        ("exemption",),
    ),
    Metric(
        "interdict_hit_devices",
        Kind.GAUGE,
        "Distinct devices, clients where none is known by name, that met rules of an order within the last 24 hours.",
        ("order",),
    ),
    Metric("interdict_hits_spooled_total", Kind.COUNTER, "Hits that workers handed to the spool."),
    Metric(
        "interdict_hits_lost_total", Kind.COUNTER, "Hits that found no room in the spool; evidence has a gap there."
    ),
    Metric("interdict_hits_stored_total", Kind.COUNTER, "Hits stored as evidence, by sink.", ("sink",)),
    Metric(
        "interdict_store_errors_total",
        Kind.COUNTER,
        "Times that the evidence store refused hits since the recorder started; they waited in the spool.",
    ),
    Metric("interdict_spool_octets", Kind.GAUGE, "Size of all files in the spool folder."),
    Metric("interdict_spool_limit_octets", Kind.GAUGE, "What the spool may take; past it hits are lost."),
    Metric(
        "interdict_spool_damage_total",
        Kind.COUNTER,
        "Damage found in the spool since the recorder started: torn records passed over, "
        "corrupt segments set aside, segments the disk would not read.",
        ("kind",),
    ),
    Metric(
        "interdict_process_restarts_total",
        Kind.COUNTER,
        "Processes started again because they had died: worker, recorder or feeder.",
        ("process",),
    ),
    Metric(
        "interdict_last_reload_successful",
        Kind.GAUGE,
        "Whether the last reload put what it read in force (1) or left the running generation in force (0).",
    ),
    Metric(
        "interdict_last_reload_timestamp_seconds",
        Kind.GAUGE,
        "When the last reload ended, in seconds since the Unix epoch.",
    ),
    Metric(
        "interdict_internal_errors_total",
        Kind.COUNTER,
        "Queries answered SERVFAIL because of an error in this program; the log has the error.",
    ),
    Metric(
        "interdict_overloads_total",
        Kind.COUNTER,
        "Queries answered SERVFAIL, or with stale data, because too many were waiting for upstreams already.",
    ),
    Metric("interdict_workers", Kind.GAUGE, "Worker processes that should answer queries."),
    Metric("interdict_workers_ready", Kind.GAUGE, "Worker processes that gave a sign of life within the last seconds."),
    Metric(
        "interdict_certificate_expiry_timestamp_seconds",
        Kind.GAUGE,
        "When the certificate of the encrypted listeners ends, in seconds since the Unix epoch.",
    ),
    Metric(
        "interdict_build_info",
        Kind.GAUGE,
        "Always 1; the version, whether the hot path runs compiled or plain, and the Python that runs it.",
        ("version", "hot", "python"),
    ),
)


class Exposition:
    """A Prometheus collector: asks for cells and status at every scrape.

    Args:
        cells: Returns the merged cells of all workers.
        status: Returns the rest.
    """

    def __init__(self, cells: Callable[[], CellCounts], status: Callable[[], Status]) -> None:
        self._cells = cells
        self._status = status

    def collect(self) -> Iterator[Family]:
        """Yield every metric of METRICS, in its order, with the values of this moment."""
        cells, status = self._cells(), self._status()
        values = _values(cells, status)
        for metric in METRICS:
            if metric.kind is Kind.HISTOGRAM:
                yield _histogram(metric, cells)
            elif metric.kind is Kind.COUNTER:
                counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
                for labels, value in sorted(values[metric.name].items()):
                    counter.add_metric(labels, value)
                yield counter
            else:
                gauge = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
                for labels, value in sorted(values[metric.name].items()):
                    gauge.add_metric(labels, value)
                yield gauge


_Samples = dict[tuple[str, ...], float]


def _values(cells: CellCounts, status: Status) -> dict[str, _Samples]:
    queries: _Samples = {}
    answers: _Samples = {}
    verdicts: _Samples = {}
    for key, count in cells.items():
        if key[0] != "query" or len(key) != 10:
            continue
        _, transport, group, qtype, rcode, source, order, app, action, mode = key
        _add(queries, (transport, group, qtype, rcode), count)
        _add(answers, (source,), count)
        if order:
            _add(verdicts, (order, app, group, action, mode), count)
    generation = cells.get(("=generation",), status.generation)
    loaded_at = cells.get(("=generation_loaded_at",), 0) or status.loaded_at
    return {
        "interdict_queries_total": queries,
        "interdict_answers_total": answers,
        "interdict_verdicts_total": verdicts,
        "interdict_dropped_total": _of_cells(cells, "dropped", 2),
        "interdict_unknown_devices_total": _of_cells(cells, "unknown_devices", 1),
        "interdict_cache_events_total": _of_cells(cells, "cache", 1),
        "interdict_cache_octets": {(): cells.get(("=cache_octets",), 0)},
        "interdict_cache_entries": {(): cells.get(("=cache_entries",), 0)},
        "interdict_tcp_connections": {(): cells.get(("=tcp_connections",), 0)},
        "interdict_tcp_evictions_total": {(): cells.get(("tcp_evicted",), 0)},
        "interdict_encrypted_connections": _of_cells(cells, "=connections", 1),
        "interdict_encrypted_evictions_total": _of_cells(cells, "evicted", 1),
        "interdict_upstream_replies_ignored_total": _of_cells(cells, "replies_ignored", 1),
        "interdict_upstream_queries_total": _of_cells(cells, "upstream", 2),
        "interdict_upstream_up": _of_cells(cells, "=upstream_up", 1),
        "interdict_generation_serial": {(): generation},
        "interdict_generation_info": {(status.digest,): 1} if status.digest else {},
        "interdict_generation_loaded_timestamp_seconds": {(): loaded_at} if loaded_at else {},
        "interdict_list_age_seconds": {(name,): age for name, age in status.list_ages.items()},
        "interdict_order_in_force": {key: int(is_so) for key, is_so in status.orders_in_force.items()},
        "interdict_hits_spooled_total": {(): cells.get(("hits_spooled",), 0)},
        "interdict_hits_lost_total": {(): cells.get(("hits_lost",), 0)},
        "interdict_zone_entries": {(zone,): told.entries for zone, told in status.zones.items()},
        "interdict_zone_refused_entries": {(zone,): told.refused for zone, told in status.zones.items()},
        "interdict_zone_fetched_timestamp_seconds": {
            (zone,): told.fetched_at for zone, told in status.zones.items() if told.fetched_at is not None
        },
        "interdict_zone_checked_timestamp_seconds": {
            (zone,): told.checked_at for zone, told in status.zones.items() if told.checked_at is not None
        },
        "interdict_zone_failures": {(zone,): told.failures for zone, told in status.zones.items()},
        "interdict_zone_refresh_seconds": {
            (zone,): told.refresh for zone, told in status.zones.items() if told.refresh is not None
        },
        "interdict_exemption_in_force": {(id_,): int(is_so) for id_, (is_so, _) in status.exemptions.items()},
        "interdict_exemption_expires_timestamp_seconds": {
            (id_,): until for id_, (_, until) in status.exemptions.items()
        },
        "interdict_certificate_expiry_timestamp_seconds": _of_cells(cells, "=certificate_expires", 0),
        "interdict_hit_devices": {(order,): count for order, count in status.devices.items()},
        "interdict_hits_stored_total": {(sink,): count for sink, count in status.stored.items()},
        "interdict_store_errors_total": {(): status.store_errors},
        "interdict_spool_octets": {(): status.spool_octets},
        "interdict_spool_limit_octets": {(): status.spool_limit} if status.spool_limit else {},
        "interdict_spool_damage_total": {(kind,): count for kind, count in status.spool_damage.items()},
        "interdict_process_restarts_total": {(process,): count for process, count in status.restarts.items()},
        "interdict_last_reload_successful": {} if status.reload_ok is None else {(): int(status.reload_ok)},
        "interdict_last_reload_timestamp_seconds": {(): status.reload_at} if status.reload_at else {},
        "interdict_internal_errors_total": {(): cells.get(("internal_errors",), 0)},
        "interdict_overloads_total": {(): cells.get(("overloads",), 0)},
        "interdict_workers": {(): status.workers},
        "interdict_workers_ready": {(): cells.get(("=workers_ready",), 0)},
        "interdict_build_info": {(status.version, status.hot, status.python): 1},
    }


def _add(samples: _Samples, labels: tuple[str, ...], count: int) -> None:
    samples[labels] = samples.get(labels, 0) + count


def _of_cells(cells: CellCounts, name: str, labels: int) -> _Samples:
    return {key[1:]: count for key, count in cells.items() if key[0] == name and len(key) == labels + 1}


# The cells of each histogram, (name of a bucket's, name of the sum's in microseconds), and its bounds. Cells count each
# answer in one bucket only; Prometheus wants each bucket with all below it.
_HISTOGRAMS = {
    "interdict_upstream_latency_seconds": ("upstream_seconds_bucket", "upstream_seconds_sum_us", LATENCY_BUCKETS),
    "interdict_answer_seconds": ("answer_seconds_bucket", "answer_seconds_sum_us", ANSWER_BUCKETS),
}


def _histogram(metric: Metric, cells: CellCounts) -> HistogramMetricFamily:
    bucket_cells, sum_cells, bounds = _HISTOGRAMS[metric.name]
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    by_label: dict[str, dict[float, int]] = {}
    for (label, le), count in _pairs(cells, bucket_cells):
        buckets = by_label.setdefault(label, dict.fromkeys(bounds, 0))
        bound = _bound(le)
        buckets[bound] = buckets.get(bound, 0) + int(count)
    for label, buckets in sorted(by_label.items()):
        buckets.setdefault(float("inf"), 0)
        total = 0
        cumulative: list[tuple[str, float]] = []
        for bound, count in sorted(buckets.items()):
            total += count
            cumulative.append(("+Inf" if bound == float("inf") else str(bound), total))
        family.add_metric([label], buckets=cumulative, sum_value=cells.get((sum_cells, label), 0) / 1e6)
    return family


def _pairs(cells: CellCounts, name: str) -> Iterator[tuple[tuple[str, str], int]]:
    for key, count in cells.items():
        if key[0] == name and len(key) == 3:
            yield (key[1], key[2]), count


def _bound(le: str) -> float:
    # A bucket that found no cell of its own was counted under `other`, and is above every bound for all that is known.
    try:
        return float("inf") if le == OTHER else float(le)
    except ValueError:
        return float("inf")
