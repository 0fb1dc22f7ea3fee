"""Lines as the programs write them, one by one; and no line stops a reader."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.evidence.past_ledger import Ledger, Reason
from resolver.evidence.past_text import (
    read_adguard,
    read_bind,
    read_dnsmasq,
    read_hits,
    read_unbound,
    sniff_lines,
)
from resolver.evidence.store import Store
from resolver.observe.record import Gap, Hit
from resolver.observe.spool import Chunk
from resolver.policy.preview import Asked
from resolver.wire.name import from_text

LOCALHOST = bytes([127, 0, 0, 1])
LATEST = datetime(2026, 11, 23).timestamp()
AT = datetime(2026, 11, 22, 16, 23, 33).timestamp()
UTC_AT = 1795364613.0  # 2026-11-22T16:23:33Z

Read = Callable[[BinaryIO, Ledger], Iterator[Asked]]


def dated(read: Callable[[BinaryIO, Ledger, float], Iterator[Asked]]) -> Read:
    return lambda stream, ledger: read(stream, ledger, LATEST)


READERS: dict[str, Read] = {
    "unbound": dated(read_unbound),
    "bind": dated(read_bind),
    "dnsmasq": dated(read_dnsmasq),
    "adguard": read_adguard,
    "hits": read_hits,
}


def read(form: str, *lines: str | bytes) -> tuple[list[Asked], dict[Reason, int]]:
    ledger = Ledger()
    octets = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
    found = list(READERS[form](io.BytesIO(octets), ledger))
    return found, {entry.reason: entry.count for entry in ledger.unread()}


BIND = "client @0x7f13720e5098 127.0.0.1#37149 (a.example): query: a.example IN AAAA +E(0)K (127.0.0.1)"
ONE_QUERY = [
    ("unbound", "[1795364613] unbound[1:0] info: 127.0.0.1 A.Example. AAAA IN", UTC_AT),
    ("unbound", "[1795364613.123] unbound[1:0] query: 127.0.0.1 a.example. AAAA IN", UTC_AT),
    ("unbound", "[1795364613] unbound[1:0] info: 127.0.0.1 a.example. AAAA IN NOERROR 0.000000 1 53", UTC_AT),
    ("unbound", "Nov 22 16:23:33 unbound[1:0] reply: 127.0.0.1 a.example. AAAA IN NXDOMAIN 0.1 0 53", AT),
    ("unbound", "Nov 22 16:23:33 gw unbound[99]: [99:1] info: 127.0.0.1 a.example. AAAA IN", AT),
    ("unbound", "2026-11-22T16:23:33+00:00 gw unbound[99]: [99:1] info: 127.0.0.1 a.example. AAAA IN", UTC_AT),
    ("unbound", "unbound[99:0] info: 127.0.0.1 a.example. AAAA CH", None),
    ("bind", BIND, None),
    ("bind", f"22-Nov-2026 16:23:33.000 {BIND}", AT),
    ("bind", f"22-Nov-2026 16:23:33.000 queries: info: {BIND}", AT),
    ("bind", f"2026-11-22T16:23:33.000 queries: info: {BIND}", AT),
    ("bind", f"2026-11-22T16:23:33.000Z {BIND}", UTC_AT),
    ("bind", f"Nov 22 16:23:33 gw named[7]: {BIND}", AT),
    ("bind", "client 127.0.0.1#5: query: a.example IN AAAA +", None),
    ("bind", "client 127.0.0.1#5/key k (a.example): view inside: query: a.example IN AAAA - (192.0.2.1)", None),
    ("dnsmasq", "Nov 22 16:23:33 dnsmasq[13333]: query[AAAA] a.example from 127.0.0.1", AT),
    ("dnsmasq", "Nov 22 16:23:33 dnsmasq[13333]: 1 127.0.0.1/54136 query[AAAA] A.example from 127.0.0.1", AT),
    ("dnsmasq", "Nov 22 16:23:33 gw dnsmasq[3]: query[type=28] a.example from 127.0.0.1", AT),
    ("dnsmasq", "dnsmasq: query[AAAA] a.example from 127.0.0.1", None),
]


@pytest.mark.parametrize(("form", "line", "at"), ONE_QUERY)
def test_a_query_is_read_in_each_form(form: str, line: str, at: float | None) -> None:
    """Client, name in lower case and type; the time where there is one, in this machine's zone where it names none."""
    assert read(form, line) == ([Asked(at, LOCALHOST, from_text("a.example"), 28)], {})
    assert sniff_lines(line.encode()) == form


@pytest.mark.parametrize(
    ("form", "line", "reason"),
    [
        ("unbound", "[1795364615] unbound[1:0] info: service stopped (unbound 1.17.1).", Reason.OTHER),
        ("unbound", "[1795364615] unbound[1:0] info: 127.0.0.1 a.example. A", Reason.OTHER),
        ("unbound", "[1795364615] unbound[1:0] info: 127.0.0.1 a.example. A IN NOERR", Reason.CUT),
        ("unbound", "[1795364615] unbound[1:0] info: 1.2.3 a.example. A IN", Reason.MALFORMED),
        ("unbound", "[999999999999] unbound[1:0] info: 127.0.0.1 a.example. A IN", Reason.MALFORMED),
        ("bind", "22-Nov-2026 16:23:35.140 shutting down", Reason.OTHER),
        ("bind", f"31-Feb-2026 16:23:35.140 {BIND}", Reason.MALFORMED),
        ("bind", BIND.replace("a.example", "a..example"), Reason.MALFORMED),
        ("dnsmasq", "Nov 22 16:23:34 dnsmasq[1]: config a.example is <CNAME>", Reason.OTHER),
        ("dnsmasq", "Nov 22 16:23:34 dnsmasq[1]: query[A] <name unprintable> from 127.0.0.1", Reason.NAME_HIDDEN),
        ("dnsmasq", "Nov 22 16:23:34 dnsmasq[1]: query[A] a.example from 127.0.0.", Reason.MALFORMED),
        ("dnsmasq", "x" * 9000, Reason.TOO_LONG),
        ("adguard", '{"T":"2026-11-22T16:23:33Z","QH":"a.example","QT":"A","IP":"nobody"}', Reason.MALFORMED),
        ("adguard", '{"T":"2026-11-22T16:23:33Z","QT":"A","IP":"127.0.0.1"}', Reason.MALFORMED),
        ("adguard", '{"T":', Reason.MALFORMED),
        ("adguard", "[" * 100_000, Reason.MALFORMED),
        ("adguard", '{"QH": "' + "x" * (1 << 20), Reason.TOO_LONG),
        ("hits", '{"time": "2026-11-22T16:23:33Z", "client": 5, "qname": "a.example"}', Reason.MALFORMED),
        ("hits", "null", Reason.MALFORMED),
    ],
)
def test_what_is_no_query_is_in_the_ledger_and_the_next_line_is_read(form: str, line: str, reason: Reason) -> None:
    """One line that can not be read costs that line."""
    good = {
        "adguard": '{"T":"2026-11-22T16:23:33Z","QH":"a.example","QT":"AAAA","IP":"127.0.0.1"}',
        "hits": '{"time": "2026-11-22T16:23:33Z", "client": "127.0.0.1", "qname": "a.example", "qtype": "AAAA"}',
    }
    good |= {form: line for form, line, _ in reversed(ONE_QUERY)}

    found, unread = read(form, line, good[form])

    assert [query.qname for query in found] == [from_text("a.example")]
    assert unread == {reason: 1}


def test_unbounds_queries_and_replies_count_once() -> None:
    """With log-queries and log-replies; two queries alike before their replies are two."""
    query = "[1795364613] unbound[1:0] info: 127.0.0.1 a.example. A IN"
    reply = f"{query} NOERROR 0.000000 1 53"
    other = query.replace("127.0.0.1", "127.0.0.2")

    found, unread = read("unbound", query, query, other, reply, reply, reply.replace("a.example", "only.reply"))

    assert len(found) == 4
    assert unread == {}


@pytest.mark.parametrize(
    ("text", "qname"),
    [
        (r"x\032y\010z\(.example", b"\6x y\nz(\7example\0"),
        (".", b"\0"),
        (r"a\.b.example", b"\3a.b\7example\0"),
    ],
)
def test_escapes_in_binds_names_are_undone(text: str, qname: bytes) -> None:
    """A name is in the log as in a zone file."""
    found, _ = read("bind", BIND.replace("a.example", text))

    assert [query.qname for query in found] == [qname]


# ---- JSON Lines -----------------------------------------------------------------------------------------------------


def answer(*records: str) -> str:
    message = dns.message.make_response(dns.message.make_query("www.example.org", "A"))
    message.answer = [dns.rrset.from_text(*record.split(maxsplit=4)) for record in records]
    return base64.b64encode(message.to_wire()).decode()


@pytest.mark.parametrize(
    ("fields", "chain"),
    [
        ({"Answer": answer("www.example.org. 60 IN CNAME cdn.example.net.")}, ("cdn.example.net",)),
        (
            {
                "Answer": answer("www.example.org. 10 IN A 0.0.0.0"),
                "OrigAnswer": answer("www.example.org. 60 IN CNAME cdn.example.net."),
            },
            ("cdn.example.net",),
        ),
        ({"Answer": answer("www.example.org. 60 IN A 192.0.2.1")}, ()),
        ({"Answer": "not base64!"}, ()),
        ({"Answer": "AAAA"}, ()),
        ({}, ()),
    ],
)
def test_adguard_lines_tell_where_answers_led(fields: dict[str, str], chain: tuple[str, ...]) -> None:
    """What the upstream said counts, not what the filter made of it."""
    line = {
        "T": "2026-11-22T16:23:33.000000123+03:00", "QH": "www.example.org", "QT": "A", "QC": "IN", "CP": "",
        "IP": "192.0.2.9", "Result": {}, "Elapsed": 5, **fields,
    }  # fmt: skip

    found, unread = read("adguard", json.dumps(line))

    expected = Asked(
        UTC_AT - 3 * 3600, bytes([192, 0, 2, 9]), from_text("www.example.org"), 1, tuple(map(from_text, chain))
    )
    assert (found, unread) == ([expected], {})
    assert sniff_lines(json.dumps(line).encode()) == "adguard"


def hit(qname: str, rule: str, time_us: int = 1_795_364_613_000_000) -> Hit:
    return Hit(
        time_us, "2001:db8::1", 5353, 1, "phones", "udp", qname, "AAAA", "order-1", "chat", rule, "nxdomain",
        "NXDOMAIN", 16, "enforce",
    )  # fmt: skip


def test_what_the_store_writes_is_read(tmp_path: Path) -> None:
    """Hits, the rule's name for the chain where the asked name is not its own, and lost hits in the ledger."""
    store = Store("node-1", None, tmp_path)
    gap = Gap(12, 1_795_364_000_000_000, 1_795_364_100_000_000)
    records = (hit("a.chat.example", "suffix chat.example"), hit("www.example.org", "suffix chat.example"), gap)
    store.put([Chunk("segment", 0, records)])
    store.close()
    (path,) = tmp_path.glob("*.jsonl")
    octets = path.read_bytes()
    ledger = Ledger()

    found = list(read_hits(io.BytesIO(octets), ledger))

    client = bytes.fromhex("20010db8" + "0" * 23 + "1")
    assert found == [
        Asked(UTC_AT, client, from_text("a.chat.example"), 28),
        Asked(UTC_AT, client, from_text("www.example.org"), 28, (from_text("chat.example"),)),
    ]
    assert [(entry.reason, entry.count) for entry in ledger.unread()] == [(Reason.LOST, 12)]
    assert sniff_lines(octets) == "hits"


# ---- formats and hostile lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"[1] unbound[1:0] notice: init module 0: iterator\n", "unbound"),
        (b"Nov 22 16:23:30 dnsmasq[1]: started, version 2.90 cachesize 150\n", "dnsmasq"),
        (b"Nov 22 16:23:30 gw named[1]: running\n", "bind"),
        (b'{"level": "info"}\n{"QH": "a.example"}\n', "adguard"),
        (b'{"QX": "a.example"}\n', None),
        (b"The quick brown fox\n", None),
        (b"{" * 70_000, None),
        (b"\0\xff\n" * 100, None),
    ],
)
def test_a_format_is_told_by_what_the_lines_say(head: bytes, form: str | None) -> None:
    """By the first query, else by the program that names itself; None where neither is there."""
    assert sniff_lines(head) == form


PIECES = st.sampled_from(
    [b"[1795364613] unbound[1:0] info: ", b"127.0.0.1 ", b"a.example. ", b"A IN", b" NOERROR 0 1 5", b"\n", b"client ",
     b"127.0.0.1#5 (a): query: a IN A +", b"dnsmasq: query[A] ", b" from 127.0.0.1", b"Nov 22 16:23:30 ",
     b"99-Nov-9999 99:99:99 ", b'{"QH":"a","T":"', b'"}', b'{"lost": 99999999999999999999999}', b"\0", b"\\", b"\xff"]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=9), max_size=12).map(b"".join), st.sampled_from(sorted(READERS)))
def test_any_octets_are_read_to_the_end(octets: bytes, form: str) -> None:
    """Every line is a query or in the ledger, and nothing raises."""
    ledger = Ledger()

    found = list(READERS[form](io.BytesIO(octets), ledger))
    sniff_lines(octets)

    lines = [line for line in octets.split(b"\n") if line.strip(b"\r")]
    entered = sum(entry.count for entry in ledger.unread() if entry.reason is not Reason.LOST)
    lost = b'"lost"' in octets
    assert len(found) + entered <= len(lines)
    assert lost or form == "unbound" or len(found) + entered == len(lines)


def test_a_line_made_to_be_slow_is_soon_done() -> None:
    """Beginnings of queries without end: the longest line that is looked at is short."""
    octets = b"dnsmasq: query[A] " * 450 + b"\n" + b"x" * 100_000

    found, unread = read("dnsmasq", octets)

    assert found == []
    assert unread == {Reason.OTHER: 1, Reason.TOO_LONG: 1}
