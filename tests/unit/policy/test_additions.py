"""Exemptions, own rules and ways round: what makes sense in them, and what does not and where."""

from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.additions import (
    WIDEST_DEVICE,
    Exemption,
    ExemptionReason,
    LocalRule,
    LocalVerdict,
    WayRound,
    parse_network,
)
from resolver.policy.documents import ORDER_ACTIONS, Action, Match
from resolver.policy.source import PolicyError, read
from resolver.wire import name as names

PROPERTY = settings(deadline=None)

EXEMPTION = {
    "id": "lab",
    "devices": "[192.0.2.17]",
    "orders": "[xx-2030]",
    "reason": "law-enforcement",
    "grantor": "Chief Information Officer",
    "granted": "2030-01-15T09:00:00-05:00",
    "expires": "2030-07-15T09:00:00-04:00",
}
RULE = {
    "id": "fonts",
    "verdict": "allow",
    "names": "[cdn.example.org]",
    "owner": "service desk",
    "reason": "the tax portal loads its fonts from there",
    "until": "2030-12-31T00:00:00-05:00",
}
WAY = {
    "id": "canary",
    "title": "A canary",
    "effect": "The browser stays with the resolver",
    "version": "2030-01-01",
    "action": "nxdomain",
    "names": "[{name: canary.example.net, match: exact, sources: [EX]}]",
}
Model = type[Exemption] | type[LocalRule] | type[WayRound]
Changes = Mapping[str, str | None]


def text_of(facts: Mapping[str, str], changes: Changes) -> str:
    """The document with some lines changed, added, or (None) left out."""
    lines = {**facts, **changes}
    return "".join(f"{key}: {written}\n" for key, written in lines.items() if written is not None)


def problems(facts: Mapping[str, str], model: Model, changes: Changes) -> list[tuple[str, str]]:
    """(the line that is wrong, what is said) of every problem; a problem of the whole stands at the first line."""
    text = text_of(facts, changes)
    try:
        read(text, "x.yaml", model)
    except PolicyError as error:
        return [(text.splitlines()[one.line - 1].partition(":")[0], one.message) for one in error.problems]
    return []


def exemption(**changes: str | None) -> Exemption:
    """An exemption with some lines changed."""
    return read(text_of(EXEMPTION, changes), "x.yaml", Exemption)


def rule(**changes: str | None) -> LocalRule:
    """A rule with some lines changed."""
    return read(text_of(RULE, changes), "x.yaml", LocalRule)


def test_an_exemption_says_whom_what_why_and_until_when() -> None:
    """As it is written."""
    found = exemption(groups="[crime-lab]", apps="[tiktok]", reason="other", explanation="an accessibility study")

    assert (found.groups, found.devices) == (("crime-lab",), (ip_network("192.0.2.17/32"),))
    assert (found.orders, found.apps, found.reason) == (("xx-2030",), ("tiktok",), ExemptionReason.OTHER)
    assert found.lasts() == timedelta(days=181) - timedelta(hours=1)
    assert {reason.value for reason in ExemptionReason} == {
        "law-enforcement", "national-security", "security-research", "other",
    }  # fmt: skip


def test_a_rule_says_what_it_allows_or_blocks_for_whom_and_until_when() -> None:
    """With all below a name unless it says otherwise, for everybody unless it says for whom."""
    found = rule()
    assert (found.verdict, found.match, found.groups, found.since) == (LocalVerdict.ALLOW, Match.SUFFIX, (), None)

    found = rule(
        verdict="block", names=None, addresses="[192.0.2.0/24, '2001:db8::1']", match="exact", groups="[phones]"
    )
    assert (found.action, found.match) == (Action.NXDOMAIN, Match.EXACT)
    assert found.addresses == (ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128"))


def test_a_way_round_holds_names_and_addresses() -> None:
    """Names with their reach, in wire form where they are wanted so."""
    found = read(text_of(WAY, {"addresses": "[192.0.2.53]"}), "x.yaml", WayRound)

    assert [(one.wire(), one.match) for one in found.names] == [(names.from_text("canary.example.net"), Match.EXACT)]
    assert (found.addresses, found.default) == ((ip_network("192.0.2.53/32"),), True)


BLANKET = "a blanket exemption is not possible"

BAD_EXEMPTIONS: dict[str, tuple[Changes, str, str]] = {
    "for nobody in particular": ({"devices": None}, "id", f"{BLANKET}; write groups or devices"),
    "for an empty list": ({"devices": "[]"}, "id", f"{BLANKET}; write groups or devices"),
    "for two empty lists": ({"devices": "[]", "groups": "[]"}, "id", f"{BLANKET}; write groups or devices"),
    "from everything": ({"orders": None}, "id", f"{BLANKET}; write the apps, or the orders"),
    "from empty lists": ({"orders": "[]", "apps": "[]"}, "id", f"{BLANKET}; write the apps, or the orders"),
    "for every address": ({"devices": "[0.0.0.0/0]"}, "devices", "0.0.0.0/0 is wider than devices are named by (/24)"),
    "for one half and the other": ({"devices": "[0.0.0.0/1, 128.0.0.0/1]"}, "devices", "wider than devices"),
    "for a /23": ({"devices": "[192.0.2.0/23]"}, "devices", "make a group of them"),
    "for every IPv6 address": ({"devices": "['::/0']"}, "devices", "::/0 is wider than devices are named by (/64)"),
    "for a /63": ({"devices": "['2001:db8::/63']"}, "devices", "make a group of them"),
    "for any group": ({"groups": "['*']"}, "groups", "is not an id"),
    "from any order": ({"orders": "['*']"}, "orders", "is not an id"),
    "for a mistyped address": ({"devices": "[192.0.2]"}, "devices", 'is not a network; write "192.0.2.0/24"'),
    "for a device by number": ({"devices": "[17]"}, "devices", "is not a network"),
    "for an address in a network": ({"devices": "[192.0.2.17/24]"}, "devices", 'write "192.0.2.0/24", or the address'),
    "for no reason": ({"reason": None}, "id", "reason"),
    "for a reason of its own": ({"reason": "convenience"}, "reason", "convenience"),
    "for another reason, unexplained": ({"reason": "other"}, "reason", '"other" is to be explained'),
    "for another reason, explained by nothing": (
        {"reason": "other", "explanation": '"  "'}, "reason", '"other" is to be explained',
    ),
    "granted by nobody": ({"grantor": '""'}, "grantor", "empty"),
    "granted at no time": ({"granted": None}, "id", "granted"),
    "granted on a day": ({"granted": "2030-01-15"}, "granted", "does not say when that day begins"),
    "without an end": ({"expires": None}, "id", "expires"),
    "that ends as it begins": (
        {"expires": "2030-01-15T14:00:00Z"}, "expires",
        "it expires before it is granted; write an instant after 2030-01-15T09:00:00-05:00",
    ),
    "with a key that there is none of": ({"forever": "true"}, "forever", "forever"),
}  # fmt: skip

BAD_RULES: dict[str, tuple[Changes, str, str]] = {
    "on nothing": ({"names": None}, "id", "the rule covers nothing; write names or addresses"),
    "on empty lists": ({"names": "[]", "addresses": "[]"}, "id", "the rule covers nothing"),
    "on a whole top-level domain": ({"names": "[org]"}, "names", "is a whole top-level domain"),
    "on a pattern": ({"names": "['*.example.org']"}, "names", 'write "example.org" with "match: suffix"'),
    "without an end": ({"until": None}, "id", "until"),
    "without an owner": ({"owner": None}, "id", "owner"),
    "without a reason": ({"reason": '" "'}, "reason", "one line of text"),
    "that ends before it begins": (
        {"since": "2031-01-01T00:00:00Z"}, "until", "write an instant after 2031-01-01T00:00:00+00:00",
    ),
    "that allows by an action": ({"action": "drop"}, "action", "an allow has no action; delete this line"),
    "that neither allows nor blocks": ({"verdict": "log"}, "verdict", "log"),
    **{
        f"that blocks by {action.value}": ({"verdict": "block", "action": action.value}, "action", "is unknown here")
        for action in Action
        if action not in ORDER_ACTIONS
    },
}  # fmt: skip

BAD_WAYS: dict[str, tuple[Changes, str, str]] = {
    "of nothing": ({"names": None}, "id", "the list is empty; write names or addresses"),
    "answered with an address": ({"action": "sinkhole"}, "id", "is no answer to a canary; write nxdomain or nodata"),
    "answered with silence": ({"action": "drop"}, "id", "is no answer to a canary"),
    "without a source": ({"names": "[{name: a.example, match: exact, sources: []}]"}, "names", "write at least one"),
}

TABLE = [
    *((EXEMPTION, Exemption, case, *expected) for case, expected in BAD_EXEMPTIONS.items()),
    *((RULE, LocalRule, case, *expected) for case, expected in BAD_RULES.items()),
    *((WAY, WayRound, case, *expected) for case, expected in BAD_WAYS.items()),
]


@pytest.mark.parametrize(("facts", "model", "case", "changes", "line", "message"), TABLE)
def test_what_makes_no_sense_is_refused_at_its_place(
    facts: Mapping[str, str], model: Model, case: str, changes: Changes, line: str, message: str
) -> None:
    """With the mend in the message."""
    found = problems(facts, model, changes)

    assert any(at == line and message in said for at, said in found), found


@pytest.mark.parametrize(("facts", "model"), [(EXEMPTION, Exemption), (RULE, LocalRule), (WAY, WayRound)])
def test_what_the_table_starts_from_is_sound(facts: Mapping[str, str], model: Model) -> None:
    """So that each case of it is refused for its change."""
    assert problems(facts, model, {}) == []


NETWORKS = st.tuples(st.ip_addresses(), st.integers(0, 128)).map(
    lambda pair: ip_network((pair[0], min(pair[1], pair[0].max_prefixlen)), strict=False)
)


@PROPERTY
@given(NETWORKS)
def test_devices_are_named_by_networks_that_are_small_enough(network: object) -> None:
    """At most /24 or /64: whoever means more names a group."""
    held = ip_network(str(network))
    found = problems(EXEMPTION, Exemption, {"devices": f"['{held}']"})

    assert bool(found) is (held.prefixlen < WIDEST_DEVICE[held.version])
    assert parse_network(str(held)) == held


@PROPERTY
@given(st.one_of(st.text(max_size=20), st.none(), st.integers(), st.from_regex(r"[0-9a-f.:/]{1,20}", fullmatch=True)))
def test_any_text_is_a_network_or_is_told_what_to_write(written: object) -> None:
    """ValueError with an example, and nothing else."""
    try:
        found = parse_network(written)
    except ValueError as error:
        said = str(error)
    else:
        said = f"write {found}"
        assert ip_network(str(written)) == found

    assert "write" in said
