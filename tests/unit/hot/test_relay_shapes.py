"""Plain questions and replies as plain Python reads them, and the shelf of replies."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.hot.relay_shapes import Shelf, clamped, read_body, read_shape
from resolver.wire.message import WireError, read_query, read_reply
from tests.support import build

ASKED = [
    build.query(),
    build.query(flags=build.RD | 0x30),
    build.query(additional=(build.opt(),)),
    build.query(additional=(build.opt(do=True, octets=4096),)),
    build.query(additional=(build.opt(octets=700),)),
]
REPLIES = build.valid_replies(build.query()) + [
    build.reply(build.query(), [build.record(build.TO_QUESTION, 1, b"\xc0\0\2\1", ttl=ttl)], additional=[build.opt()])
    for ttl in (0, 77, 2**31)
]


def around(datagram: bytes) -> bytes:
    """A datagram but for id and QNAME."""
    return datagram[2:12] + datagram[datagram.index(b"\0", 12) + 1 :]


@given(st.sampled_from(ASKED) | build.mutations(ASKED))
@settings(max_examples=1000)
def test_a_shape_says_what_the_query_says(datagram: bytes) -> None:
    """Whatever is taken for a plain question is one, and asks for just that."""
    if b"\0" not in datagram[12:]:
        return
    shape = read_shape(around(datagram))
    if shape is None:
        return
    try:
        query = read_query(datagram)
    except WireError:
        return  # its name is not well formed, which is not the shape's to say
    do, cd, ad = query.do, query.flags & 0x10, query.flags & 0x20
    assert (shape.qtype, shape.limit) == (query.qtype, min(query.udp_octets, 1232))
    assert (bool(shape.opt), shape.wants_ad) == (query.has_opt, bool(do or ad))
    assert shape.key_end == query.qtype.to_bytes(2, "big") + bytes((do << 1 | cd >> 4,))
    assert not query.has_options
    assert query.qclass == 1
    assert query.flags & 0xF900 == 0x0100


@pytest.mark.parametrize(
    "datagram",
    [
        build.query(flags=0),
        build.query(flags=build.RD | 0x8000),
        build.query(flags=build.RD | 0x2800),
        build.query(rtype=255),
        build.query(rtype=0),
        build.query(rtype=41),
        build.query(rclass=3),
        build.query(additional=(build.opt(version=1),)),
        build.query(additional=(build.opt(build.option(10, b"12345678")),)),
        build.query() + b"\0",
        build.query(additional=(build.record(b"\0", 1, b"\xc0\0\2\1"),)),
    ],
)
def test_what_is_not_plain_has_no_shape(datagram: bytes) -> None:
    """It is the pipeline's."""
    assert read_shape(around(datagram)) is None


@given(st.sampled_from(REPLIES) | build.mutations(REPLIES), st.sampled_from(ASKED), st.booleans())
@settings(max_examples=2000)
def test_a_plain_reply_is_read_as_any_is(octets: bytes, asked: bytes, is_trusted: bool) -> None:
    """Records, TTLs, names and how long "no" holds, to the octet; the header of the answer is the pipeline's."""
    query = read_query(asked)
    end = 12 + len(query.question)
    if len(octets) < 12 or octets[12:end] != query.question:
        return
    shape = read_shape(around(asked))
    assert shape is not None
    head = shape.read(octets[2:12], is_trusted)
    body = read_body(octets, end, head, query.qtype, {b"\7example\3org\0"}) if head is not None else None
    if head is None or body is None:
        return
    stop, places, shortest, longest, has_opt, negative, names = body
    reply = read_reply(octets, octets[:2] + b"\1\0" + asked[4:])
    answer = reply.answer
    assert not reply.truncated
    assert not answer.errors
    assert octets[end:stop] == answer.body
    assert tuple((place - end + 2, ttl) for place, ttl in places) == answer.ttls
    assert [shortest, longest] == ([min(t), max(t)] if (t := [ttl for _, ttl in answer.ttls]) else [0, 0])
    assert (has_opt, negative) == (reply.has_opt, answer.negative_ttl)
    assert {*answer.aliases, *answer.targets} <= {*names}
    said = head[4] if has_opt else head[3]
    counts = [int.from_bytes(said[place : place + 2], "big") for place in (4, 6, 8)]
    assert counts == [*answer.counts[:2], answer.counts[2] + query.has_opt]
    authentic = answer.authentic and is_trusted and (query.do or query.flags & 0x20)
    assert said[:4] == bytes((0x81, 0x80 | query.flags & 0x10 | answer.rcode | (0x20 if authentic else 0), 0, 1))
    assert head[5] == query.qtype << 4 | answer.rcode


def test_ttls_are_clamped_where_they_stand() -> None:
    """Neither below the floor nor above the ceiling."""
    octets = b"".join(ttl.to_bytes(4, "big") for ttl in (5, 50, 500))

    assert clamped(octets, ((30, 5), (34, 50), (38, 500)), 30, 10, 100) == (
        b"".join(ttl.to_bytes(4, "big") for ttl in (10, 50, 100)),
        ((30, 10), (34, 50), (38, 100)),
    )


def test_a_shelf_lets_the_first_go_first() -> None:
    """Some at a time, until there is room; what it takes is counted to the octet."""
    shelf = Shelf()
    for n in range(3000):
        shelf.keep(n.to_bytes(2, "big"), 1.0, 2.0, True, b"reply")
    taken = shelf.octets()

    shelf.halve()

    assert (shelf.count(), shelf.octets()) == (3000 - 1024, taken * (3000 - 1024) // 3000)
    assert shelf.find((1023).to_bytes(2, "big")) is None
    assert shelf.find((1024).to_bytes(2, "big")) == (2.0, 1.0, True, b"reply")
    for n in range(3000):
        shelf.forget(n.to_bytes(2, "big"))
    assert (shelf.count(), shelf.octets()) == (0, 0)
