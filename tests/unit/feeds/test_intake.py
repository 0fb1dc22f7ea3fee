"""Zones as they are kept: what is written is read back, and damage is told."""

import contextlib

import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.feeds.copies import FeedError
from resolver.feeds.intake import Limits, Soa, Zone, receive
from resolver.wire.codes import Rtype
from resolver.wire.name import from_text

ORIGIN = from_text("rpz.example")
NUMBERS = Soa(7, 600, 120, 7200, 60)


def soa(numbers: Soa) -> bytes:
    """An SOA record in the form of the copy."""
    rdata = bytes(2) + b"".join(number.to_bytes(4, "big") for number in numbers)
    return record("", Rtype.SOA, rdata)


def record(name: str, rtype: int, rdata: bytes) -> bytes:
    owner = (from_text(name)[:-1] if name else b"") + ORIGIN
    return bytes([len(owner)]) + owner + rtype.to_bytes(2, "big") + rdata


def zone(records: dict[bytes, int]) -> Zone:
    made = Zone(ORIGIN, dict(records))
    made.replace_soa(soa(NUMBERS), 300)
    return made


RECORDS = st.dictionaries(
    st.builds(
        record,
        st.sampled_from(["a", "*.b", "24.0.2.0.192.rpz-ip", "c.d.e"]),
        st.sampled_from([1, 5, 16, 28]),
        st.binary(max_size=300),
    ),
    st.integers(0, 2**31 - 1),
    max_size=12,
)


@settings(deadline=None)
@given(RECORDS)
def test_what_is_written_is_read_back(records: dict[bytes, int]) -> None:
    """All records and TTLs, the SOA first, which can be read without the rest."""
    kept = zone(records)
    octets = kept.to_octets()
    assert octets.startswith(b"interdict zone 1\n" + ORIGIN)
    assert Zone.from_octets(octets) == kept
    head = Zone.from_octets(octets, 1)
    assert (head.soa(), head.records) == (NUMBERS, {soa(NUMBERS): 300})


def test_another_soa_takes_the_place_of_the_last() -> None:
    """A zone has one SOA, whose numbers are its own."""
    kept = zone({record("a", Rtype.CNAME, b"\0"): 60})
    kept.replace_soa(soa(NUMBERS._replace(serial=8)), 30)
    assert kept.soa() == NUMBERS._replace(serial=8)
    assert len(kept.records) == 2


def test_records_become_policy() -> None:
    """What is kept is read as a policy zone, with its SOA."""
    policy, report = zone({record("a", Rtype.CNAME, b"\0"): 60}).read()
    assert list(policy.names) == [from_text("a")]
    assert (policy.soa is not None, report.taken) == (True, 2)


@settings(deadline=None)
@given(RECORDS, st.data())
def test_damage_is_told(records: dict[bytes, int], data: st.DataObject) -> None:
    """Octets that are cut or changed are another zone or an error, never anything else."""
    octets = bytearray(zone(records).to_octets())
    for at, octet in data.draw(st.lists(st.tuples(st.integers(0, len(octets) - 1), st.integers(0, 255)), max_size=3)):
        octets[at] = octet
    damaged = bytes(octets[: data.draw(st.integers(0, len(octets)))])
    with contextlib.suppress(FeedError):
        read = Zone.from_octets(damaged)
        assert read.soa() is not None
        read.read()


@pytest.mark.parametrize("octets", [b"", b"interdict zone 1\n", b"interdict zone 1\n" + ORIGIN, b"interdict zone 2\n"])
def test_zone_without_soa_is_no_zone(octets: bytes) -> None:
    """A copy begins with its SOA."""
    with pytest.raises(FeedError, match="takes the zone whole"):
        Zone.from_octets(octets)


def test_port_where_nobody_is_is_an_error_of_the_network() -> None:
    """A primary that is not there refuses the connection."""
    query = dns.message.make_query("rpz.example", "AXFR")
    with pytest.raises(ConnectionRefusedError):
        receive("127.0.0.1", 1, query, None, Limits(1000, 5.0))
