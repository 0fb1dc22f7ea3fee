"""Text out of logs becomes names, addresses and times, or nothing; and what is not read is on the books."""

from datetime import UTC, datetime

import dns.flags
import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.evidence.past_ledger import (
    END_OF_TIME,
    KEPT_EXAMPLES,
    Ledger,
    Pairs,
    Reason,
    bind_time,
    instant,
    moment,
    packed,
    packed_from,
    printable,
    read_message,
    rtype,
    syslog_time,
    wire_name,
)
from resolver.policy.preview import Asked
from resolver.wire.name import from_text


def local(*fields: int) -> float:
    """Unix seconds of a time in this machine's zone."""
    return datetime(*fields).timestamp()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("192.0.2.1", bytes([192, 0, 2, 1])),
        ("::ffff:192.0.2.1", bytes([192, 0, 2, 1])),
        ("2001:db8::1", bytes.fromhex("20010db8" + "0" * 23 + "1")),
        ("fe80::1%eth0", bytes.fromhex("fe80" + "0" * 27 + "1")),
        ("192.0.2", None),
        ("", None),
        ("example.org", None),
    ],
)
def test_an_address_is_packed(text: str, octets: bytes | None) -> None:
    """IPv4 and IPv6, mapped ones as IPv4, zones of link-local ones left out; None for what is no address."""
    assert packed(text) == octets
    assert octets is None or packed_from(octets) == octets


def test_a_mapped_address_in_a_message_is_ipv4() -> None:
    """A dual-stack socket writes IPv4 clients as ::ffff:a.b.c.d; lengths other than 4 and 16 are no address."""
    assert packed_from(bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])) == bytes([192, 0, 2, 1])
    assert packed_from(b"123") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-22T16:23:55.628Z", 1795364635.628),
        ("2026-11-22T17:23:55+01:00", 1795364635.0),
        ("2026-11-22T16:23:55.123456789Z", 1795364635.123456),
        ("2026-11-22 16:23:55", local(2026, 11, 22, 16, 23, 55)),
        ("2026-11-22T16:23:55", local(2026, 11, 22, 16, 23, 55)),
        ("2026-13-22T16:23:55Z", None),
        ("1969-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00", None),
        ("", None),
    ],
)
def test_an_iso_time_is_read(text: str, seconds: float | None) -> None:
    """With its offset, or in this machine's zone; None outside 1970 to 9999."""
    assert instant(text) == seconds


def test_a_time_of_bind_is_read() -> None:
    """Day-Month-Year, in this machine's zone, with fractions or without."""
    assert bind_time("22-Nov-2026 16:23:55.628") == pytest.approx(local(2026, 11, 22, 16, 23, 55) + 0.628)
    assert bind_time("2-Feb-2026 06:03:05") == local(2026, 2, 2, 6, 3, 5)
    assert bind_time("31-Feb-2026 06:03:05") is None
    assert bind_time("22-Nix-2026 16:23:55") is None


@pytest.mark.parametrize(
    ("text", "latest", "expected"),
    [
        ("Nov 22 16:23:30", local(2026, 11, 22, 17), local(2026, 11, 22, 16, 23, 30)),
        ("Nov  2 16:23:30", local(2026, 11, 22, 17), local(2026, 11, 2, 16, 23, 30)),
        ("Dec 31 23:59:59", local(2026, 1, 1, 1), local(2025, 12, 31, 23, 59, 59)),
        ("Feb 29 12:00:00", local(2027, 3, 1), local(2024, 2, 29, 12)),
        ("Feb 30 12:00:00", local(2027, 3, 1), None),
        ("Xyz 22 12:00:00", local(2027, 3, 1), None),
    ],
)
def test_a_time_without_a_year_is_the_last_such_before_the_file_was_written(
    text: str, latest: float, expected: float | None
) -> None:
    """A log of December read in January is last year's; 29 February is of the last leap year."""
    assert syslog_time(text, latest) == expected


@pytest.mark.parametrize("seconds", [-1, END_OF_TIME, float("nan"), float("inf"), True, "5", None, 1 << 80])
def test_a_time_that_no_log_can_mean_is_none(seconds: object) -> None:
    """Before 1970, after 9999, and what is no number."""
    assert moment(seconds) is None


def test_unknown_types_and_names_do_not_stop_a_reader() -> None:
    """A mnemonic that is not known is type 0; what is no name is None."""
    assert (rtype("AAAA"), rtype("TYPE65"), rtype("NIMLOC")) == (28, 65, 0)
    assert wire_name("WWW.Example.org.") == b"\3www\7example\3org\0"
    assert wire_name("a..b") is None


@given(st.text(max_size=40))
def test_any_text_is_read_or_none(text: str) -> None:
    """Nothing that a log can hold raises."""
    assert instant(text) is None or 0 <= instant(text) < END_OF_TIME  # type: ignore[operator]
    packed(text), wire_name(text), rtype(text), bind_time(text), syslog_time(f"a b {text}", 1e9)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_examples_are_printable_and_short(octets: bytes | str) -> None:
    """Whatever a record holds, its example is one line without control characters."""
    shown = printable(octets)

    assert len(shown) <= 121
    assert shown.isprintable()


def test_the_ledger_keeps_the_first_of_each_reason_and_counts_all() -> None:
    """Five malformed lines: the count says five, three are told with their places."""
    ledger = Ledger()
    ledger.file = "a.log"
    for i in range(1, 6):
        ledger.add(Reason.MALFORMED, i, f"line {i}\n".encode())
    ledger.add(Reason.LOST, 0, "gap", 7)

    malformed, lost = ledger.unread()

    assert (malformed.reason, malformed.count, len(malformed.first)) == (Reason.MALFORMED, 5, KEPT_EXAMPLES)
    assert (malformed.first[1].place, malformed.first[1].text) == ("a.log:2", "line 2\N{REPLACEMENT CHARACTER}")
    assert (lost.reason, lost.count, lost.first[0].place) == (Reason.LOST, 7, "a.log")


def test_every_reason_has_a_meaning() -> None:
    """What people read stands for each reason."""
    assert all(reason.meaning for reason in Reason)


# ---- messages -------------------------------------------------------------------------------------------------------


def test_a_query_is_read() -> None:
    """Id, name in lower case, type."""
    message = dns.message.make_query("WWW.Example.org", "AAAA", id=7)

    told = read_message(message.to_wire())

    assert told is not None
    assert (told.id, told.is_response, told.qname, told.qtype) == (7, False, from_text("www.example.org"), 28)


def response(*answers: str) -> bytes:
    message = dns.message.make_response(dns.message.make_query("www.example.org", "A"))
    message.answer = [dns.rrset.from_text(*answer.split(maxsplit=4)) for answer in answers]
    return message.to_wire()


def test_a_response_tells_where_it_leads() -> None:
    """All aliases in order."""
    told = read_message(
        response("www.example.org. 60 IN CNAME b.example.org.", "b.example.org. 60 IN CNAME c.example.net.")
    )

    assert told is not None
    assert told.is_response
    assert told.targets == (from_text("b.example.org"), from_text("c.example.net"))


def test_a_response_that_is_cut_still_tells_what_was_asked() -> None:
    """Records that are not well formed cost the targets, not the query."""
    told = read_message(response("www.example.org. 60 IN CNAME b.example.org.")[:-3])

    assert told is not None
    assert (told.qname, told.targets) == (from_text("www.example.org"), ())


@pytest.mark.parametrize(
    "octets",
    [b"", bytes(11), bytes(12), dns.message.make_query(".", "A").to_wire()[:-3], bytes(4) + b"\0\1" + bytes(9)],
)
def test_what_holds_no_question_tells_nothing(octets: bytes) -> None:
    """Too short, no question, a name or a type that is cut."""
    assert read_message(octets) is None


def test_a_notify_is_no_query() -> None:
    """Only standard queries are what clients ask."""
    message = dns.message.make_query("example.org", "SOA")
    message.flags |= 4 << 11

    assert read_message(message.to_wire()) is None


@given(st.binary(max_size=80))
def test_any_message_is_read_or_none(octets: bytes) -> None:
    """Hostile bytes behind a question too."""
    read_message(octets)
    told = read_message(bytes(2) + b"\x81\x80\0\1\0\2\0\0\0\0" + b"\1a\0\0\1\0\1" + octets)

    assert told is not None
    assert told.qname == b"\1a\0"


# ---- pairs ----------------------------------------------------------------------------------------------------------


def asked(at: float, *chain: bytes) -> Asked:
    return Asked(at, None, b"\1a\0", 1, chain)


def test_a_query_and_its_answer_count_once() -> None:
    """The query's time, the answer's chain."""
    pairs = Pairs()

    assert list(pairs.ask("key", asked(1.0))) == []
    assert pairs.answer("key", asked(2.0, b"\1b\0")) == asked(1.0, b"\1b\0")
    assert list(pairs.rest()) == []


def test_each_query_takes_one_answer() -> None:
    """Two queries alike and one answer: two queries. An answer alone stands for its query."""
    pairs = Pairs()
    found = [*pairs.ask("key", asked(1.0)), *pairs.ask("key", asked(2.0)), pairs.answer("key", asked(3.0))]
    found += [pairs.answer("other", asked(4.0)), *pairs.rest()]

    assert sorted(query.at or 0 for query in found) == [1.0, 2.0, 4.0]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=80), st.integers(0, 5))
def test_no_query_is_lost_while_they_wait(events: list[tuple[bool, int]], room: int) -> None:
    """However little room there is: each query and each answer without one is given once, and few wait."""
    pairs = Pairs(room)
    given_back: list[Asked] = []
    expected = 0
    for is_query, key in events:
        if is_query:
            given_back += pairs.ask(key, asked(0.0))
            expected += 1
        else:
            before = sum(len(queries) for queries in pairs._waiting.values())
            given_back.append(pairs.answer(key, asked(0.0)))
            expected += before == sum(len(queries) for queries in pairs._waiting.values())
        assert sum(len(queries) for queries in pairs._waiting.values()) <= room
    given_back += pairs.rest()

    assert len(given_back) == expected


def test_utc_is_what_bare_seconds_mean() -> None:
    """Unix seconds are not moved by this machine's zone."""
    assert moment(1795364635) == datetime(2026, 11, 22, 16, 23, 55, tzinfo=UTC).timestamp()
