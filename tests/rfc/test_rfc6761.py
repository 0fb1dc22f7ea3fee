"""RFC 6761, Special-use domain names, with its registry: names that are answered here and never forwarded."""

import dns.message
import pytest

from resolver.engine.special import SpecialNames
from resolver.wire.codes import Rcode, Rtype
from resolver.wire.compose import write_reply
from resolver.wire.message import Answer, read_query
from resolver.wire.name import from_text
from tests.support.build import query

SPECIAL = SpecialNames((), "node", "1", str)


def said(name: str, rtype: int = Rtype.A, special: SpecialNames = SPECIAL) -> dns.message.Message | None:
    """What is answered here, in dnspython's reading; None where the question is forwarded."""
    asked = read_query(query(name, rtype))
    answer: Answer | None = special.answer(asked)
    return None if answer is None else dns.message.from_wire(write_reply(asked, answer, over_udp=True))


def texts(found: dns.message.Message | None) -> list[str]:
    """The RDATA of the answer section."""
    assert found is not None
    return sorted(rdata.to_text() for rrset in found.answer for rdata in rrset)


@pytest.mark.parametrize("name", ["invalid", "www.invalid", "test", "a.b.TEST"])
@pytest.mark.parametrize("rtype", [Rtype.A, Rtype.AAAA, Rtype.NS, Rtype.HTTPS, Rtype.ANY])
def test_invalid_and_test_do_not_exist(name: str, rtype: int) -> None:
    """RFC 6761 §6.4 and §6.2: caching servers recognise them and answer at once that there is no such name."""
    found = said(name, rtype)

    assert found is not None
    assert (found.rcode(), found.answer) == (Rcode.NXDOMAIN, [])


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "a.localhost"])
@pytest.mark.parametrize(("rtype", "address"), [(Rtype.A, "127.0.0.1"), (Rtype.AAAA, "::1")])
def test_localhost_is_the_loopback_address(name: str, rtype: int, address: str) -> None:
    """RFC 6761 §6.3: address queries for localhost and below get the loopback address at once."""
    assert texts(said(name, rtype)) == [address]


@pytest.mark.parametrize("rtype", [Rtype.TXT, Rtype.MX, Rtype.HTTPS, Rtype.SRV])
def test_localhost_holds_nothing_else(rtype: int) -> None:
    """RFC 6761 §6.3: queries of other types for localhost get a negative answer at once."""
    found = said("a.localhost", rtype)

    assert found is not None
    assert (found.rcode(), found.answer) == (Rcode.NOERROR, [])


@pytest.mark.parametrize(
    "name",
    [
        "10.in-addr.arpa",
        "1.2.3.10.in-addr.arpa",
        "16.172.in-addr.arpa",
        "1.31.172.in-addr.arpa",
        "1.168.192.in-addr.arpa",
    ],
)
def test_reverse_names_of_private_addresses_stay_here(name: str) -> None:
    """RFC 6761 §6.1: caching servers know the reverse names of private addresses and keep them."""
    assert said(name, Rtype.PTR) is not None


@pytest.mark.parametrize(
    "name", ["15.172.in-addr.arpa", "32.172.in-addr.arpa", "11.in-addr.arpa", "1.169.192.in-addr.arpa"]
)
def test_reverse_names_of_other_addresses_are_forwarded(name: str) -> None:
    """RFC 6761 §6.1 lists the private networks; their neighbours are none of them."""
    assert said(name, Rtype.PTR) is None


@pytest.mark.parametrize("name", ["www.example", "example.com", "www.example.net", "example.org"])
def test_example_names_are_not_special_to_a_cache(name: str) -> None:
    """RFC 6761 §6.5: caching servers resolve example names as usual."""
    assert said(name) is None


@pytest.mark.parametrize("name", ["xtest", "test.example.org", "notlocalhost", "localhost.example.org", "invalid.org"])
def test_names_that_only_look_special_are_forwarded(name: str) -> None:
    """RFC 6761 §6: each reservation is a name and what lies below it, no more."""
    assert said(name) is None


def test_a_site_may_take_a_name_back() -> None:
    """RFC 6761 §6.1: a site with reverse zones of its own has them resolved."""
    special = SpecialNames((from_text("10.in-addr.arpa"),), "node", "1", str)

    assert said("1.10.in-addr.arpa", Rtype.PTR, special) is None
    assert said("1.168.192.in-addr.arpa", Rtype.PTR, special) is not None
