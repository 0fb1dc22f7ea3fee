"""An extract in other words: read back by tiny readers of each format, it withholds and lets through what is withheld
and let through here."""

import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.additions import LocalRule
from resolver.policy.documents import ORDER_ACTIONS, Action, Mode
from resolver.policy.export_formats import Format, Written, write
from resolver.policy.judge import judge_query
from resolver.wire.name import from_text, to_text
from tests.support.clock import START_AT
from tests.support.extracts import A_V4, allow, block, taken
from tests.support.house import Held, app

PROPERTY = settings(deadline=None, max_examples=40)
Reader = Callable[[str], Action | None]
"""What the file says of a name."""


def exported(form: Format, *orders: Held, rules: Sequence[LocalRule] = ()) -> str:
    return write(taken(*orders, rules=rules)[0], form, "1.2").text


def body(text: str) -> list[str]:
    """The lines that are no comments."""
    return [line for line in text.splitlines() if not re.match(r"(;|//|#|--|!) ", line)]


# ---- readers --------------------------------------------------------------------------------------------------------


def ancestors(name: str) -> list[str]:
    """The name and all above it, the root as the last."""
    labels = name.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))] + [""]


def rpz_records(text: str) -> dict[str, Action]:
    zone = dns.zone.from_text("\n".join(body(text)), origin="rpz.test.", relativize=True)
    said = {}
    for owner, node in zone.nodes.items():
        if str(owner) == "@":
            continue
        types = {rdataset.rdtype for rdataset in node}
        if types == {dns.rdatatype.A, dns.rdatatype.AAAA}:
            said[str(owner)] = Action.SINKHOLE
        else:
            (target,) = [str(rdata.target) for rdataset in node for rdata in rdataset]
            said[str(owner)] = {
                ".": Action.NXDOMAIN, "*.": Action.NODATA, "rpz-drop.": Action.DROP, "rpz-passthru.": Action.PASSTHRU,
            }[target]  # fmt: skip
    return said


def read_rpz_as_zone(text: str) -> Reader:
    """With wildcards as RFC 4592 has them: they do not reach below names that exist."""
    said = rpz_records(text)
    existing = {"", *(above for owner in said for above in ancestors(owner))}

    def read(name: str) -> Action | None:
        if name in existing:
            return said.get(name)
        encloser = next(above for above in ancestors(name) if above in existing)
        return said.get(f"*.{encloser}")

    return read


def read_rpz_by_longest(text: str) -> Reader:
    """With the longest wildcard that covers the name."""
    said = rpz_records(text)

    def read(name: str) -> Action | None:
        owners = [name, *(f"*.{above}" for above in ancestors(name)[1:])]
        return next((said[owner] for owner in owners if owner in said), None)

    return read


def read_unbound(text: str) -> Reader:
    zones = dict(re.findall(r'local-zone: "(.+)\." (\S+)', text))
    sinkholes = set(re.findall(r"local-data: '(\S+)\. 30 IN A 192", text))
    acts = {
        "always_nxdomain": Action.NXDOMAIN, "always_nodata": Action.NODATA, "always_refuse": Action.REFUSED,
        "always_deny": Action.DROP, "redirect": Action.SINKHOLE, "always_transparent": Action.PASSTHRU,
    }  # fmt: skip

    def read(name: str) -> Action | None:
        zone = next((above for above in ancestors(name) if above in zones), None)
        if zone is None:
            return None
        if zones[zone] != "transparent":
            return acts[zones[zone]]
        if zone != name:
            return None
        return Action.SINKHOLE if name in sinkholes else Action.NODATA

    return read


def read_knot(text: str) -> Reader:
    says = {
        "policy.DENY": Action.NXDOMAIN, "policy.ANSWER({}, true)": Action.NODATA, "policy.REFUSE": Action.REFUSED,
        "policy.NO_ANSWER": Action.DROP, "policy.PASS": Action.PASSTHRU,
    }  # fmt: skip
    rules = [
        (kind, says.get(action, Action.SINKHOLE), set(re.findall(r"'(\S+)',", listed)))
        for kind, action, listed in re.findall(
            r"policy\.(domains|suffix)\((policy\..+?), policy\.todnames\(\{(.*?)\}\)\)", text, re.DOTALL
        )
    ]
    assert [action is Action.PASSTHRU for _, action, _ in rules] == sorted(
        (action is Action.PASSTHRU for _, action, _ in rules), reverse=True
    )

    def read(name: str) -> Action | None:
        for kind, action, listed in rules:
            if listed & set(ancestors(name) if kind == "suffix" else [name]):
                return action
        return None

    return read


def read_dnsmasq(text: str) -> Reader:
    local = set(re.findall(r"^local=/(.+)/$", text, re.MULTILINE))
    spared = set(re.findall(r"^server=/(.+)/#$", text, re.MULTILINE))
    addresses = set(re.findall(rf"^address=/(.+)/{A_V4}$", text, re.MULTILINE))

    def read(name: str) -> Action | None:
        rule = next((above for above in ancestors(name) if above in local | spared), None)
        if rule is None:
            return None
        return Action.PASSTHRU if rule in spared else Action.SINKHOLE if rule in addresses else Action.NXDOMAIN

    return read


def read_adblock(text: str) -> Reader:
    found = [re.fullmatch(r"(@@)?(\|\|?)(.+)\^", line) for line in body(text)]
    lines = {match.groups() for match in found if match is not None}

    def read(name: str) -> Action | None:
        for mark, action in (("@@", Action.PASSTHRU), (None, Action.NXDOMAIN)):
            if (mark, "|", name) in lines or any((mark, "||", above) in lines for above in ancestors(name)):
                return action
        return None

    return read


def read_hosts(text: str) -> Reader:
    said = {name: address for address, name in (line.split() for line in body(text)) if ":" not in address}
    return lambda name: {None: None, "0.0.0.0": Action.NXDOMAIN, A_V4: Action.SINKHOLE}[said.get(name)]


READERS = {
    "rpz": (Format.RPZ, read_rpz_as_zone),
    "rpz by longest match": (Format.RPZ, read_rpz_by_longest),
    "unbound": (Format.UNBOUND, read_unbound),
    "knot": (Format.KNOT, read_knot),
    "dnsmasq": (Format.DNSMASQ, read_dnsmasq),
    "adblock": (Format.ADBLOCK, read_adblock),
    "hosts": (Format.HOSTS, read_hosts),
}
WITHHOLD_EXACTLY = {Format.RPZ, Format.KNOT, Format.ADBLOCK}
WITHHOLD_AT_LEAST = {*WITHHOLD_EXACTLY, Format.UNBOUND}
SAY_EVERYTHING = {Format.KNOT}

_LABEL = st.sampled_from(["a", "b", "c"])
_NAMES = st.lists(_LABEL, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "example"]))


@st.composite
def policies(draw: st.DrawFn) -> list[Held]:
    """Orders with nested names of both kinds, every action, some on trial."""
    orders = []
    for i in range(draw(st.integers(1, 4))):
        listed = draw(st.dictionaries(_NAMES, st.booleans(), min_size=1, max_size=4))
        domains = [f"={name}" if exact else name for name, exact in listed.items()]
        action = draw(st.sampled_from(ORDER_ACTIONS))
        mode = draw(st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.OBSERVE]))
        orders.append(Held([app(f"app-{i}", *domains)], f"order-{i}", action=action, mode=mode))
    return orders


@st.composite
def own_rules(draw: st.DrawFn) -> list[LocalRule]:
    """Allows and blocks of the operator's, of both kinds."""
    rules = []
    for i in range(draw(st.integers(0, 3))):
        exact = "=" if draw(st.booleans()) else ""
        listed = [exact + name for name in draw(st.lists(_NAMES, min_size=1, max_size=2, unique=True))]
        if draw(st.booleans()):
            rules.append(allow(f"rule-{i}", *listed))
        else:
            rules.append(block(f"rule-{i}", *listed, action=draw(st.sampled_from(ORDER_ACTIONS))))
    return rules


def assert_says_the_same(
    reader: str, orders: Sequence[Held], asked: Sequence[str], rules: Sequence[LocalRule] = ()
) -> None:
    """For every listed name and those asked: the same action, but where the file says otherwise of the rule that
    decides; and RPZ, Knot and Adblock withhold exactly the same names even there, and Unbound no fewer."""
    form, make = READERS[reader]
    extracted, view = taken(*orders, rules=rules)
    written = write(extracted, form, "1.2")
    read = make(written.text)
    excused = {name for gap in written.gaps for name in gap.names}
    assert not (form in SAY_EVERYTHING and excused)

    for name in [*asked, *(held.name for held in extracted.names)]:
        verdict = judge_query(from_text(name), view)
        enforced = verdict if verdict is not None and verdict.enforced else None
        wanted = None if enforced is None or enforced.passes else enforced.action
        said = read(name)
        if said is Action.PASSTHRU:
            said = None
        if enforced is None or to_text(enforced.owner) not in excused:
            assert said is wanted, name
        if form in WITHHOLD_EXACTLY:
            assert (said is None) == (wanted is None), name
        if form in WITHHOLD_AT_LEAST and wanted is not None:
            assert said is not None, name


@pytest.mark.parametrize("reader", READERS)
@PROPERTY
@given(orders=policies(), rules=own_rules(), asked=st.lists(_NAMES, max_size=20))
def test_what_is_exported_is_what_is_withheld(
    reader: str, orders: list[Held], rules: list[LocalRule], asked: list[str]
) -> None:
    """Any policy with any rules of the operator's, any names."""
    assert_says_the_same(reader, orders, asked, rules)


NESTED = {
    "a name as the suffix above it, and below it another action": [
        Held([app("a", "c.example", "=b.c.example")], "order-a"),
        Held([app("b", "b.c.example")], "order-b", action=Action.NODATA),
    ],
    "two suffixes with names between them": [
        Held([app("a", "c.example")], "order-a"),
        Held([app("b", "a.b.c.example")], "order-b", action=Action.NODATA),
    ],
    "a name alone far below a suffix": [
        Held([app("a", "c.example")], "order-a"),
        Held([app("b", "=a.b.c.example")], "order-b", action=Action.DROP),
    ],
    "a suffix below a name alone": [Held([app("a", "=c.example", "b.c.example")])],
    "the shorter suffix on trial": [
        Held([app("a", "c.example")], "order-a", mode=Mode.OBSERVE),
        Held([app("b", "b.c.example")], "order-b"),
    ],
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", NESTED)
def test_rules_within_one_another_keep_their_reach(case: str, reader: str) -> None:
    """All names of up to four labels of three letters."""
    asked = [f"{'.'.join(labels)}.example" for n in range(1, 5) for labels in itertools.product("abc", repeat=n)]

    assert_says_the_same(reader, NESTED[case], asked)


ALLOWED = {
    "a suffix below a banned one": allow("a", "b.c.example"),
    "a name alone below a banned suffix": allow("a", "=b.c.example"),
    "the banned suffix itself": allow("a", "c.example"),
    "the name of the banned suffix alone": allow("a", "=c.example"),
    "far below a banned suffix": allow("a", "a.b.a.c.example"),
    "a suffix above a banned one": allow("a", "a.example"),
    "what nobody bans": allow("a", "b.a.example"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("action", ORDER_ACTIONS)
@pytest.mark.parametrize("case", ALLOWED)
def test_what_the_operator_allows_is_an_exception(case: str, action: Action, reader: str) -> None:
    """Above, below and beside a ban, whatever the ban does."""
    asked = [f"{'.'.join(labels)}.example" for n in range(1, 5) for labels in itertools.product("abc", repeat=n)]

    ban = Held([app("c", "c.example", "=b.example", "c.a.example")], action=action)

    assert_says_the_same(reader, [ban], asked, [ALLOWED[case]])


# ---- what is written ------------------------------------------------------------------------------------------------

CHAT = Held([app("chat", "chat.example", "www.chat.example", "=only.example")])
BODIES = {
    Format.RPZ: [
        "$TTL 30", f"@ SOA localhost. nobody.invalid. {int(START_AT) // 60} 3600 600 604800 30", "@ NS localhost.",
        "chat.example CNAME .", "*.chat.example CNAME .", "only.example CNAME .",
    ],
    Format.UNBOUND: [
        "server:", '    local-zone: "chat.example." always_nxdomain', '    local-zone: "only.example." transparent',
        r"    local-data: 'only.example. 30 IN TYPE65280 \# 0'",
    ],
    Format.KNOT: [
        "modules.load('policy')",
        "policy.add(policy.domains(policy.DENY, policy.todnames({", "    'only.example',", "})))",
        "policy.add(policy.suffix(policy.DENY, policy.todnames({", "    'chat.example',", "})))",
    ],
    Format.DNSMASQ: ["local=/chat.example/"],
    Format.HOSTS: [
        "0.0.0.0 chat.example", ":: chat.example", "0.0.0.0 www.chat.example", ":: www.chat.example",
        "0.0.0.0 only.example", ":: only.example",
    ],
    Format.ADBLOCK: ["||chat.example^", "|only.example^"],
    Format.EDL: ["chat.example", "www.chat.example", "only.example"],
}  # fmt: skip


@pytest.mark.parametrize("form", BODIES)
def test_a_ban_in_each_format(form: Format) -> None:
    """A suffix, a name that the suffix covers anyway, and a name alone."""
    assert body(exported(form, CHAT)) == BODIES[form]


OWN = [allow("cdn", "cdn.chat.example"), allow("one", "=one.chat.example"), block("games", "games.example")]
OWN_LINES = {
    Format.RPZ: [
        "cdn.chat.example CNAME rpz-passthru.", "*.cdn.chat.example CNAME rpz-passthru.",
        "one.chat.example CNAME rpz-passthru.", "*.one.chat.example CNAME .",
        "games.example CNAME .", "*.games.example CNAME .",
    ],
    Format.UNBOUND: [
        '    local-zone: "cdn.chat.example." always_transparent', '    local-zone: "games.example." always_nxdomain',
    ],
    Format.KNOT: [
        "local interdict_allowed = {",
        "    policy.domains(policy.PASS, policy.todnames({", "        'one.chat.example',", "    })),",
        "    policy.suffix(policy.PASS, policy.todnames({", "        'cdn.chat.example',", "    })),",
        "}",
        "            if allowed(request, query) then return nil end",
        "interdict_add(policy.suffix(policy.DENY, policy.todnames({", "    'chat.example',", "    'games.example',",
    ],
    Format.DNSMASQ: ["local=/chat.example/", "server=/cdn.chat.example/#", "local=/games.example/"],
    Format.ADBLOCK: ["||chat.example^", "@@||cdn.chat.example^", "@@|one.chat.example^", "||games.example^"],
    Format.HOSTS: ["0.0.0.0 chat.example", "0.0.0.0 www.chat.example", "0.0.0.0 games.example"],
    Format.EDL: ["chat.example", "www.chat.example", "games.example", "only.example"],
}  # fmt: skip
OWN_GAPS = {
    Format.UNBOUND: {"the name gets nxdomain instead of its own answer": ("one.chat.example",)},
    Format.DNSMASQ: {"the name gets nxdomain instead of its own answer": ("one.chat.example",)},
    Format.EDL: {
        "WITHHELD THOUGH ALLOWED where the reader takes an entry with all names below":
            ("cdn.chat.example", "one.chat.example"),
    },
}  # fmt: skip


@pytest.mark.parametrize("form", OWN_LINES)
def test_own_rules_in_each_format(form: Format) -> None:
    """An allow with all below, an allow of one name, and a block; what can not be said is told by name."""
    written = write(taken(CHAT, rules=OWN)[0], form, "1.2")

    assert [line for line in OWN_LINES[form] if line not in body(written.text)] == []
    assert OWN_GAPS.get(form, {}).items() <= gaps(written).items()
    assert not any("one.chat.example" in line or "cdn" in line for line in body(written.text)) or form in (
        Format.RPZ, Format.UNBOUND, Format.KNOT, Format.DNSMASQ, Format.ADBLOCK
    )  # fmt: skip


@pytest.mark.parametrize("form", [form for form in Format if form is not Format.JSON])
def test_an_allow_of_a_name_alone_that_nobody_bans_is_in_nobodys_way(form: Format) -> None:
    """It can be said in every format, or needs not be."""
    written = write(taken(CHAT, rules=[allow("free", "=free.example")])[0], form, "1.2")

    assert not any("free.example" in found for found in gaps(written).values())
    assert ("free.example" in written.text) == (form not in (Format.BIND, Format.HOSTS, Format.EDL))


def test_an_allowed_name_whose_suffix_is_banned_stays_in_a_list_and_is_told() -> None:
    """Rather than letting through all names below."""
    written = write(taken(CHAT, rules=[allow("top", "=chat.example")])[0], Format.EDL, "1.2")

    assert "chat.example" in body(written.text)
    assert gaps(written)["WITHHELD THOUGH ALLOWED: without it the names below would be let through"] == (
        "chat.example",
    )


def test_rules_on_addresses_are_triggers_in_rpz_and_told_elsewhere() -> None:
    """IPv4 and IPv6; what lies within an allowed network is left out, since an allow goes first."""
    rules = [
        allow("a", addresses=["192.0.2.0/25", "2001:db8:0:0:1::/80"]),
        block("b", addresses=["192.0.2.0/24", "192.0.2.7/32", "2001:db8::/32"], action=Action.NODATA),
    ]
    rpz, unbound = (write(taken(CHAT, rules=rules)[0], form, "1.2") for form in (Format.RPZ, Format.UNBOUND))

    assert [line for line in body(rpz.text) if "rpz-ip" in line] == [
        "25.0.2.0.192.rpz-ip CNAME rpz-passthru.",
        "80.zz.1.0.0.db8.2001.rpz-ip CNAME rpz-passthru.",
        "24.0.2.0.192.rpz-ip CNAME *.",
        "32.zz.db8.2001.rpz-ip CNAME *.",
    ]
    assert gaps(rpz) == {}
    assert gaps(unbound)["left out, since the format knows no rules on the addresses of answers"] == (
        "192.0.2.0/25", "2001:db8:0:0:1::/80", "192.0.2.0/24", "2001:db8::/32"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (Format.RPZ, ["chat.example A 192.0.2.80", "*.chat.example AAAA 2001:db8::80"]),
        (Format.UNBOUND, ['local-zone: "chat.example." redirect', "local-data: 'chat.example. 30 IN A 192.0.2.80'"]),
        (Format.KNOT, ["[kres.type.A] = { ttl = 30, rdata = { kres.str2ip('192.0.2.80') } }"]),
        (Format.DNSMASQ, ["address=/chat.example/192.0.2.80", "local=/chat.example/"]),
        (Format.HOSTS, ["192.0.2.80 chat.example", "2001:db8::80 chat.example"]),
    ],
)
def test_a_sinkhole_is_told_by_its_addresses(form: Format, said: list[str]) -> None:
    """Both families."""
    text = exported(form, Held([app("chat", "chat.example")], action=Action.SINKHOLE))

    assert [line for line in said if line not in text] == []


def gaps(written: Written) -> dict[str, tuple[str, ...]]:
    return {gap.why: gap.names for gap in written.gaps}


@pytest.mark.parametrize(
    ("form", "order", "why", "names"),
    [
        (Format.RPZ, Held([app("c", "a.example", "=b.example")], action=Action.REFUSED),
         "the name gets nxdomain instead of refused", ("a.example", "b.example")),
        (Format.BIND, Held([app("c", "a.example")], action=Action.REFUSED),
         "names below get nxdomain instead of refused", ("a.example",)),
        (Format.UNBOUND, CHAT, "the name gets nodata instead of nxdomain", ("only.example",)),
        (Format.DNSMASQ, CHAT, "left out, since a rule for this name alone would withhold all names below it too",
         ("only.example",)),
        (Format.DNSMASQ, Held([app("c", "a.example")], action=Action.DROP),
         "names below get nxdomain instead of drop", ("a.example",)),
        (Format.HOSTS, CHAT, "NAMES BELOW ARE LET THROUGH: a hosts file knows no suffixes",
         ("chat.example", "www.chat.example")),
        (Format.EDL, CHAT, "meant for this name alone: wrong where the reader takes an entry with all names below",
         ("only.example",)),
        (Format.ADBLOCK, Held([app("c", "a.example")], action=Action.DROP),
         "the reader's settings decide what is answered instead of drop", ("a.example",)),
    ],
)  # fmt: skip
def test_what_a_format_can_not_say_stands_in_its_comments(
    form: Format, order: Held, why: str, names: tuple[str, ...]
) -> None:
    """Each name of it, below the reason."""
    written = write(taken(order)[0], form, "1.2")

    assert gaps(written)[why] == names
    comments = [line for line in written.text.splitlines() if line not in body(written.text)]
    start = next(i for i, line in enumerate(comments) if why in line) + 1
    assert tuple(line.split()[1] for line in comments[start : start + len(names)]) == names


@pytest.mark.parametrize("form", [Format.RPZ, Format.KNOT, Format.ADBLOCK, Format.JSON])
def test_a_plain_ban_has_no_gaps_where_names_alone_can_be_told(form: Format) -> None:
    """NXDOMAIN for suffixes and names."""
    assert write(taken(CHAT)[0], form, "1.2").gaps == ()


@pytest.mark.parametrize("form", [form for form in Format if form is not Format.JSON])
def test_a_file_says_where_it_comes_from_and_no_title_breaks_out_of_a_comment(form: Format) -> None:
    """Version, digest, moment, group, orders; a title on several lines stays one comment."""
    extracted, view = taken(CHAT, rules=[block("games", "games.example")], left_out=["ads.example"])
    order = replace(extracted.grounds[0], by="Minister\r\nlocal-zone: \u2028 x")
    text = write(replace(extracted, grounds=(order, *extracted.grounds[1:])), form, "1.2").text

    mark = text.split(" ")[0]
    head = text.splitlines()[:5]
    assert head == [
        f"{mark} made by Interdict 1.2, generation {view.generation.digest}",
        f"{mark} at 2030-03-17T17:46:40+00:00, for the group everyone",
        f'{mark} order order-1: Minister local-zone: x, "A ban"',
        f'{mark} own rule games: service desk, "block: a test"',
        f"{mark} policy zones that others keep are not held here: ads.example",
    ]
    assert body(text)[0] not in head


def test_json_has_everything() -> None:
    """Names with what they and the names below get, and by which orders."""
    said = json.loads(exported(Format.JSON, CHAT))

    assert said["names"][2] == {"name": "only.example", "here": "nxdomain", "below": None, "orders": ["order-1"]}
    assert (said["group"], said["block_ttl"], said["sinkhole"]["ipv4"]) == ("everyone", 30, [A_V4])
    own = json.loads(exported(Format.JSON, CHAT, rules=OWN))
    assert {"name": "cdn.chat.example", "here": "passthru", "below": "passthru", "orders": ["rule:cdn", "order-1"]} in (
        own["names"]
    )
    assert own["own_rules"][0] == {"id": "cdn", "owner": "service desk", "reason": "allow: a test"}


@pytest.mark.parametrize("form", Format)
def test_the_same_arguments_make_the_same_file(form: Format) -> None:
    """Whatever order the names are written in."""
    again = Held([app("chat", "=only.example", "chat.example", "www.chat.example")])

    assert body(exported(form, CHAT))[1:] == body(exported(form, again))[1:] or form is Format.JSON
    assert exported(form, CHAT) == exported(form, CHAT)
