"""RFC 8914, Extended DNS errors: why an answer is what it is."""

import dns.edns
import dns.message
import pytest

from resolver.policy.documents import Action, Basis
from resolver.policy.generation import View
from resolver.policy.judge import judge_query
from resolver.wire.codes import Ede, Rcode
from resolver.wire.compose import error_answer, write_reply
from resolver.wire.message import ExtendedError, read_query
from tests.support.build import Ban, opt, policy, query, wire


def errors_of(written: bytes) -> list[tuple[int, str]]:
    """INFO-CODE and EXTRA-TEXT of each option, in dnspython's reading."""
    options = dns.message.from_wire(written).options
    return [(o.code, o.text or "") for o in options if isinstance(o, dns.edns.EDEOption)]


@pytest.mark.parametrize(
    ("basis", "action", "code"),
    [
        (Basis.OWN_POLICY, Action.NXDOMAIN, Ede.BLOCKED),
        (Basis.OUTSIDE_AUTHORITY, Action.NXDOMAIN, Ede.CENSORED),
        (Basis.OUTSIDE_AUTHORITY, Action.SINKHOLE, Ede.FORGED_ANSWER),
    ],
)
def test_the_code_says_on_whose_word(basis: Basis, action: Action, code: Ede) -> None:
    """RFC 8914 §4.16, §4.17, §4.5: Blocked by the operator's policy, Censored on outside demand, Forged Answer."""
    ban = Ban("ban", ("suffix chat.example",), action=action, basis=basis)
    verdict = judge_query(wire("chat.example"), View(policy(ban), 0, 0.0))
    assert verdict is not None
    answer = error_answer(Rcode.NXDOMAIN, ExtendedError(int(verdict.ede), verdict.extra_text))
    written = write_reply(read_query(query("chat.example", additional=(opt(),))), answer, over_udp=True)

    assert errors_of(written) == [(code, "order ban, app app-ban")]


@pytest.mark.parametrize("code", Ede)
def test_each_code_has_the_number_of_the_registry(code: Ede) -> None:
    """RFC 8914 §5.2: INFO-CODEs are those that IANA registers."""
    assert dns.edns.EDECode[code.name] == code


def test_the_option_is_a_code_and_text_in_utf8() -> None:
    """RFC 8914 §2: OPTION-CODE 15, two octets INFO-CODE, EXTRA-TEXT in UTF-8 that need not be null-terminated."""
    asked = read_query(query(additional=(opt(),)))
    written = write_reply(asked, error_answer(Rcode.REFUSED, ExtendedError(18, "défendu")), over_udp=True)

    assert written.endswith(b"\0\x0f\0\x0a\0\x12d\xc3\xa9fendu")


def test_several_errors_come_in_several_options() -> None:
    """RFC 8914 §2: an OPT may hold more than one of them, each for an error of its own."""
    asked = read_query(query(additional=(opt(),)))
    errors = [ExtendedError(22, "one"), ExtendedError(23)]

    assert errors_of(write_reply(asked, error_answer(2, *errors), over_udp=True)) == [(22, "one"), (23, "")]


@pytest.mark.parametrize("rcode", [Rcode.NOERROR, Rcode.SERVFAIL, Rcode.NXDOMAIN, Rcode.REFUSED])
def test_any_rcode_may_have_one(rcode: Rcode) -> None:
    """RFC 8914 §3: the option may be in any response, whatever its RCODE, to a query that had an OPT."""
    answer = error_answer(rcode, ExtendedError(0, "why"))

    assert errors_of(write_reply(read_query(query(additional=(opt(),))), answer, over_udp=True)) == [(0, "why")]
    assert errors_of(write_reply(read_query(query()), answer, over_udp=True)) == []
