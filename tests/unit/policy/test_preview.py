"""The replay counts what an order would do, and keeps its totals true when its rows run out."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.policy.documents import Action, Purpose
from resolver.policy.preview import (
    AppRow,
    Asked,
    Caution,
    CollateralRow,
    DayRow,
    DeviceRow,
    GroupRow,
    Hold,
    Impact,
    Judged,
    NameRow,
    Replay,
    SettledRow,
    SparedRow,
)
from resolver.wire.name import from_text

DAY = 86_400.0
BANNED = Judged("order-1", "chat", "suffix banned.example", Action.NXDOMAIN, Purpose.CORE)
SHARED = Judged(
    "order-1", "chat", "suffix cdn.example", Action.NXDOMAIN, Purpose.SHARED_CDN, optional=True, collateral="shops"
)
RULES = {b"\x06banned": BANNED, b"\x03cdn": SHARED, b"\x05spare": replace(BANNED, hold=Hold.EXEMPT)}
HELD_NOW = Judged("order-0", "video", "suffix old.banned.example", Action.NXDOMAIN, Purpose.CORE)


def then(qname: bytes, qtype: int, client: bytes | None, chain: tuple[bytes, ...]) -> Judged | None:
    """Names with a label of RULES are covered; devices of 198.51.100.0/24 are in no group of the order."""
    for name in (qname, *chain):
        for label, judged in RULES.items():
            if label in name:
                outside = client is not None and client.startswith(bytes([198, 51, 100]))
                return replace(judged, by_chain=name is not qname, hold=Hold.OUTSIDE if outside else judged.hold)
    return None


def now(qname: bytes, qtype: int, client: bytes | None, chain: tuple[bytes, ...]) -> Judged | None:
    """What begins with the label "old" is withheld today."""
    return HELD_NOW if qname.startswith(b"\x03old") else None


def group_of(client: bytes | None) -> str:
    """All of 192.0.2.0/24 are phones."""
    return "phones" if client is None or client.startswith(bytes([192, 0, 2])) else ""


def asked(name: str, client: str | None = "192.0.2.1", at: float | None = 0.0, chain: tuple[str, ...] = ()) -> Asked:
    packed = None if client is None else ip_address(client).packed
    return Asked(at, packed, from_text(name), 1, tuple(map(from_text, chain)))


def impact(*queries: Asked, top: int = 10, room: int = 1000) -> Impact:
    replay = Replay(now, then, group_of, room)
    for query in queries:
        replay.add(query)
    return replay.impact(top)


def test_nothing_replayed_is_nothing_counted() -> None:
    """An empty log gives zeros and no times."""
    found = impact()

    assert (found.queries, found.devices, found.hits, found.first, found.last) == (0, 0, 0, None, None)
    assert found.by_name.rows == ()


def test_new_hits_are_those_that_are_answered_today() -> None:
    """A hit is new where today's policy answers, settled where it withholds already."""
    found = impact(asked("a.banned.example"), asked("old.banned.example"), asked("old.banned.example"), asked("ok."))

    assert (found.queries, found.hits, found.new, found.settled) == (4, 3, 1, 2)
    assert found.already.rows == (SettledRow("old.banned.example", "order-0", 2),)
    assert found.by_name.rows == (
        NameRow("a.banned.example", "suffix banned.example", "chat", 1, 1),
        NameRow("old.banned.example", "suffix banned.example", "chat", 2, 0),
    )


def test_hits_are_told_by_day_group_device_and_app() -> None:
    """Each dimension adds up; a device without new hits is not touched."""
    found = impact(
        asked("banned.example", "192.0.2.1", DAY),
        asked("banned.example", "2001:db8::1", DAY + 1),
        asked("old.banned.example", "192.0.2.2", 3 * DAY),
        asked("www.example.org", "192.0.2.1", 3 * DAY),
    )

    assert found.by_day.rows == (DayRow("1970-01-02", 2, 2, 2), DayRow("1970-01-04", 2, 1, 0))
    assert found.by_group.rows == (GroupRow("phones", 2, 2, 1), GroupRow("", 1, 1, 1))
    assert found.by_device.rows == (
        DeviceRow("192.0.2.1", "phones", 1, 1),
        DeviceRow("2001:db8::1", "", 1, 1),
        DeviceRow("192.0.2.2", "phones", 1, 0),
    )
    assert found.by_app.rows == (AppRow("chat", 3, 3, 2),)
    assert (found.devices, found.touched, found.first, found.last) == (3, 2, DAY, 3 * DAY)


def test_names_that_deserve_a_look_are_told_with_their_reasons() -> None:
    """Shared, optional, and with a word about what else breaks: all reasons, and how many devices."""
    found = impact(asked("a.cdn.example"), asked("b.cdn.example", "192.0.2.2"), asked("banned.example"))

    assert found.collateral.rows == (
        CollateralRow(
            "suffix cdn.example", "chat", Purpose.SHARED_CDN,
            (Caution.SHARED, Caution.OPTIONAL, Caution.TOLD), "shops", 2, 2, 2,
        ),
    )  # fmt: skip


def test_a_name_that_only_leads_to_a_forbidden_one_is_told_apart() -> None:
    """Through the chain: the asked name is in a listing of its own, with the rule that it leads to."""
    found = impact(asked("www.example.org", chain=("x.banned.example",)), asked("banned.example"))

    assert found.through_chain == 1
    assert found.by_chain.rows == (NameRow("www.example.org", "suffix banned.example", "chat", 1, 1),)


def test_devices_that_the_order_does_not_bind_are_no_hits() -> None:
    """Exempt devices and those outside are counted beside the hits, with the reason."""
    found = impact(asked("spare.example"), asked("banned.example", "198.51.100.9"), asked("banned.example"))

    assert (found.hits, found.spared) == (1, 2)
    assert set(found.out_of_scope.rows) == {
        SparedRow("192.0.2.1", "phones", Hold.EXEMPT, 1),
        SparedRow("198.51.100.9", "", Hold.OUTSIDE, 1),
    }


def test_what_the_log_does_not_tell_is_counted_all_the_same() -> None:
    """No client and no time: the query counts, under no device and no day."""
    found = impact(asked("banned.example", None, None))

    assert (found.nameless, found.devices, found.touched, found.new) == (1, 0, 0, 1)
    assert found.by_day.rows == (DayRow("", 1, 1, 1),)
    assert found.by_device.rows == (DeviceRow("", "phones", 1, 1),)


def test_rows_beyond_the_top_are_summed_up() -> None:
    """The greatest rows are shown, the rest is one number; days are all shown."""
    names = ["a", "b", "b", "c", "c", "c"]
    found = impact(*(asked(f"{name}.banned.example", at=i * DAY) for i, name in enumerate(names)), top=1)

    assert [row.name for row in found.by_name.rows] == ["c.banned.example"]
    assert (found.by_name.distinct, found.by_name.left_out, found.by_name.overflow) == (3, 3, 0)
    assert len(found.by_day.rows) == 6


def test_a_full_listing_says_so() -> None:
    """With no room for another row a hit is still in the total, and the listing tells how many it can not place."""
    found = impact(*(asked(f"n{i}.banned.example", f"192.0.2.{i}", i * DAY) for i in range(9)), room=3)

    assert found.hits == 9
    assert (found.by_name.distinct, found.by_name.overflow) == (3, 6)
    assert (found.by_day.distinct, found.by_day.overflow) == (3, 6)
    assert (found.devices, found.all_devices) == (3, False)


@pytest.mark.parametrize("label", [b"\x1b[31m", b"\n", b"<b>", "é".encode()])
def test_a_hostile_name_is_told_in_escapes(label: bytes) -> None:
    """Whatever octets a name holds, a row has none that a terminal acts on."""
    name = bytes([len(label)]) + label + b"\x06banned\x07example\0"

    (row,) = impact(Asked(0.0, None, name, 1)).by_name.rows

    assert row.name.isascii()
    assert row.name.isprintable()


QUERIES = st.lists(
    st.builds(
        asked,
        st.sampled_from(["banned.example", "a.cdn.example", "old.banned.example", "spare.example", "ok.example"]),
        st.sampled_from(["192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1", None]),
        st.sampled_from([None, 0.0, DAY, 9 * DAY]),
        st.sampled_from([(), ("x.banned.example",)]),
    ),
    max_size=60,
)


@given(QUERIES, st.integers(1, 4), st.integers(1, 6))
def test_every_listing_adds_up_to_its_total(queries: list[Asked], top: int, room: int) -> None:
    """Rows, what is left out and what found no room sum up to the total, however little room there is."""
    found = impact(*queries, top=top, room=room)

    for listing in (found.by_group, found.by_device, found.by_app, found.by_name):
        assert sum(row.hits for row in listing.rows) + listing.left_out + listing.overflow == found.hits
    assert sum(row.hits for row in found.by_chain.rows) + found.by_chain.left_out + found.by_chain.overflow == (
        found.through_chain
    )
    spared, already = found.out_of_scope, found.already
    assert sum(row.queries for row in spared.rows) + spared.left_out + spared.overflow == found.spared
    assert sum(row.queries for row in already.rows) + already.left_out + already.overflow == found.settled
    assert sum(row.queries for row in found.by_day.rows) + found.by_day.overflow == found.queries
    assert found.hits == found.new + found.settled
    assert found.queries == len(queries)
