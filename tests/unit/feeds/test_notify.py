"""NOTIFY: who is heard, what each gets back, and that no octets are an exception."""

import base64

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.feeds.notify import answer_notify
from resolver.feeds.transfer import TransferTerms, TsigKey

SECRET = base64.b64encode(b"a secret of some length").decode()
KEY = TsigKey.from_text("key.example", "hmac-sha256", SECRET)
PRIMARIES = (("192.0.2.53", 53), ("2001:db8::53", 5353))
OPEN = TransferTerms("open", "rpz.example", PRIMARIES)
KEYED = TransferTerms("keyed", "keyed.example", PRIMARIES, key=KEY)
ZONES = {"open": OPEN, "keyed": KEYED}


def notify(zone: str, key: TsigKey | None = None) -> dns.message.Message:
    message = dns.message.make_query(zone, "SOA", flags=dns.flags.AA)
    message.set_opcode(dns.opcode.NOTIFY)
    message.answer.append(
        dns.rrset.from_text(message.question[0].name, 60, "IN", "SOA", "ns.example. host.example. 8 1 1 1 1")
    )
    if key is not None:
        message.use_tsig(key.for_dnspython())
    return message


def answered(octets: bytes | None, key: TsigKey | None = None, mac: bytes = b"") -> dns.message.Message:
    assert octets is not None
    keyring = False if key is None else {key.for_dnspython().name: key.for_dnspython()}
    return dns.message.from_wire(octets, keyring=keyring, request_mac=mac)


@pytest.mark.parametrize("source", ["192.0.2.53", "::ffff:192.0.2.53", "2001:db8::53", "2001:DB8:0::53%eth0"])
def test_primary_is_heard(source: str) -> None:
    """A NOTIFY from the address of a primary names the zone to refresh, and is answered with authority."""
    message = notify("RPZ.example.")
    outcome = answer_notify(message.to_wire(), source, ZONES)
    reply = answered(outcome.reply)
    assert outcome.zone == "open"
    assert (reply.id, reply.opcode(), reply.rcode()) == (message.id, dns.opcode.NOTIFY, dns.rcode.NOERROR)
    assert reply.flags & (dns.flags.QR | dns.flags.AA) == dns.flags.QR | dns.flags.AA
    assert reply.question == message.question
    assert not reply.answer


@pytest.mark.parametrize(
    ("zone", "source", "rcode"),
    [("rpz.example", "192.0.2.54", dns.rcode.REFUSED), ("other.example", "192.0.2.53", dns.rcode.NOTAUTH)],
)
def test_others_are_refused(zone: str, source: str, rcode: dns.rcode.Rcode) -> None:
    """Strangers, and zones that are not ours, refresh nothing."""
    outcome = answer_notify(notify(zone).to_wire(), source, ZONES)
    assert (outcome.zone, answered(outcome.reply).rcode()) == (None, rcode)


@pytest.mark.parametrize("source", ["192.0.2.53", "198.51.100.1"])
def test_signed_notify_is_heard_from_anywhere_and_the_reply_is_signed(source: str) -> None:
    """The zone's key is as good as an address."""
    message = notify("keyed.example", KEY)
    octets = message.to_wire()
    outcome = answer_notify(octets, source, ZONES)
    reply = answered(outcome.reply, KEY, message.mac or b"")
    assert (outcome.zone, reply.rcode(), reply.had_tsig) == ("keyed", dns.rcode.NOERROR, True)


def test_primary_need_not_sign() -> None:
    """Servers sign transfers and not their NOTIFY, unless told to; the address is enough."""
    outcome = answer_notify(notify("keyed.example").to_wire(), "192.0.2.53", ZONES)
    assert (outcome.zone, answered(outcome.reply).rcode()) == ("keyed", dns.rcode.NOERROR)


@pytest.mark.parametrize(
    ("zone", "key", "error"),
    [
        ("keyed.example", TsigKey.from_text("other.example", "hmac-sha256", SECRET), dns.rcode.BADKEY),
        ("keyed.example", TsigKey.from_text("key.example", "hmac-sha256", "b3RoZXI="), dns.rcode.BADSIG),
        ("keyed.example", TsigKey.from_text("key.example", "hmac-sha512", SECRET), dns.rcode.BADSIG),
        ("rpz.example", KEY, dns.rcode.BADKEY),
        ("other.example", KEY, dns.rcode.BADKEY),
    ],
)
def test_wrong_signature_is_refused_even_from_a_primary(zone: str, key: TsigKey, error: dns.rcode.Rcode) -> None:
    """NOTAUTH, and an unsigned TSIG says why (RFC 8945 §5.2)."""
    message = notify(zone, key)
    outcome = answer_notify(message.to_wire(), "192.0.2.53", ZONES)
    reply = answered(outcome.reply)
    assert outcome.zone is None
    assert (reply.rcode(), reply.id) == (dns.rcode.NOTAUTH, message.id)
    assert reply.tsig is not None
    assert (reply.tsig[0].error, reply.tsig[0].mac) == (error, b"")


def test_old_signature_is_refused() -> None:
    """A NOTIFY that somebody recorded is not heard again later."""
    message = notify("keyed.example")
    octets = message.to_wire()
    message.use_tsig(KEY.for_dnspython())
    assert message.tsig is not None
    old = dns.tsig.sign(octets, KEY.for_dnspython(), message.tsig[0], 1_700_000_000, b"")[0]
    message.tsig = dns.rrset.from_rdata(message.tsig.name, 0, old)
    message.want_tsig_sign = False
    outcome = answer_notify(message.to_wire(), "192.0.2.53", ZONES)
    reply = answered(outcome.reply)
    assert (outcome.zone, reply.rcode()) == (None, dns.rcode.NOTAUTH)
    assert reply.tsig is not None
    assert reply.tsig[0].error == dns.rcode.BADTIME


@pytest.mark.parametrize("rtype", ["A", "IXFR"])
def test_notify_of_another_type_is_a_format_error(rtype: str) -> None:
    """Only the SOA of a zone is told of."""
    message = dns.message.make_query("rpz.example", rtype)
    message.set_opcode(dns.opcode.NOTIFY)
    outcome = answer_notify(message.to_wire(), "192.0.2.53", ZONES)
    reply = answered(outcome.reply)
    assert (outcome.zone, reply.rcode(), reply.id) == (None, dns.rcode.FORMERR, message.id)


def test_what_is_no_notify_is_not_answered() -> None:
    """Queries, replies and less than a header get silence from here."""
    reply = notify("rpz.example")
    reply.flags |= dns.flags.QR
    query = dns.message.make_query("rpz.example", "SOA")
    for octets in (reply.to_wire(), query.to_wire(), b"", reply.to_wire()[:11]):
        assert answer_notify(octets, "192.0.2.53", ZONES).reply is None


MESSAGES = [notify("rpz.example").to_wire(), notify("keyed.example", KEY).to_wire(), notify("x.example").to_wire()]


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(MESSAGES),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=5),
    st.integers(0, 400),
    st.binary(max_size=20),
    st.sampled_from(["192.0.2.53", "2001:db8::1", "", "x"]),
)
def test_any_octets_get_a_reply_or_silence(
    message: bytes, changes: list[tuple[int, int]], end: int, tail: bytes, source: str
) -> None:
    """Hostile octets are answered or not, and what is answered is a reply to the id of the message."""
    octets = bytearray(message)
    for at, octet in changes:
        octets[at % len(octets)] = octet
    hostile = bytes(octets[:end]) + tail
    outcome = answer_notify(hostile, source, ZONES)
    if outcome.reply is not None:
        assert outcome.reply[:2] == hostile[:2]
        assert outcome.reply[2] & 0xF8 == 0x80 | dns.opcode.NOTIFY << 3
    assert outcome.zone is None or outcome.reply is not None
