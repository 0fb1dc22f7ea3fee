"""The policy in other words: read back by tiny readers of each format, it withholds what is withheld here."""

import itertools
import json
import re
from collections.abc import Callable, Sequence

import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.policy.documents import Action, Documents, Mode
from resolver.policy.export import Extract, Format, Written, extract, probes, sample, write
from resolver.policy.generation import View
from resolver.policy.judge import judge_query
from resolver.wire.name import from_text
from tests.support.clock import START_AT
from tests.support.house import Held, app, generation

PROPERTY = settings(deadline=None, max_examples=40)
A_V4, A_V6 = "192.0.2.80", "2001:db8::80"
Reader = Callable[[str], Action | None]
"""What the file says of a name."""


def taken(*orders: Held, sinkhole: Sequence[str] = (A_V4, A_V6)) -> tuple[Extract, View]:
    """What the orders hold the first group to, and the view."""
    documents = Documents(
        {app.id: app for order in orders for app in order.apps}, {order.id: order.document() for order in orders}
    )
    view = View(generation(*orders, sinkhole=sinkhole), 0, START_AT)
    return extract(view, documents, START_AT), view


def exported(form: Format, *orders: Held) -> str:
    return write(taken(*orders)[0], form, "1.2").text


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
            said[str(owner)] = {".": Action.NXDOMAIN, "*.": Action.NODATA, "rpz-drop.": Action.DROP}[target]
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
        "always_deny": Action.DROP, "redirect": Action.SINKHOLE,
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
        "policy.NO_ANSWER": Action.DROP,
    }  # fmt: skip
    rules = [
        (kind, says.get(action, Action.SINKHOLE), set(re.findall(r"'(\S+)',", listed)))
        for kind, action, listed in re.findall(
            r"policy\.add\(policy\.(\w+)\((policy\..+?), policy\.todnames\(\{(.*?)\}\)\)\)", text, re.DOTALL
        )
    ]

    def read(name: str) -> Action | None:
        for kind, action, listed in rules:
            if listed & set(ancestors(name) if kind == "suffix" else [name]):
                return action
        return None

    return read


def read_dnsmasq(text: str) -> Reader:
    local = set(re.findall(r"^local=/(.+)/$", text, re.MULTILINE))
    addresses = set(re.findall(rf"^address=/(.+)/{A_V4}$", text, re.MULTILINE))

    def read(name: str) -> Action | None:
        rule = next((above for above in ancestors(name) if above in local), None)
        if rule is None:
            return None
        return Action.SINKHOLE if rule in addresses else Action.NXDOMAIN

    return read


def read_adblock(text: str) -> Reader:
    exact = {line[1:-1] for line in body(text) if not line.startswith("||")}
    suffix = {line[2:-1] for line in body(text) if line.startswith("||")}
    return lambda name: Action.NXDOMAIN if name in exact or suffix & set(ancestors(name)) else None


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
WITHHOLD_EXACTLY = {Format.RPZ, Format.UNBOUND, Format.KNOT, Format.ADBLOCK}
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
        action = draw(st.sampled_from(Action))
        mode = draw(st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.OBSERVE]))
        orders.append(Held([app(f"app-{i}", *domains)], f"order-{i}", action=action, mode=mode))
    return orders


def assert_says_the_same(reader: str, orders: Sequence[Held], asked: Sequence[str]) -> None:
    """For every listed name and those asked: the same action, but where the file says otherwise of the rule that
    decides; and four formats withhold exactly the same names even there."""
    form, make = READERS[reader]
    extracted, view = taken(*orders)
    written = write(extracted, form, "1.2")
    read = make(written.text)
    excused = {name for gap in written.gaps for name in gap.names}
    assert not (form in SAY_EVERYTHING and excused)

    for name in [*asked, *(held.name for held in extracted.names)]:
        verdict = judge_query(from_text(name), view)
        enforced = verdict if verdict is not None and verdict.mode is Mode.ENFORCE else None
        wanted = None if enforced is None else enforced.action
        rule = None if enforced is None else enforced.rule.split()[1]
        if rule not in excused:
            assert read(name) is wanted, name
        if form in WITHHOLD_EXACTLY:
            assert (read(name) is None) == (wanted is None), name


@pytest.mark.parametrize("reader", READERS)
@PROPERTY
@given(orders=policies(), asked=st.lists(_NAMES, max_size=20))
def test_what_is_exported_is_what_is_withheld(reader: str, orders: list[Held], asked: list[str]) -> None:
    """Any policy, any names."""
    assert_says_the_same(reader, orders, asked)


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


def test_a_sinkhole_without_addresses_is_nodata() -> None:
    """As it is answered here."""
    extracted, _ = taken(Held([app("chat", "chat.example")], action=Action.SINKHOLE), sinkhole=())

    assert [(held.here, held.below) for held in extracted.names] == [(Action.NODATA, Action.NODATA)]


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
    document = CHAT.document().model_copy(update={"authority": "Minister\r\nlocal-zone: \u2028 x"})
    view = View(generation(CHAT), 0, START_AT)
    text = write(extract(view, Documents({"chat": CHAT.apps[0]}, {"order-1": document}), START_AT), form, "1.2").text

    mark = text.split(" ")[0]
    head = text.splitlines()[:3]
    assert head == [
        f"{mark} made by Interdict 1.2, generation {view.generation.digest}",
        f"{mark} at 2030-03-17T17:46:40+00:00, for the group everyone",
        f'{mark} order order-1: Minister local-zone: x, "A ban"',
    ]
    assert body(text)[0] not in head


def test_json_has_everything() -> None:
    """Names with what they and the names below get, and by which orders."""
    said = json.loads(exported(Format.JSON, CHAT))

    assert said["names"][2] == {"name": "only.example", "here": "nxdomain", "below": None, "orders": ["order-1"]}
    assert (said["group"], said["block_ttl"], said["sinkhole"]["ipv4"]) == ("everyone", 30, [A_V4])


@pytest.mark.parametrize("form", Format)
def test_the_same_arguments_make_the_same_file(form: Format) -> None:
    """Whatever order the names are written in."""
    again = Held([app("chat", "=only.example", "chat.example", "www.chat.example")])

    assert body(exported(form, CHAT))[1:] == body(exported(form, again))[1:] or form is Format.JSON
    assert exported(form, CHAT) == exported(form, CHAT)


def test_an_order_on_trial_is_not_exported() -> None:
    """Observe withholds nothing."""
    extracted, _ = taken(Held([app("chat", "chat.example")], mode=Mode.OBSERVE))

    assert (extracted.names, extracted.orders) == ((), ())


# ---- probes ---------------------------------------------------------------------------------------------------------


def test_probes_are_the_names_and_those_around_them() -> None:
    """Below, above and alike, each with what policy says and by which rule; no top-level domain."""
    extracted, view = taken(Held([app("chat", "a.chat.example", "=only.example")]))

    found = {(p.name, p.listed, p.action, p.rule) for p in probes(extracted, view, sample(extracted, None))}

    assert found == {
        (from_text(name), listed, Action.NXDOMAIN if rule else None, rule)
        for name, listed, rule in [
            ("a.chat.example", "a.chat.example", "a.chat.example"),
            ("interdict-probe.a.chat.example", "a.chat.example", "a.chat.example"),
            ("xa.chat.example", "a.chat.example", ""),
            ("chat.example", "a.chat.example", ""),
            ("only.example", "only.example", "only.example"),
            ("interdict-probe.only.example", "only.example", ""),
            ("xonly.example", "only.example", ""),
        ]
    }


def test_probes_of_the_longest_names_are_names() -> None:
    """Labels of 63 octets and names of 255 have no room for a name below."""
    name = ".".join(["y" * 63, "z" * 63, "z" * 63, "z" * 61])
    extracted, view = taken(Held([app("chat", name)]))

    found = list(probes(extracted, view, [name]))

    assert (len(from_text(name)), extracted.names[0].below) == (255, None)
    assert [max(len(p.name), p.name[0]) for p in found] == [255, 255, 191]


@pytest.mark.parametrize(
    ("count", "picked"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 4]), (6, [0, 1, 2, 3, 4, 5]), (9, list(range(6)))]
)
def test_a_sample_is_spread_over_all_names(count: int, picked: list[int]) -> None:
    """The first of each of so many equal parts."""
    names = [f"n{i}.example" for i in range(6)]
    extracted, _ = taken(Held([app("chat", *names)]))

    assert sample(extracted, count) == [names[i] for i in picked]
