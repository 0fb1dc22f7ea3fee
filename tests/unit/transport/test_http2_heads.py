"""Header blocks: what is remembered of them is what they say, and what is written is what was meant."""

import base64

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from resolver.policy.client import Client, Transport
from resolver.transport.desk import Asked, Desk, HttpTerms
from resolver.transport.doh import NOT_FOUND, DohTerms, Refusal, refusal_headers, reply_headers
from resolver.transport.http2_frames import END_HEADERS, END_STREAM, Code, ConnectionFault, Frame, start
from resolver.transport.http2_heads import KNOWN_BLOCKS, ReplyHeads, RequestHeads, is_field, plain
from tests.support.answerer import FakeAnswerer, reply_to
from tests.support.house import ask

GET = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "dns.example.org"),
    ("accept", "application/dns-message"),
]


encode_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode


def heads() -> RequestHeads:
    client = Client(bytes(4), bytes(28), Transport.DOH)
    return RequestHeads(Desk(HttpTerms(), FakeAnswerer(), client, lambda host, port: b""))


def path_of(name: str) -> str:
    return f"/dns-query?dns={base64.urlsafe_b64encode(ask(name)).rstrip(b'=').decode()}"


def literal(value: str, kind: int = 0x04) -> bytes:
    """A path as a literal that does not go into the table, its length in as many octets as it takes."""
    octets = value.encode()
    return bytes([kind]) + hpack.hpack.encode_integer(len(octets), 7) + octets


@pytest.mark.parametrize("kind", [0x04, 0x05, 0x14])
@pytest.mark.parametrize("huffman", [False, True])
def test_requests_that_differ_in_their_path_alone_are_told_apart(kind: int, huffman: bool) -> None:
    """Each is what a reading from the beginning says, however the path is written and however long it is."""
    encoder = hpack.Encoder()
    read = heads()
    read.fields(encoder.encode(GET))
    rest = encoder.encode(GET)  # from the table: one octet a field
    assert len(rest) == len(GET)
    for number in range(50):
        name = f"x{'x' * number}.{'y' * (number % 7 + 1)}.example.org"
        path = literal(path_of(name), kind)
        if huffman:
            coded = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(b":path", path_of(name).encode())])
            path = bytes([kind]) + coded[1:]
        head = read.of(rest[:2] + path + rest[2:])
        assert isinstance(head.asked, Asked)
        assert head.asked.message == ask(name)
    assert len(read._forms) == 1


def test_a_path_that_can_not_be_decoded_is_a_fault() -> None:
    """Also where all the rest is known."""
    read = heads()
    encoder = hpack.Encoder()
    read.fields(encoder.encode(GET))
    rest = encoder.encode(GET)
    read.of(rest[:2] + literal(path_of("www.example.org")) + rest[2:])
    assert len(read._forms) == 1
    with pytest.raises(ConnectionFault) as caught:
        read.of(rest[:2] + b"\x04\x84\xff\xff\xff\xff" + rest[2:])  # EOS (RFC 7541 §5.2)
    assert caught.value.code is Code.COMPRESSION_ERROR


@given(st.binary(max_size=60))
def test_what_is_remembered_is_what_a_first_reading_says(noise: bytes) -> None:
    """Blocks made of anything, behind ones that left something to remember."""
    encoder = hpack.Encoder()
    seeded = heads()
    table = encoder.encode(GET)
    rest = encoder.encode(GET)
    seeded.fields(table)
    seeded.of(rest[:2] + literal(path_of("www.example.org")) + rest[2:])
    for block in (rest[:2] + noise, rest[:2] + b"\x04" + noise, rest[:2] + b"\x04" + noise + rest[2:]):
        fresh = heads()
        fresh.fields(table)
        outcomes = []
        for read in (seeded, fresh):
            try:
                head = read.of(block)
                outcomes.append((head.asked, head.octets))
            except ConnectionFault as fault:
                outcomes.append(fault.code)
        assert outcomes[0] == outcomes[1]
        tables = [list(read._decoder.header_table.dynamic_entries) for read in (seeded, fresh)]
        if tables[0] != tables[1] or isinstance(outcomes[0], Code):
            return  # an earlier block left another table, or ended the connection


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(encode_huffman)))
def test_the_huffman_code_is_read_as_hpack_reads_it(coded: bytes) -> None:
    """What is sound and what is not."""
    try:
        expected: bytes | None = decode_huffman(coded)
    except hpack.HPACKDecodingError:
        expected = None
    if expected is None:
        with pytest.raises(hpack.HPACKDecodingError):
            plain(coded)
    else:
        assert plain(coded) == expected


BLOCKS = st.tuples(
    st.sampled_from(["/dns-query", path_of("www.example.org"), path_of("a.example.org"), "/elsewhere"]),
    st.sampled_from(["GET", "POST"]),
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["1", "2", "3" * 700])), max_size=2),
    st.sampled_from([None, 0, 1000, 4096]),
    st.booleans(),
)


@given(st.lists(BLOCKS, max_size=12))
def test_a_conversation_is_read_as_if_nothing_were_remembered(
    blocks: list[tuple[str, str, list[tuple[str, str]], int | None, bool]],
) -> None:
    """Blocks of one encoder, whose table grows, shrinks and turns over; some of them trailers."""
    encoder, decoder, read = hpack.Encoder(), hpack.Decoder(), heads()
    for path, method, more, size, is_request in blocks:
        if size is not None:
            encoder.header_table_size = size
        fields = [(":method", method), *GET[1:3], (":path", path), ("content-type", "application/dns-message"), *more]
        sensitive = [(name, value, name == ":path" and method == "GET") for name, value in fields]
        block = encoder.encode(sensitive if is_request else [(name, value) for name, value in more])
        expected = [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
        if is_request:
            fresh = heads()._desk.read(method.encode(), path.encode(), expected[4:])
            found = read.of(block).asked
            assert found == fresh
        else:
            assert read.fields(block) == expected


def test_what_is_remembered_is_bounded() -> None:
    """However many blocks come, and however large they are."""
    read = heads()
    for number in range(10 * KNOWN_BLOCKS):
        read.of(b"\x04\2/%c" % (33 + number % 90) + b"\0\1a" + bytes([1, 33 + number % 200]))
        read.of(b"\x04\1/\0\1a\x7f" + hpack.hpack.encode_integer(900, 7)[1:] + b"%04d" % number + b"b" * 896)
    assert len(read._known) <= KNOWN_BLOCKS
    assert max(map(len, read._known)) < 600


def test_a_replys_head_is_made_once() -> None:
    """For each length and freshness; what it says is what `reply_headers` says."""
    terms = DohTerms(alt_svc=b'h3=":443"')
    made = ReplyHeads(terms)
    reply = reply_to(ask("www.example.org"))
    before, between = made.of(reply)
    assert made.of(reply) is made.of(bytes(reply))
    block = made.block(reply)
    assert before == start(len(block), Frame.HEADERS, END_HEADERS)
    assert between == block + start(len(reply), Frame.DATA, END_STREAM)
    for octets, fields in (
        (block, [(b":status", b"200"), *reply_headers(reply, terms)]),
        (made.refusal(NOT_FOUND), [(b":status", b"404"), *refusal_headers(NOT_FOUND, terms)]),
        (made.encode(200, [(b"x", b"y")]), [(b":status", b"200"), (b"x", b"y")]),
    ):
        decoder = hpack.Decoder()
        assert decoder.decode(octets, raw=True) == fields
        assert decoder.decode(b"\x20" + octets, raw=True) == fields


@pytest.mark.parametrize(
    ("name", "value", "is_sound"),
    [
        (b"accept", b"application/dns-message", True),
        (b"x!#$%&'*+-.^_`|~0", b"a\tb c\xff", True),
        (b"te", b"trailers", True),
        (b"accept", b"", True),
        (b"te", b"gzip", False),
        (b"Accept", b"x", False),
        (b"a b", b"x", False),
        (b"a:b", b"x", False),
        (b"", b"x", False),
        (b"x", b"a\nb", False),
        (b"x", b"a\rb", False),
        (b"x", b"a\0b", False),
        (b"x", b" a", False),
        (b"x", b"a\t", False),
        (b"connection", b"close", False),
    ],
)
def test_a_field_is_sound_or_not(name: bytes, value: bytes, is_sound: bool) -> None:
    """RFC 9113 §8.2.1 and §8.2.2."""
    assert is_field(name, value) == is_sound


def test_a_refusal_is_remembered_as_one() -> None:
    """A path that is not here stays so."""
    read = heads()
    block = hpack.Encoder().encode([*GET[:3], (":path", "/elsewhere")])
    plain = b"".join(
        b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in hpack.Decoder().decode(block, raw=True)
    )
    assert [isinstance(read.of(plain).asked, Refusal) for _ in range(2)] == [True, True]
