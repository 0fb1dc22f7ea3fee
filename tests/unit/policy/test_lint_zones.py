"""What is surely not meant about policy zones."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network

import pytest

from resolver.policy.additions import Documents, Exemption
from resolver.policy.compile import AppliedZone, Enforcement, PolicySettings, compile_generation
from resolver.policy.documents import Action, Mode
from resolver.policy.findings import Code, Finding, Kind, Severity
from resolver.policy.generation import Generation
from resolver.policy.lint_zones import Supply, lint_zones
from resolver.policy.terms import FOREVER, GroupEntry, ZoneKind
from resolver.policy.zone import PolicyZone, Reach, Rule, Trigger
from resolver.wire import name as names
from tests.support.house import Held, app

AT = 1_900_000_000.0
HOUR = 3600.0
BAN = Held([app("chat", "chat.example", "=only.example")], "ban", ("phones", "desks"), effective=AT - HOUR)
DROP = Rule(Action.DROP)


def zone(
    id_: str,
    *listed: str,
    rule: Rule = DROP,
    groups: tuple[str, ...] = (),
    mode: Mode = Mode.ENFORCE,
    passes: Sequence[str] = (),
    client: str = "",
    override: Rule | None = None,
) -> AppliedZone:
    """A zone of some names: `=name` for that alone, `*.name` for what is below, else both."""
    held = PolicyZone()
    for number, texts in ((held.number_of(rule), listed), (held.number_of(Rule(Action.PASSTHRU)), passes)):
        for text in texts:
            reach = {"=": Reach.EXACT, "*": Reach.BELOW}.get(text[0], Reach.SUFFIX)
            held.hold(names.from_text(text.lstrip("=*.")), reach, number)
    if not passes:
        held.rules.pop()
    if client:
        held.hold_network(ip_network(client), 0, Trigger.CLIENT_IP)
    kind = ZoneKind.LIST if id_.startswith(("list:", "way-round:")) else ZoneKind.RPZ
    return AppliedZone(id_, kind, held, groups, mode, override)


def look(
    *zones: AppliedZone,
    orders: Sequence[Held] = (BAN,),
    until: float = FOREVER,
    allowed: Sequence[str] = ("192.0.2.0/25", "192.0.2.128/25"),
    exemptions: Sequence[Exemption] = (),
) -> list[Finding]:
    """What is odd about zones beside an order for everybody."""
    documents = Documents(
        {app.id: app for order in orders for app in order.apps},
        {order.id: order.document() for order in orders},
        {one.id: one for one in exemptions},
    )
    settings = PolicySettings(
        allowed_networks=tuple(allowed),
        groups=(GroupEntry("phones", ("192.0.2.0/25",)), GroupEntry("desks", ("192.0.2.128/25",))),
        enforcements=tuple(Enforcement(o.id, tuple(o.groups), o.mode, o.action, until=until) for o in orders),
        block_ttl=30,
    )
    octets, _ = compile_generation(documents, settings, serial=1, at=AT, zones=zones)
    return list(lint_zones(Generation(memoryview(bytearray(octets))), (), AT))


def told(findings: Sequence[Finding]) -> list[tuple[Severity, str, Code]]:
    """What programs look at."""
    return [(one.severity, one.where.id, one.code) for one in findings]


# ---- what never acts ------------------------------------------------------------------------------------------------

WHOLE = [(Severity.WARNING, "late", Code.SHADOWED)]
PART = [(Severity.NOTE, "late", Code.SHADOWED)]


@pytest.mark.parametrize(
    ("zones", "expected"),
    [
        # By an order, at the name, below its suffix, exactly.
        ([zone("list:late", "chat.example", "im.chat.example", "=only.example")], WHOLE),
        ([zone("zone:late", "*.chat.example", "=chat.example")], WHOLE),
        ([zone("list:late", "chat.example", "ads.example")], PART),
        ([zone("list:late", "only.example")], []),
        ([zone("list:late", "notchat.example", "=below.only.example")], []),
        # By an earlier zone, of either kind.
        ([zone("list:early", "ads.example"), zone("zone:late", "a.ads.example")], WHOLE),
        ([zone("zone:early", "*.ads.example"), zone("zone:late", "*.ads.example", "=a.ads.example")], WHOLE),
        ([zone("zone:early", "*.ads.example"), zone("list:late", "ads.example")], []),
        ([zone("zone:early", passes=["ads.example"]), zone("list:late", "ads.example")], WHOLE),
        # Not by a list with exceptions, a rule for some types only, an order or zone for others, one on trial.
        ([zone("list:early", "ads.example", passes=["=a.ads.example"]), zone("list:late", "=a.ads.example")], []),
        ([zone("list:early", "b.example", rule=Rule(Action.DROP, qtypes=(1,))), zone("list:late", "b.example")], []),
        ([zone("list:early", "a.b.example", groups=("phones",)), zone("list:late", "a.b.example")], []),
        ([zone("list:early", "a.b.example", groups=("phones",)),
          zone("list:late", "a.b.example", groups=("phones",))], WHOLE),
        ([zone("list:early", "a.b.example"), zone("list:late", "a.b.example", groups=("phones",))], WHOLE),
        # What the configuration has a list do in place of its own rules is what counts.
        ([zone("list:early", "ads.example", override=Rule(Action.PASSTHRU)), zone("list:late", "ads.example")], []),
        # A zone that decides on every client ends everything.
        ([zone("zone:early", client="192.0.2.0/24"), zone("list:late", "x.example")], WHOLE),
        ([zone("zone:early", client="192.0.2.0/25"), zone("list:late", "x.example")], []),
    ],
)  # fmt: skip
def test_rules_that_are_always_decided_on_before_are_told(
    zones: list[AppliedZone], expected: list[tuple[Severity, str, Code]]
) -> None:
    """A warning where a whole zone never acts, a note with a count and an example where some names do not."""
    assert told(look(*zones)) == expected


def test_who_decides_before_is_named() -> None:
    """With the count of names, and one of them."""
    (found,) = look(zone("list:late", "im.chat.example", "ads.example"))

    assert found.message == (
        "1 of its 2 names never act, such as im.chat.example: they are decided on before it, by ban (1)"
    )


def test_an_order_that_ends_or_spares_somebody_leaves_something_to_decide() -> None:
    """Nor does one for some groups shadow a zone for all, where some clients are in no group."""
    late = zone("list:late", "chat.example")
    spared = Exemption.model_validate({
        "id": "lab", "devices": ["192.0.2.17"], "apps": ["chat"], "reason": "law-enforcement", "grantor": "CIO",
        "granted": "2029-01-01T00:00:00Z", "expires": "2031-01-01T00:00:00Z",
    })  # fmt: skip

    assert look(late, until=AT + HOUR) == []
    assert look(late, orders=[replace(BAN, expires=AT + HOUR)]) == []
    assert look(late, exemptions=[spared]) == []
    assert look(late, allowed=["192.0.2.0/24"]) == []
    assert told(look(late)) == WHOLE


def test_a_zone_on_trial_is_a_note() -> None:
    """It shadows nothing, and nothing shadows it."""
    found = look(zone("list:trial", "chat.example", "ads.example", mode=Mode.OBSERVE), zone("list:late", "ads.example"))

    assert told(found) == [(Severity.NOTE, "trial", Code.OBSERVED)]


# ---- what strangers share -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "named"),
    [
        (["co.uk"], "co.uk"),
        (["*.zip"], "zip"),
        (["akamaized.net", "github.io", "x.example"], "akamaized.net, github.io"),
        (["whatever.ck"], "whatever.ck"),
        (["=co.uk", "www.ck", "x.cloudfront.net"], None),
    ],
)
def test_a_zones_rules_on_public_suffixes_are_a_warning(listed: list[str], named: str | None) -> None:
    """Whoever keeps the list is to be told; a name alone hits nobody else."""
    found = look(zone("list:wide", *listed))

    assert told(found) == ([] if named is None else [(Severity.WARNING, "wide", Code.PUBLIC_SUFFIX)])
    assert named is None or f"on all below {named}, where" in found[0].message


def test_the_products_own_lists_are_told_elsewhere() -> None:
    """A way round is a document: its mistakes are errors, told at its file."""
    assert look(zone("way-round:doh", "co.uk")) == []


# ---- how they came here ---------------------------------------------------------------------------------------------

GOOD = {"refresh": HOUR, "fetched_at": AT - 9 * HOUR, "checked_at": AT - HOUR}


@pytest.mark.parametrize(
    ("state", "severity", "code", "says"),
    [
        (GOOD, None, None, ""),
        ({"fetched_at": AT - 9999 * HOUR}, None, None, ""),
        ({"error": "it was not fetched yet"}, Severity.WARNING, Code.NOT_FETCHED, "holds nothing (it was not fetched"),
        (
            GOOD | {"failures": 4, "error": "404"}, Severity.WARNING, Code.FAILING,
            "4 times in a row https://example.org/l could not be used: 404; what came 2030-03-17 08:46 UTC stays",
        ),
        (GOOD | {"failures": 1, "error": "404"}, Severity.WARNING, Code.FAILING, "at the last try"),
        (GOOD | {"checked_at": AT - 4 * HOUR}, Severity.WARNING, Code.STALE, "was last asked for 4 hours ago"),
        (GOOD | {"checked_at": AT - 2.9 * HOUR}, None, None, ""),
        (GOOD | {"refused": 3}, Severity.NOTE, Code.REFUSED_LINES, "3 entries are not taken"),
        (GOOD | {"entries": 0}, Severity.WARNING, Code.NO_NAMES, "has no entry that can be taken"),
    ],
)  # fmt: skip
def test_a_copy_that_is_missing_old_or_bad_is_told(
    state: dict[str, object], severity: Severity | None, code: Code | None, says: str
) -> None:
    """Not there yet, failing, three refreshes late, lines that were not taken, empty; a local file is never late."""
    settings = PolicySettings(allowed_networks=(), groups=(), enforcements=(), block_ttl=30)
    octets, _ = compile_generation(Documents({}, {}), settings, serial=1, at=AT)
    known: dict[str, object] = {"id": "list:ads", "entries": 9, "refused": 0, "source": "https://example.org/l"}
    supply = Supply(**(known | state))  # type: ignore[arg-type]

    found = list(lint_zones(Generation(memoryview(bytearray(octets))), (supply,), AT))

    assert told(found) == ([] if code is None else [(severity, "ads", code)])
    assert not found or (says in found[0].message and found[0].where.kind is Kind.ZONE)
