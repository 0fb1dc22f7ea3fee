"""NOTIFY (RFC 1996): a primary server says that a zone changed, and is answered.

All that a NOTIFY can do is to bring the next refresh forward; what the zone is, the refresh asks the primary itself.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.tsig

from resolver.feeds.transfer import TransferTerms
from resolver.wire.name import from_text

# What dnspython raises for hostile octets; ValueError and struct.error come from single types of RDATA.
_UNREADABLE = (dns.exception.DNSException, ValueError, struct.error)


@dataclass(frozen=True, slots=True)
class NotifyOutcome:
    """What a NOTIFY came to: the octets to send back, if any, and the zone to refresh, if one is to be."""

    reply: bytes | None
    zone: str | None


def answer_notify(message: bytes, source: str, zones: Mapping[str, TransferTerms]) -> NotifyOutcome:
    """Answer a message with the opcode NOTIFY (RFC 1996).

    It is heard if it comes from an address of one of the zone's primaries, or is signed with the zone's key; the reply
    to a signed one is signed. All that it can do is to bring the next refresh forward.

    Args:
        message: As it was received.
        source: The sender's address.
        zones: The zones that are transferred, each under what the outcome is to call it.
    """
    try:
        query = dns.message.from_wire(message, keyring=False)
    except _UNREADABLE:
        return NotifyOutcome(_header_reply(message, dns.rcode.FORMERR), None)
    if query.opcode() != dns.opcode.NOTIFY or query.flags & dns.flags.QR:
        return NotifyOutcome(None, None)
    if len(query.question) != 1 or query.question[0].rdtype != dns.rdatatype.SOA:
        return NotifyOutcome(_header_reply(message, dns.rcode.FORMERR), None)
    origin = query.question[0].name.to_digestable()
    found = next((item for item in zones.items() if from_text(item[1].zone) == origin), None)
    key = found[1].key if found is not None else None
    if query.had_tsig:
        keyring = {} if key is None else {dns.name.from_text(key.name): key.for_dnspython()}
        try:
            query = dns.message.from_wire(message, keyring=keyring)
        except dns.message.UnknownTSIGKey:
            return NotifyOutcome(_refuse_signature(query, dns.rcode.BADKEY), None)
        except dns.tsig.BadTime:
            return NotifyOutcome(_refuse_signature(query, dns.rcode.BADTIME), None)
        except _UNREADABLE:
            return NotifyOutcome(_refuse_signature(query, dns.rcode.BADSIG), None)
    reply = dns.message.make_response(query)
    if found is None:
        reply.set_rcode(dns.rcode.NOTAUTH)
        return NotifyOutcome(reply.to_wire(), None)
    name, terms = found
    if not query.had_tsig and not _is_primary(source, terms):
        reply.set_rcode(dns.rcode.REFUSED)
        return NotifyOutcome(reply.to_wire(), None)
    reply.flags |= dns.flags.AA
    return NotifyOutcome(reply.to_wire(), name)


def _is_primary(source: str, terms: TransferTerms) -> bool:
    return _plain_address(source) in {_plain_address(host) for host, _ in terms.primaries}


def _plain_address(text: str) -> str:
    """The address itself: without a zone index, and as IPv4 where a socket for both families shows it mapped."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _header_reply(message: bytes, rcode: dns.rcode.Rcode) -> bytes | None:
    """A reply of a header alone, to what has at least the header of a NOTIFY."""
    if len(message) < 12 or message[2] & 0xF8 != dns.opcode.NOTIFY << 3:
        return None
    return message[:2] + bytes([dns.opcode.NOTIFY << 3 | 0x80, rcode]) + bytes(8)


def _refuse_signature(query: dns.message.Message, error: dns.rcode.Rcode) -> bytes:
    """NOTAUTH with an unsigned TSIG that says why (RFC 8945 §5.2)."""
    reply = dns.message.make_response(query)
    reply.set_rcode(dns.rcode.NOTAUTH)
    assert query.tsig is not None
    tsig = query.tsig[0].replace(mac=b"", error=error, original_id=query.id)
    reply.tsig = dns.rrset.from_rdata(query.tsig.name, 0, tsig)
    return reply.to_wire()
