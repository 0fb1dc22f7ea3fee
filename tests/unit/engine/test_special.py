"""Names that are answered here: what each says, and that nothing of it goes out."""

import dns.flags
import dns.message
import dns.rcode
import pytest

from resolver.engine.special import SpecialNames
from resolver.wire import name as names
from resolver.wire.compose import write_reply
from resolver.wire.message import read_query
from tests.support.house import ask


def answer(
    name: str, rtype: str = "A", *, rclass: str = "IN", forward: tuple[str, ...] = ()
) -> dns.message.Message | None:
    """What is said here to a question, or None where it is forwarded."""
    forwarded = tuple(names.from_text(text) for text in forward)
    special = SpecialNames(forwarded, "node-1", "Interdict 1", lambda: "generation 1")
    query = read_query(ask(name, rtype, rclass=rclass))
    said = special.answer(query)
    return None if said is None else dns.message.from_wire(write_reply(query, said, over_udp=True))


ADDRESS_ZONES = [
    "10.in-addr.arpa", "16.172.in-addr.arpa", "31.172.in-addr.arpa", "168.192.in-addr.arpa", "254.169.in-addr.arpa",
    "0.in-addr.arpa", "2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa", "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa", "64.100.in-addr.arpa", "127.100.in-addr.arpa", "d.f.ip6.arpa", "8.e.f.ip6.arpa",
    "b.e.f.ip6.arpa", "8.b.d.0.1.0.0.2.ip6.arpa", "home.arpa",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rtype", "rcode", "records"),
    [
        ("localhost", "A", "NOERROR", ["127.0.0.1"]),
        ("localhost", "AAAA", "NOERROR", ["::1"]),
        ("a.b.LocalHost", "A", "NOERROR", ["127.0.0.1"]),
        ("localhost", "MX", "NOERROR", []),
        ("localhost", "HTTPS", "NOERROR", []),
        ("1.0.0.127.in-addr.arpa", "PTR", "NOERROR", ["localhost."]),
        ("2.0.0.127.in-addr.arpa", "PTR", "NXDOMAIN", []),
        ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", "PTR", "NOERROR", ["localhost."]),
        ("test", "A", "NXDOMAIN", []),
        ("a.test", "A", "NXDOMAIN", []),
        ("invalid", "A", "NXDOMAIN", []),
        ("duckduckgo.onion", "A", "NXDOMAIN", []),
        ("a.alt", "A", "NXDOMAIN", []),
        ("printer.local", "A", "NXDOMAIN", []),
        ("ipv4only.arpa", "A", "NOERROR", ["192.0.0.170", "192.0.0.171"]),
        ("ipv4only.arpa", "AAAA", "NOERROR", []),
        ("a.ipv4only.arpa", "A", "NXDOMAIN", []),
        ("170.0.0.192.in-addr.arpa", "PTR", "NOERROR", ["ipv4only.arpa."]),
        ("_dns.resolver.arpa", "SVCB", "NOERROR", []),
        ("resolver.arpa", "A", "NOERROR", []),
        *[(f"1.{zone}", "PTR", "NXDOMAIN", []) for zone in ADDRESS_ZONES],
        *[(zone, "PTR", "NOERROR", []) for zone in ADDRESS_ZONES],
    ],
)
def test_a_special_name_is_answered_here(name: str, rtype: str, rcode: str, records: list[str]) -> None:
    """RFC 6761, RFC 6303, RFC 8880, RFC 9462: the records, or a "no" with the SOA that lets it be cached."""
    message = answer(name, rtype)

    assert message is not None
    assert dns.rcode.to_text(message.rcode()) == rcode
    assert sorted(rr.to_text() for rrset in message.answer for rr in rrset) == records
    if not records:
        (soa,) = message.authority
        assert soa.rdtype == dns.rdatatype.SOA
        assert message.question[0].name.is_subdomain(soa.name)


@pytest.mark.parametrize("zone", ADDRESS_ZONES)
def test_the_apex_of_an_empty_zone_has_soa_and_ns(zone: str) -> None:
    """As RFC 6303 §3 lays them out."""
    for rtype in ("SOA", "NS"):
        message = answer(zone, rtype)
        assert message is not None
        assert [rrset.rdtype for rrset in message.answer] == [dns.rdatatype.from_text(rtype)]


ORDINARY = [
    ".",
    "org",
    "example.org",
    "www.example.org",
    "example",
    "nottest",
    "test.example",
    "localhost.example.org",
    "arpa",
    "in-addr.arpa",
    "9.in-addr.arpa",
    "110.in-addr.arpa",
    "15.172.in-addr.arpa",
    "32.172.in-addr.arpa",
    "63.100.in-addr.arpa",
    "128.100.in-addr.arpa",
    "172.0.0.192.in-addr.arpa",
    "e.f.ip6.arpa",
]


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_is_not_special(name: str) -> None:
    """Neighbours and look-alikes of special names are forwarded."""
    assert answer(name) is None


def test_a_site_may_have_a_special_name_back_with_all_below_it() -> None:
    """`special_use.forward`: for its own reverse zones, or a zone below one."""
    forward = ("168.192.in-addr.arpa", "7.10.in-addr.arpa", "home.arpa")

    assert answer("1.1.168.192.in-addr.arpa", "PTR", forward=forward) is None
    assert answer("1.1.7.10.in-addr.arpa", "PTR", forward=forward) is None
    assert answer("printer.home.arpa", forward=forward) is None
    message = answer("1.1.8.10.in-addr.arpa", "PTR", forward=forward)
    assert message is not None
    assert message.rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize("name", ["example.org", "big.example.org", "org", "."])
def test_any_gets_one_small_record(name: str) -> None:
    """RFC 8482 §4.2: a HINFO whose CPU field names the RFC, and nobody is asked; no amplification."""
    message = answer(name, "ANY")

    assert message is not None
    ((record,),) = message.answer
    assert record.to_text() == '"RFC8482" ""'


@pytest.mark.parametrize(
    ("name", "rtype", "rcode", "texts"),
    [
        ("id.server", "TXT", "NOERROR", ['"node-1"']),
        ("HOSTNAME.bind", "TXT", "NOERROR", ['"node-1"']),
        ("version.server", "TXT", "NOERROR", ['"Interdict 1"']),
        ("version.bind", "ANY", "NOERROR", ['"Interdict 1"']),
        ("Generation.Server", "TXT", "NOERROR", ['"generation 1"']),
        ("generation.server", "A", "NOERROR", []),
        ("id.server", "A", "NOERROR", []),
        ("authors.bind", "TXT", "REFUSED", []),
        ("www.example.org", "TXT", "REFUSED", []),
    ],
)
def test_class_chaos_tells_who_answers_and_nothing_else(name: str, rtype: str, rcode: str, texts: list[str]) -> None:
    """RFC 4892 §2.2 names, in class CHAOS."""
    message = answer(name, rtype, rclass="CH")

    assert message is not None
    assert dns.rcode.to_text(message.rcode()) == rcode
    assert [rr.to_text() for rrset in message.answer for rr in rrset] == texts
    assert all(rrset.rdclass == dns.rdataclass.CH for rrset in message.answer)


@pytest.mark.parametrize(("label", "told"), [("7 (abc)", "7 (abc)"), ("x" * 300, "x" * 255), ("é" * 200, "é" * 127)])
def test_the_generation_is_told_as_it_is_when_asked(label: str, told: str) -> None:
    """In one string, cut where a character ends (RFC 1035 §3.3)."""
    labels = ["before", label]
    special = SpecialNames((), "node-1", "Interdict 1", lambda: labels[-1])
    query = read_query(ask("generation.server", "TXT", rclass="CH"))
    said = special.answer(query)
    assert said is not None

    message = dns.message.from_wire(write_reply(query, said, over_udp=True))

    assert message.answer[0][0].strings == (told.encode(),)


@pytest.mark.parametrize("rclass", ["HS", "ANY", "NONE", "CLASS4711"])
def test_other_classes_are_not_implemented(rclass: str) -> None:
    """There is nobody to forward them to."""
    message = answer("www.example.org", rclass=rclass)

    assert message is not None
    assert message.rcode() == dns.rcode.NOTIMP


def whoami(name: str, rtype: str, *texts: str) -> dns.message.Message:
    """What `whoami` says where this is known of who asks."""
    query = read_query(ask(name, rtype))
    said = SpecialNames((), "node-1", "Interdict 1", str).answer(query, lambda: texts)
    assert said is not None
    return dns.message.from_wire(write_reply(query, said, over_udp=False))


@pytest.mark.parametrize("name", ["whoami.interdict.test", "WhoAmI.Interdict.Test"])
@pytest.mark.parametrize("rtype", ["TXT", "ANY"])
def test_who_asks_is_told_what_is_known_of_him(name: str, rtype: str) -> None:
    """A record for each text, that nobody may keep."""
    message = whoami(name, rtype, "device=phone-7", "group=phones")

    (rrset,) = message.answer
    assert {rr.to_text() for rr in rrset} == {'"device=phone-7"', '"group=phones"'}
    assert rrset.ttl == 0


@pytest.mark.parametrize(
    ("text", "strings"),
    [
        ("", [b""]),
        ("x" * 255, [b"x" * 255]),
        ("x" * 256, [b"x" * 255, b"x"]),
        ("x" * 600, [b"x" * 255, b"x" * 255, b"x" * 90]),
        ("\udc80", [b"\\udc80"]),
    ],
)
def test_a_long_text_takes_several_strings(text: str, strings: list[bytes]) -> None:
    """255 octets each (RFC 1035 §3.3)."""
    ((record,),) = whoami("whoami.interdict.test", "TXT", text).answer

    assert list(record.strings) == strings


@pytest.mark.parametrize(
    ("name", "rtype", "rcode"),
    [
        ("whoami.interdict.test", "A", "NOERROR"),
        ("whoami.interdict.test", "HTTPS", "NOERROR"),
        ("interdict.test", "TXT", "NOERROR"),
        ("a.whoami.interdict.test", "TXT", "NXDOMAIN"),
        ("other.interdict.test", "TXT", "NXDOMAIN"),
    ],
)
def test_nothing_else_is_told_around_it(name: str, rtype: str, rcode: str) -> None:
    """Another type has no data, another name does not exist; nobody is asked."""
    message = whoami(name, rtype, "device=phone-7")

    assert dns.rcode.to_text(message.rcode()) == rcode
    assert not message.answer
    assert [rrset.rdtype for rrset in message.authority] == [dns.rdatatype.SOA]


def test_of_a_client_of_whom_nothing_is_known_there_are_no_records() -> None:
    """And that is not to be kept either."""
    message = whoami("whoami.interdict.test", "TXT")

    assert not message.answer
    assert [rrset.ttl for rrset in message.authority] == [0]


def test_only_whoami_asks_what_is_known() -> None:
    """Other questions do not pay for it."""
    special = SpecialNames((), "node-1", "Interdict 1", str)
    asked: list[str] = []

    def known() -> tuple[str, ...]:
        asked.append("")
        return ()

    for name, rtype in (("test", "TXT"), ("localhost", "A"), ("whoami.interdict.test", "A"), ("example.org", "TXT")):
        special.answer(read_query(ask(name, rtype)), known)

    assert asked == []
