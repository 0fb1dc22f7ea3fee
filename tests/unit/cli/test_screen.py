"""What people see of an explanation."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from resolver.cli.screen import show_explanation
from resolver.policy.documents import Action, Confidence, Mode, Purpose
from resolver.policy.reply import Reply
from resolver.policy.steps import (
    AnswerStep,
    ClientStep,
    ExemptionStep,
    Explanation,
    Holder,
    IdleEntry,
    OrderStep,
    Outcome,
    PolicyStep,
    Reason,
    RuleStep,
    Standing,
)
from resolver.policy.zone import Trigger

SINCE, UNTIL = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
OWN = RuleStep(
    "chat.example", "suffix", "", "rule:portal", Mode.ENFORCE, Action.PASSTHRU, holder=Holder.RULE, owner="J. Doe",
    reason="the tax portal needs it.", until=UNTIL,
)  # fmt: skip
BANNED = RuleStep(
    "chat.example", "suffix", "chat", "ban", Mode.OBSERVE, Action.NXDOMAIN, Purpose.CORE, Confidence.HIGH,
    exemption="lab", attribution="embedded by news sites",
)  # fmt: skip
LISTED = RuleStep(
    "example", "below", "", "list:ads", Mode.ENFORCE, Action.LOCAL_DATA, holder=Holder.LIST,
    source="https://lists.example/ads", fetched=SINCE, records=("A 192.0.2.7",),
)  # fmt: skip
ADDRESSED = RuleStep(
    "192.0.2.64/26", "", "", "zone:rpz.example", Mode.ENFORCE, Action.TCP_ONLY, holder=Holder.ZONE,
    trigger=Trigger.RESPONSE_IP, source="192.0.2.53:53", reached="www.chat.example",
)  # fmt: skip
EXPLAINED = Explanation(
    name="www.chat.example", qtype="A", at=SINCE, digest="0123456789abcdef",
    policy=PolicyStep("0123456789abcdef", True, 7, SINCE, UNTIL, "reload by uid 1000 (alice)"),
    client=ClientStep(
        "192.0.2.9", True, "192.0.2.0/24", "phones", "192.0.2.0/25",
        (ExemptionStep(
            "lab", Standing.IN_FORCE, "group phones", ("ban",), (), "other", "a study", "CIO", SINCE, UNTIL
        ),),
    ),
    orders=(OrderStep(
        "ban", "A ban", Standing.IN_FORCE, Mode.ENFORCE, Action.NXDOMAIN, ("phones",), SINCE, None, SINCE, None
    ),),
    rules=(OWN, BANNED, LISTED), why="the operator's own rule goes before every order, list and zone",
    idle=(IdleEntry("chat.example", "exact", "", "list:ads", Reason.EXACT, "chat.example is listed alone"),),
    answer=None, outcome=Outcome.FORWARDED, reply=None, recorded=True,
)  # fmt: skip
WAITS = replace(
    EXPLAINED, policy=PolicyStep("0123456789abcdef", note="the documents as they are today, by --current"),
    client=replace(EXPLAINED.client, exemptions=()), orders=(), rules=(LISTED,), why="no other rule covers the name",
    idle=(), answer=AnswerStep(True, ("rule:portal", "zone:rpz.example"), ("zone:ns.example",), True),
    outcome=Outcome.AWAITS_ANSWER,
    reply=Reply("NOERROR", 4, "Forged Answer", "list:ads", (), 5, ("A 192.0.2.7",), soa="rpz.example"),
)  # fmt: skip
JUDGED = replace(
    WAITS, policy=PolicyStep("0123456789abcdef"), answer=AnswerStep(True, (), (), False, True, ADDRESSED),
    outcome=Outcome.WITHHELD, reply=Reply("NOERROR", 15, "Blocked", "zone:rpz.example", (), None, truncated=True),
)  # fmt: skip

GOLDEN = {
    "own rule": (EXPLAINED, """\
question     www.chat.example A, asked at 2030-01-01 00:00:00 UTC
policy       generation 7 (0123456789ab), in force from 2030-01-01 00:00:00 UTC until 2031-01-01 00:00:00 UTC, made by \
reload by uid 1000 (alice)
client       192.0.2.9 is allowed (by 192.0.2.0/24)
group        phones (by 192.0.2.0/25)
exemptions   lab (by group phones): all of ban, until 2031-01-01T00:00:00+00:00; granted by CIO \
(other: a study)
orders       ban: in force since 2030-01-01T00:00:00+00:00 (enforce, nxdomain, for phones)
rules        suffix chat.example: own rule:portal, enforce passthru  <- decides; owner: J. Doe; reason: the tax portal \
needs it; until: 2031-01-01T00:00:00+00:00
             suffix chat.example: app chat (core, confidence high), order ban, nxdomain, but the client is exempt by \
lab; attribution: embedded by news sites
             below example: list:ads, enforce local-data; gives: A 192.0.2.7; source: https://lists.example/ads; \
fetched: 2030-01-01 00:00:00 UTC
why          the operator's own rule goes before every order, list and zone
passed over  exact chat.example: chat.example is listed alone
answer       allowed: an upstream is asked, or the cache
             recorded as a hit
             whatever the answer leads to passes with it
"""),
    "waits": (WAITS, """\
question     www.chat.example A, asked at 2030-01-01 00:00:00 UTC
policy       the documents as they are today, by --current
client       192.0.2.9 is allowed (by 192.0.2.0/24)
group        phones (by 192.0.2.0/25)
orders       none is configured
rules        below example: list:ads, enforce local-data  <- decides; gives: A 192.0.2.7; source: \
https://lists.example/ads; fetched: 2030-01-01 00:00:00 UTC
why          no other rule covers the name
passed over  no other entry covers the name
answer       answered in the upstream's place once its answer is known, unless what goes before decides on that: \
NOERROR, A 192.0.2.7, TTL 5 s, SOA of rpz.example, EDE 4 Forged Answer (RFC 8914 §4.5), "list:ads"
             recorded as a hit
             its answer is judged again: one that leads to a listed name (CNAME, DNAME, HTTPS, SVCB) is withheld
             its addresses are judged by rule:portal, zone:rpz.example
             the name servers behind it are judged by zone:ns.example
             ECH keys are taken out of it
"""),
    "by its answer": (JUDGED, """\
question     www.chat.example A, asked at 2030-01-01 00:00:00 UTC
client       192.0.2.9 is allowed (by 192.0.2.0/24)
group        phones (by 192.0.2.0/25)
orders       none is configured
rules        below example: list:ads, enforce local-data; gives: A 192.0.2.7; source: https://lists.example/ads; \
fetched: 2030-01-01 00:00:00 UTC
passed over  no other entry covers the name
its answer   ip 192.0.2.64/26: zone:rpz.example, enforce tcp-only  <- decides; met at: www.chat.example; \
source: 192.0.2.53:53
answer       sent over to TCP: NOERROR, truncated, EDE 15 Blocked (RFC 8914 §4.16), "zone:rpz.example"
             recorded as a hit
             over TCP the client gets what an upstream says
"""),
}  # fmt: skip


@pytest.mark.parametrize("case", GOLDEN)
def test_an_explanation_is_read_from_top_to_bottom(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The steps in their order, each on its line; what decides is marked once."""
    explanation, text = GOLDEN[case]

    show_explanation(explanation)

    assert capsys.readouterr().out == text
