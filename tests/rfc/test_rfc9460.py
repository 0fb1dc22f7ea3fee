"""RFC 9460: SVCB and HTTPS records lead to names and addresses, which policy judges as it judges any others."""

import dns.message
import dns.rcode
import pytest

from tests.support.clock import run
from tests.support.house import BAN, generation, house, rpz
from tests.support.upstream import FakeExchange, records

ZONE = rpz("24.0.100.51.198.rpz-ip CNAME .\n48.zz.bad.db8.2001.rpz-ip CNAME .\n")


@pytest.mark.parametrize("rtype", ["HTTPS", "SVCB"])
@pytest.mark.parametrize(
    ("rdata", "rcode"),
    [
        ("0 im.chat.example.", "NXDOMAIN"),  # §2.4.2
        ("1 im.chat.example. alpn=h2", "NXDOMAIN"),  # §2.4.3
        ("1 . alpn=h2", "NOERROR"),  # §2.5.2: the owner itself
        ("0 .", "NOERROR"),  # §2.5.1: no service
        ("1 . ipv4hint=192.0.2.1,198.51.100.1", "NXDOMAIN"),  # §7.3
        ("1 . ipv6hint=2001:db8:bad::1", "NXDOMAIN"),
        ("1 . ipv4hint=192.0.2.1 ipv6hint=2001:db8::1", "NOERROR"),
        ("1 . mandatory=ipv4hint ipv4hint=198.51.100.1", "NXDOMAIN"),  # §8
    ],
)
def test_what_a_record_leads_to_is_judged(rtype: str, rdata: str, rcode: str) -> None:
    """§2.4: the TargetName in AliasMode and in ServiceMode; §7.3: address hints."""
    exchange = FakeExchange(records({f"www.example.org {rtype}": [f"www.example.org 60 IN {rtype} {rdata}"]}))
    built = house(exchange, policy=generation(BAN, zones=[ZONE]))

    async def story() -> list[dns.message.Message]:
        return [await built.ask("www.example.org", rtype) for _ in range(2)]

    assert [dns.rcode.to_text(message.rcode()) for message in run(built.clock, story())] == [rcode, rcode]


@pytest.mark.parametrize(
    ("rdata", "given"),
    [
        ("1 . alpn=h2 ech=AAT+DQAA", '1 . alpn="h2"'),
        ("1 . mandatory=ech alpn=h2 ech=AAT+DQAA", '1 . alpn="h2"'),
        ("1 . mandatory=alpn,ech alpn=h2 ech=AAT+DQAA", '1 . mandatory="alpn" alpn="h2"'),
        ("0 svc.example.net.", "0 svc.example.net."),
    ],
)
def test_a_record_without_its_ech_key_is_still_well_formed(rdata: str, given: str) -> None:
    """§8: a key that is mandatory and missing would make the record void."""
    exchange = FakeExchange(records({"www.example.org HTTPS": [f"www.example.org 60 IN HTTPS {rdata}"]}))
    built = house(exchange, policy=generation(BAN, strip_ech=["everyone"]))

    message = run(built.clock, built.ask("www.example.org", "HTTPS"))

    assert [record.to_text() for rrset in message.answer for record in rrset] == [given]
